"""Dense, convolution, normalisation, merges and the arrangements they come in."""

from __future__ import annotations

import keras
from keras import Input, Model, Sequential, layers

from tests.pruning.oracle import gate
from tests.pruning.zoo.registry import topology


@topology
def dense_chain():
    return Sequential(
        [
            Input((12,)),
            layers.Dense(16, activation="relu"),
            gate(),
            layers.Dense(10, activation="gelu"),
            gate(),
            layers.Dense(3),
        ]
    )


@topology
def gated_input_features():
    return Sequential(
        [Input((40,)), gate(), layers.Dense(30, activation="relu"), gate(), layers.Dense(3)]
    )


@topology
def normalised_input_features():
    normalise = layers.Normalization(mean=[0.1 * i for i in range(20)], variance=[2.0] * 20)
    return Sequential([Input((20,)), normalise, gate(), layers.Dense(8), gate(), layers.Dense(3)])


@topology
def rescaled_image():
    return Sequential(
        [
            Input((8, 8, 3)),
            layers.Rescaling([0.5, 2.0, 1.5], offset=[-0.2, 0.1, 0.0]),
            gate(),
            layers.Conv2D(6, 3, activation="relu"),
            gate(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


@topology
def lenet_5():
    return Sequential(
        [
            Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu"),
            gate(),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, activation="relu"),
            gate(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            gate(),
            layers.Dense(100, activation="relu"),
            gate(),
            layers.Dense(10, activation="softmax"),
        ]
    )


@topology
def constant_through_batch_norm_into_valid_convolution():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3),
            gate(),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(4, 3, padding="valid"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def constant_through_batch_norm_into_padded_convolution():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3),
            gate(),
            layers.BatchNormalization(),
            layers.ELU(),
            layers.Conv2D(4, 3, padding="same"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def constant_into_padded_depthwise_and_separable_convolution():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3),
            gate(),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same", activation="softplus"),
            gate(),
            layers.Activation("sigmoid"),
            layers.SeparableConv2D(6, 3, padding="same"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def constant_through_zero_padding():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3),
            gate(),
            layers.Activation("sigmoid"),
            layers.ZeroPadding2D(1),
            layers.Conv2D(4, 3),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3),
        ]
    )


@topology
def padded_convolution_of_size_one():
    return Sequential(
        [
            Input((6, 6, 2)),
            layers.Conv2D(8, 3),
            gate(),
            layers.Activation("sigmoid"),
            layers.Conv2D(4, 1, padding="same", strides=2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def no_biases():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3, use_bias=False),
            gate(),
            layers.Activation("softplus"),
            layers.Conv2D(6, 3, use_bias=False),
            gate(),
            layers.Activation("softplus"),
            layers.Flatten(),
            layers.Dense(3, use_bias=False),
        ]
    )


