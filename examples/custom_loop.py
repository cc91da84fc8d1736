"""Training without fit(): what the gates need from a loop of your own.

A regression on random data of which only 3 of 20 features matter. The gate on the input finds
them.

    pip install ".[tf]"
    python examples/custom_loop.py
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
import tensorflow as tf

import keras_sbp


def build() -> keras.Model:
    """A small network with a gate on its input features."""
    return keras.Sequential(
        [
            keras.Input((20,), name="features"),
            keras_sbp.SBPLayer(name="gate"),
            keras.layers.Dense(32, activation="relu", name="hidden"),
            keras.layers.Dense(1, name="answer"),
        ]
    )


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 20)).astype("float32")
    y = np.abs(x[:, :1]) + x[:, 1:2] - 2 * x[:, 2:3]
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(50)

    model = build()
    gate = model.get_layer("gate")
    # 1. The KL is divided by the number of examples: batch size times steps per epoch. The gate
    #    sees the batch size itself. (Or pass SBPLayer(num_samples=1000) and leave this out.)
    gate.set_steps_per_epoch(len(data))
    optimizer = keras.optimizers.Adam(5e-3)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            # 2. training=True draws the noise.
            error = tf.reduce_mean(tf.square(model(x, training=True) - y))
            # 3. The KL is in model.losses.
            loss = error + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        # 4. apply_gradients also keeps mu and log sigma in their ranges; an optimizer from
        #    elsewhere has to apply the weights' constraints itself.
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return error

    for epoch in range(options.epochs):
        # 5. A warm-up by hand, in place of KLWarmup.
        gate.kl_factor.assign(min(1.0, (epoch + 1) / 10))
        errors = [float(step(*batch)) for batch in data]
        if epoch % 10 == 9 or epoch == options.epochs - 1:
            gate.check_posterior()
            print(
                f"epoch {epoch + 1}: error {np.mean(errors):.4f}, KL {gate.kl_loss():.4f}, "
                f"keeps {gate.keep().sum()} of {gate.units} features"
            )

    small, report = keras_sbp.prune(model)
    report.print()
    print("features that matter:", np.flatnonzero(gate.keep()).tolist())


if __name__ == "__main__":
    main()
