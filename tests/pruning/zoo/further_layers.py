"""Grouped and transposed convolution, further normalisations, and layers that stand alone."""

from __future__ import annotations

from keras import Input, Model, Sequential, layers

from keras_sbp._keras import LayerScale, StochasticDepth
from tests.pruning.oracle import gate
from tests.pruning.zoo.registry import topology


@topology
def grouped_convolution():
    return Sequential(
        [
            Input((8, 8, 3)),
            layers.Conv2D(12, 3, activation="relu"),
            gate(),
            layers.Conv2D(8, 3, groups=4, padding="same", strides=2, activation="relu"),
            gate(),
            layers.Conv2D(6, 2, groups=2, use_bias=False, activation="gelu"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def grouped_convolution_of_constants():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(12, 3),
            gate(),
            layers.BatchNormalization(),
            layers.Conv2D(8, 3, groups=4, use_bias=False),
            layers.Activation("sigmoid"),
            gate(),
            layers.Activation("softplus"),
            layers.Conv2D(8, 3, groups=4, padding="same"),
            gate(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


@topology
def grouped_convolution_that_others_read_beside():
    image = Input((8, 8, 3))
    x = layers.Conv2D(12, 3, activation="relu")(image)
    y = layers.Conv2D(6, 3, groups=3, padding="same", activation="tanh")(gate()(x))
    z = layers.Conv2D(6, 3, groups=6, padding="same")(x)
    x = layers.Concatenate()([gate()(y), z])
    return Model(image, layers.Dense(3)(layers.Flatten()(x)))


@topology
def grouped_residual_bottlenecks():
    image = Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    for _ in range(2):
        y = layers.Conv2D(12, 1, use_bias=False)(x)
        y = gate()(layers.ReLU()(layers.BatchNormalization()(y)))
        y = layers.Conv2D(12, 3, padding="same", groups=4, use_bias=False)(y)
        y = gate()(layers.ReLU()(layers.BatchNormalization()(y)))
        y = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def grouped_convolution_in_one_dimension():
    return Sequential(
        [
            Input((20, 3)),
            layers.Conv1D(12, 3, activation="softplus"),
            gate(),
            layers.Conv1D(18, 3, groups=6, padding="causal", activation="relu"),
            gate(),
            layers.Conv1D(4, 3, groups=2, dilation_rate=2),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def grouped_and_transposed_in_three_dimensions():
    return Sequential(
        [
            Input((5, 5, 5, 2)),
            layers.Conv3D(6, 2, activation="relu"),
            gate(),
            layers.Conv3D(6, 2, groups=3, activation="relu"),
            gate(),
            layers.Conv3DTranspose(4, 2, strides=2),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def shared_grouped_convolution():
    left, right = Input((8, 8, 3)), Input((8, 8, 3))
    first, second = layers.Conv2D(12, 3), layers.Conv2D(24, 3, groups=12, activation="relu")

    def tower(x):
        return layers.GlobalAveragePooling2D()(gate()(second(gate()(first(x)))))

    x = layers.Concatenate()([tower(left), tower(right)])
    return Model([left, right], layers.Dense(3)(x))


@topology
def transposed_convolution():
    return Sequential(
        [
            Input((5, 4, 3)),
            layers.Conv2D(8, 2, activation="relu"),
            gate(),
            layers.Conv2DTranspose(6, 3, strides=2, output_padding=1, activation="relu"),
            gate(),
            layers.Conv2DTranspose(6, 3, padding="same", activation="gelu"),
            gate(),
            layers.Conv2DTranspose(5, (2, 3), padding="same", strides=(1, 3), use_bias=False),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def transposed_convolution_of_constants():
    return Sequential(
        [
            Input((9, 6, 3)),
            layers.Conv2D(8, 2),
            gate(),
            layers.Activation("sigmoid"),
            layers.Conv2DTranspose(6, 1, activation="softplus"),
            gate(),
            layers.Activation("softplus"),
            layers.Conv2DTranspose(6, 3, strides=3),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def encoder_and_decoder():
    image = Input((8, 8, 3))
    skip = gate()(layers.Conv2D(6, 3, padding="same", activation="relu")(image))
    x = gate()(layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(skip))
    x = gate()(layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")(x))
    x = layers.Conv2D(4, 3, padding="same")(layers.Concatenate()([skip, x]))
    return Model(image, layers.Conv2D(2, 1)(gate()(x)))


@topology
def one_dimensional_relatives():
    return Sequential(
        [
            Input((20, 3)),
            layers.Conv1D(8, 3),
            gate(),
            layers.BatchNormalization(),
            layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu"),
            gate(),
            layers.SeparableConv1D(6, 3, depth_multiplier=2, padding="same", activation="relu"),
            gate(),
            layers.Activation("softplus"),
            layers.SeparableConv1D(6, 3, use_bias=False),
            gate(),
            layers.DepthwiseConv1D(2, strides=2, padding="same"),
            layers.Conv1DTranspose(4, 3, strides=2),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def layer_normalisation():
    features = Input((6, 5))
    x = layers.LayerNormalization()(layers.Dense(8)(features))
    x = gate()(layers.Dense(12, activation="gelu")(gate()(x)))
    x = gate(axis=1)(layers.LayerNormalization(center=False)(layers.Dense(8)(x)))
    x = gate()(layers.LayerNormalization(scale=False, epsilon=1e-6)(x))
    x = layers.LayerNormalization(axis=[-1, 1])(layers.Dense(6)(x))
    return Model(features, layers.Dense(3)(layers.Flatten()(gate()(x))))


@topology
def pre_norm_feed_forward_blocks():
    x = sequence = Input((6, 8))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        y = gate()(layers.Dense(16, activation="gelu")(y))
        x = layers.Add()([x, layers.Dropout(0.1)(layers.Dense(8)(y))])
    return Model(sequence, layers.Dense(3)(layers.LayerNormalization()(x)))


@topology
def group_normalisation():
    return Sequential(
        [
            Input((8, 8, 3)),
            layers.Conv2D(12, 3),
            layers.GroupNormalization(4),
            gate(),
            layers.Activation("gelu"),
            layers.Conv2D(8, 3, padding="same"),
            gate(),
            layers.GroupNormalization(-1, center=False),
            layers.ReLU(),
            layers.Conv2D(6, 3),
            gate(),
            layers.GroupNormalization(3, scale=False),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def group_normalisation_between_gates():
    image = Input((8, 8, 3))
    x = gate()(layers.Conv2D(8, 3)(image))
    x = gate()(layers.GroupNormalization(2, axis=3)(x))
    y = layers.GroupNormalization(8)(x)
    x = layers.Concatenate()([x, gate()(y)])
    return Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(16, 3)(x))))


@topology
def norms_of_squares():
    features = Input((6, 5))
    x = gate()(layers.Dense(8, activation="relu")(features))
    x = layers.RMSNormalization(epsilon=0.1)(x)
    x = gate()(layers.Dense(10, activation="relu")(x))
    x = gate()(layers.RMSNormalization(axis=[1, 2], epsilon=0.1)(gate(axis=1)(x)))
    x = gate()(layers.Dense(8, activation="relu")(x))
    x = layers.UnitNormalization()(x)
    x = layers.UnitNormalization(axis=[1, 2])(gate(axis=1)(layers.Dense(6)(x)))
    return Model(features, layers.Dense(3)(layers.Flatten()(x)))


@topology
def shared_norms():
    left, right = Input((6, 5)), Input((4, 5))
    wide, rms, norm = layers.Dense(8), layers.RMSNormalization(), layers.LayerNormalization()
    slope = layers.PReLU(shared_axes=[1])

    def tower(x):
        x = rms(gate()(wide(x)))
        return layers.GlobalAveragePooling1D()(gate()(slope(norm(layers.Dense(6)(x)))))

    x = layers.Concatenate()([tower(left), tower(right)])
    return Model([left, right], layers.Dense(3)(x))


@topology
def parametric_relu():
    image = Input((8, 8, 3))
    x = gate()(layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(8, 3)(image)))
    x = layers.PReLU(shared_axes=[1, 2])(layers.BatchNormalization()(x))
    x = gate()(layers.PReLU()(layers.Conv2D(6, 3)(x)))
    x = layers.PReLU(shared_axes=[3])(layers.BatchNormalization()(x))
    x = layers.Dense(12)(layers.Flatten()(x))
    return Model(image, layers.Dense(3)(layers.PReLU()(gate()(x))))


@topology
def softmax_layers():
    sequence = Input((6, 5))
    x = gate(axis=1)(layers.Dense(8, activation="relu")(sequence))
    parts = [layers.Softmax(axis=axis)(layers.Dense(6)(x)) for axis in (-1, 1, [1, 2])]
    parts.append(layers.Softmax(axis=1)(gate()(layers.Dense(8)(sequence))))
    x = gate()(layers.Dense(8, activation="relu")(layers.Concatenate()(parts)))
    return Model(sequence, layers.Dense(3)(gate()(layers.Flatten()(x))))


@topology
def embeddings():
    words = Input((7,), dtype="int32")
    positions = Input((7,), dtype="int32")
    x = layers.Embedding(2, 8)(words)
    x = layers.Add()([gate()(x), gate()(layers.Embedding(9, 8)(positions))])
    x = gate()(layers.Dense(6, activation="relu")(gate()(x)))
    y = layers.GlobalAveragePooling1D()(gate()(layers.Embedding(2, 6)(words)))
    x = layers.Concatenate()([layers.Flatten()(x), y])
    return Model([words, positions], layers.Dense(3)(x))


@topology
def shared_embedding():
    left, right = Input((7,), dtype="int32"), Input((4,), dtype="int32")
    table, shared = layers.Embedding(2, 8), gate()

    def tower(x):
        return layers.GlobalAveragePooling1D()(layers.Dense(6, activation="relu")(shared(table(x))))

    x = layers.Concatenate()([tower(left), tower(right)])
    return Model([left, right], layers.Dense(3)(x))


@topology
def permuted_and_repeated():
    sequence = Input((6, 5))
    x = gate()(layers.Dense(8, activation="relu")(sequence))
    x = layers.Permute((2, 1))(x)
    x = layers.Conv1D(7, 3, activation="relu")(layers.Permute((2, 1))(x))
    x = layers.GlobalAveragePooling1D()(gate()(x))
    x = layers.RepeatVector(4)(gate()(layers.Dense(6, activation="tanh")(x)))
    x = gate(axis=1)(layers.RepeatVector(5)(layers.Flatten()(gate()(x))))
    return Model(sequence, layers.Dense(3)(layers.Flatten()(layers.Dense(4)(x))))


@topology
def resized_images():
    image = Input((7, 6, 2))
    x = gate()(layers.Conv2D(8, 3)(image))
    x = layers.Resizing(9, 8)(layers.Activation("sigmoid")(x))
    x = gate()(layers.Conv2D(6, 3)(x))
    x = layers.Resizing(4, 5, interpolation="bicubic", antialias=True)(x)
    x = gate()(layers.Conv2D(6, 2, padding="same")(layers.Activation("softplus")(x)))
    x = layers.Resizing(3, 5, interpolation="nearest", crop_to_aspect_ratio=True)(x)
    return Model(image, layers.Dense(3)(layers.Flatten()(x)))


@topology
def dot_products():
    left, right = Input((6, 5)), Input((4, 5))
    a = gate()(layers.Dense(8, activation="relu")(left))
    b = gate()(layers.Dense(8, activation="relu")(right))
    scores = layers.Softmax()(layers.Dot(axes=2)([a, b]))
    values = gate()(layers.Dense(7, activation="relu")(right))
    x = layers.Dot(axes=(2, 1))([scores, values])
    x = layers.GlobalAveragePooling1D()(layers.Dense(6, activation="relu")(gate()(x)))
    y = gate()(layers.Dense(6)(layers.GlobalMaxPooling1D()(b)))
    similar = layers.Dot(axes=1, normalize=True)([gate()(x), y])
    return Model([left, right], layers.Dense(3)(layers.Concatenate()([similar, x])))


@topology
def dot_products_of_unequal_ranks():
    image, features = Input((4, 5, 3)), Input((5,))
    x = layers.Conv2D(8, 1, activation="relu")(image)
    y = gate()(layers.Dense(8, activation="relu")(features))
    z = layers.Dot(axes=(3, 1))([gate()(x), y])
    return Model([image, features], layers.Dense(3)(gate(axis=1)(z)))


@topology
def convnext_blocks():
    image = Input((12, 12, 3))
    x = layers.LayerNormalization()(layers.Conv2D(8, 4, strides=4)(image))
    for _ in range(2):
        y = layers.Conv2D(8, 3, padding="same", groups=8)(x)
        y = layers.LayerNormalization(epsilon=1e-6)(y)
        y = gate()(layers.Dense(16, activation="gelu")(y))
        y = LayerScale(1.0, 8)(layers.Dense(8)(y))
        x = layers.Add()([x, StochasticDepth(0.1)(y)])
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def layer_scales_and_depthwise_groups():
    image = Input((8, 8, 3))
    x = gate()(layers.Conv2D(8, 3, activation="relu")(image))
    x = layers.Conv2D(8, 3, padding="same", groups=8)(x)
    x = LayerScale(1.0, 8)(gate()(x))
    x = StochasticDepth(0.1)(layers.Conv2D(6, 3)(layers.Activation("softplus")(x)))
    x = LayerScale(1.0, 6)(gate(axis=1)(gate()(x)))
    return Model(image, layers.Dense(3)(layers.Flatten()(x)))