@topology
def strides_and_dilations():
    return Sequential(
        [
            Input((16, 12, 2)),
            layers.Conv2D(8, (3, 2), strides=(2, 1), activation="relu"),
            gate(),
            layers.Conv2D(6, 3, dilation_rate=2, padding="same", activation="tanh"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def one_dimension():
    return Sequential(
        [
            Input((20, 3)),
            layers.Conv1D(8, 3, padding="causal", activation="relu"),
            gate(),
            layers.MaxPooling1D(),
            layers.ZeroPadding1D(1),
            layers.Conv1D(6, 3),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            gate(),
            layers.Cropping1D(1),
            layers.UpSampling1D(2),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )


@topology
def three_dimensions():
    return Sequential(
        [
            Input((6, 6, 6, 2)),
            layers.Conv3D(6, 2, activation="relu"),
            gate(),
            layers.MaxPooling3D(2),
            layers.ZeroPadding3D(1),
            layers.Conv3D(4, 2, padding="same", activation="relu"),
            gate(),
            layers.UpSampling3D(2),
            layers.Cropping3D(1),
            layers.GlobalMaxPooling3D(),
            layers.Dense(3),
        ]
    )


@topology
def adaptive_pooling():
    image = Input((9, 9, 2))
    x = gate()(layers.Conv2D(8, 3, activation="gelu")(image))
    x = layers.AdaptiveAveragePooling2D((5, 4))(x)
    x = gate()(layers.Conv2D(6, 2, activation="relu")(x))
    x = layers.AdaptiveMaxPooling1D(3)(layers.Reshape((-1, 6))(x))
    return Model(image, layers.Dense(3)(layers.Flatten()(x)))


@topology
def unknown_image_size():
    return Sequential(
        [
            Input((None, None, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            gate(),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            gate(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


@topology
def expand_depthwise_project():
    x = image = Input((8, 8, 6))
    x = layers.Conv2D(18, 1, use_bias=False)(x)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = gate()(layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x)))
    x = layers.BatchNormalization()(layers.Conv2D(6, 1, use_bias=False)(x))
    x = layers.Add()([image, x])
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def depth_multiplier():
    return Sequential(
        [
            Input((8, 8, 3)),
            layers.Conv2D(5, 3, activation="relu"),
            gate(),
            layers.DepthwiseConv2D(3, depth_multiplier=3, activation="relu"),
            gate(),
            layers.SeparableConv2D(6, 3, depth_multiplier=2, padding="same", activation="relu"),
            gate(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


@topology
def squeeze_and_excite_gated_before_the_squeeze():
    image = Input((8, 8, 3))
    x = gate()(layers.Conv2D(12, 3, activation="relu")(image))
    s = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    s = gate()(layers.Conv2D(4, 1, activation="relu")(s))
    s = layers.Conv2D(12, 1, activation="sigmoid")(s)
    x = layers.Conv2D(5, 3)(layers.Multiply()([x, s]))
    return Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)))


@topology
def squeeze_and_excite_gated_after_the_product():
    image = Input((8, 8, 3))
    x = layers.Conv2D(12, 3, activation="relu")(image)
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Dense(12, activation="sigmoid")(layers.Dense(4, activation="relu")(s))
    x = gate()(layers.Multiply()([x, s]))
    return Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(5, 3)(x))))


def _residual(x, filters, gated_sum=None):
    y = layers.Conv2D(filters, 3, padding="same")(x)
    y = gate()(layers.ReLU()(layers.BatchNormalization()(y)))
    y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    return gated_sum(x) if gated_sum else x


@topology
def residual_network():
    image = Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    for _ in range(3):
        x = _residual(x, 8)
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def residual_stream_with_one_shared_gate():
    image, stream = Input((8, 8, 3)), gate()
    x = stream(layers.Conv2D(8, 3, padding="same", activation="relu")(image))
    for _ in range(3):
        x = _residual(x, 8, stream)
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def pre_activation_residual():
    image = Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same")(image)
    for _ in range(2):
        y = gate()(layers.ReLU()(layers.BatchNormalization()(x)))
        y = layers.Conv2D(8, 3, padding="same")(y)
        x = layers.Add()([gate()(y), x])
    return Model(image, layers.Dense(3)(layers.Flatten()(layers.ReLU()(x))))


@topology
def densely_connected():
    image = Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(image)
    for _ in range(3):
        y = gate()(layers.ReLU()(layers.BatchNormalization()(x)))
        y = gate()(layers.Conv2D(4, 3, padding="same", activation="relu")(y))
        x = layers.Concatenate()([x, y])
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def inception():
    image = Input((8, 8, 3))
    towers = [gate()(layers.Conv2D(4, k, padding="same", activation="relu")(image)) for k in (1, 3)]
    towers.append(layers.Conv2D(3, 1)(layers.MaxPooling2D(3, 1, padding="same")(image)))
    x = gate()(layers.Concatenate()(towers))
    return Model(image, layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(x))))


@topology
def branch_that_leaves_before_the_gate():
    image = Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    y = layers.Conv2D(12, 3)(gate()(x))
    z = layers.Conv2D(12, 3)(x)
    return Model(image, layers.Dense(3)(layers.Flatten()(layers.Maximum()([y, z]))))


@topology
def every_merge():
    features = Input((9,))

    def branch():
        return gate()(layers.Dense(8, activation="gelu")(features))

    x = layers.Subtract()([branch(), branch()])
    x = layers.Average()([x, branch(), branch()])
    x = layers.Maximum()([x, branch()])
    x = layers.Multiply()([x, branch()])
    x = layers.Minimum()([branch(), x])
    return Model(features, layers.Dense(3)(layers.Add()([x, branch(), branch()])))


@topology
def shared_layers():
    left, right = Input((8, 8, 3)), Input((8, 8, 3))
    convolution, norm = layers.Conv2D(8, 3), layers.BatchNormalization()
    shared_gate, second = gate(), layers.Conv2D(6, 3, activation="relu")

    def tower(x):
        x = shared_gate(layers.ReLU()(norm(convolution(x))))
        return layers.GlobalAveragePooling2D()(second(x))

    x = layers.Concatenate()([tower(left), gate()(tower(right))])
    return Model([left, right], layers.Dense(3)(x))


@topology
def shared_layer_under_two_gates():
    features = Input((10,))
    x = layers.Dense(8, activation="relu")(features)
    y = layers.Dense(8, activation="tanh")(features)
    shared = layers.Dense(6, activation="relu")
    x, y = gate()(shared(gate()(x))), gate()(shared(gate()(y)))
    return Model(features, layers.Dense(3)(layers.Add()([x, y])))


@topology
def layer_applied_to_its_own_output():
    features = Input((10,))
    again = layers.Dense(8, activation="relu")
    x = gate()(layers.Dense(8, activation="relu")(features))
    x = gate()(again(gate()(again(x))))
    return Model(features, layers.Dense(3)(x))


@topology
def nested_model_used_twice():
    block = Sequential(
        [layers.Conv2D(6, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(), gate()]
    )
    inner_input = Input((8, 8, 6))
    inner = Model(inner_input, layers.Add()([inner_input, block(inner_input)]))
    image = Input((8, 8, 3))
    x = gate()(layers.Conv2D(6, 3, padding="same", activation="relu")(image))
    x = inner(inner(x))
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def several_inputs_and_outputs():
    image, features = Input((8, 8, 3), name="image"), Input((5,), name="features")
    x = layers.Conv2D(8, 3, activation="relu")(image)
    x = gate()(layers.GlobalAveragePooling2D()(x))
    y = gate()(layers.Dense(6, activation="relu")(features))
    z = layers.Concatenate()([x, y])
    outputs = {"class": layers.Dense(3, activation="softmax")(z), "value": layers.Dense(1)(y)}
    return Model({"image": image, "features": features}, outputs)


@topology
def output_that_is_gated():
    features = Input((10,))
    x = gate()(layers.Dense(8, activation="relu")(features))
    return Model(features, [gate()(layers.Dense(6, activation="tanh")(x)), x])


@topology
def opaque_neighbours():
    features = Input((10,))
    x = gate()(layers.Dense(12, activation="relu")(features))
    x = gate()(layers.Dense(8, activation="relu")(x))
    x = layers.LayerNormalization()(x)
    x = gate()(layers.Dense(6, activation="gelu")(x))
    x = layers.Lambda(lambda t: keras.ops.flip(t, axis=-1))(x)
    x = gate()(layers.Dense(6)(x))
    return Model(features, layers.Dense(3)(keras.ops.square(x)))


@topology
def reshapes():
    features = Input((24,))
    x = gate()(layers.Dense(24, activation="relu")(features))
    x = gate()(layers.Reshape((2, 3, 4))(x))
    x = gate()(layers.Conv2D(6, 2, activation="relu")(x))
    x = layers.Reshape((-1, 6))(x)
    x = layers.Reshape((2, 1, 6))(layers.Dense(6, activation="tanh")(x))
    return Model(features, layers.Dense(3)(gate()(layers.Flatten()(x))))


@topology
def gate_over_positions():
    sequence = Input((6, 4))
    x = gate(axis=1)(layers.Dense(5, activation="relu")(sequence))
    x = gate()(layers.Dense(5, activation="gelu")(x))
    return Model(sequence, layers.Dense(3)(gate()(layers.Flatten()(x))))


@topology
def gated_whole_branches():
    image = Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    for _ in range(4):
        y = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
        x = layers.Add()([x, gate(axis=())(layers.Conv2D(6, 3, padding="same")(y))])
    return Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@topology
def regularised_and_noisy_in_training():
    return Sequential(
        [
            Input((8, 8, 3)),
            layers.Conv2D(8, 3, kernel_regularizer="l2", activation="relu"),
            layers.SpatialDropout2D(0.2),
            gate(),
            layers.GaussianNoise(0.1),
            layers.Flatten(),
            layers.Dense(12, activation="selu", kernel_constraint="max_norm"),
            layers.AlphaDropout(0.1),
            gate(),
            layers.GaussianDropout(0.1),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )


@topology
def gate_at_both_ends_of_dropout_and_pooling():
    return Sequential(
        [
            Input((9, 9, 2)),
            layers.Conv2D(8, 3, activation="gelu"),
            gate(),
            layers.Dropout(0.3),
            layers.AveragePooling2D(3, padding="same"),
            gate(),
            layers.Cropping2D(1),
            layers.UpSampling2D(2),
            layers.Conv2D(4, 2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
