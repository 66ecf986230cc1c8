"""How near SparsityController comes to what it is asked for.

    python studies/controller.py

trains a classifier with one hidden layer of 256 ReLU units on the example's images, for
8 epochs, and asks for each target with q, and with an L1 penalty. It prints what test
images show, as the mean over the last three epochs, and how far off the target it is.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_cnn

from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    SparsityController,
    metrics,
)

TARGETS = [
    *(("hoyer", target) for target in (0.55, 0.65, 0.75)),
    *(("zero_fraction", target) for target in (0.65, 0.75, 0.85)),
]


def classifier(actuator):
    """The model; the penalty works against q = 4, where activations are dense."""
    if actuator == "q":
        regularizers = [Sparseout(0.5, q=2.0, adjustable=True, name="hidden")]
    else:
        regularizers = [
            ActivationPenalty(0.0, adjustable=True, name="hidden"),
            Sparseout(0.5, q=4.0),
        ]
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            *regularizers,
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


class OnTestImages(keras.callbacks.Callback):
    """Keeps the metric of the hidden layer on test images, at the end of each epoch."""

    def __init__(self, metric, x):
        super().__init__()
        self.function, self.x, self.figures = getattr(metrics, metric), x, []

    def on_epoch_end(self, epoch, logs=None):
        hidden = keras.Model(self.model.inputs, self.model.get_layer("hidden").input)
        a = hidden.predict(self.x, batch_size=1000, verbose=0)
        self.figures.append(float(np.nanmean(self.function(a))))


def run(data, actuator, metric, target, seed, epochs):
    """Returns the figures on test images by epoch, test accuracy and setting."""
    keras.utils.set_random_seed(seed)
    model = classifier(actuator)
    model.compile(
        keras.optimizers.Adam(1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    controller = SparsityController(
        target,
        metric,
        x=data[1][0],
        actuator=actuator,
        bounds=(0.5, 8) if actuator == "q" else None,
        verbose=0,
    )
    test = OnTestImages(metric, data[2][0])
    model.fit(
        *data[0], batch_size=32, epochs=epochs, verbose=0, callbacks=[controller, test]
    )
    _, accuracy = model.evaluate(*data[2], batch_size=1000, verbose=0)
    return test.figures, accuracy, getattr(model.get_layer("hidden"), actuator)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actuators", nargs="+", default=["q", "weight"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    data, _ = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    print(
        "| actuator | metric | target | seed | last 3 epochs | off by | accuracy | at |"
    )
    print("|---" * 8 + "|")
    worst = {}
    for actuator in args.actuators:
        for metric, target in TARGETS:
            for seed in args.seeds:
                figures, accuracy, setting = run(
                    data, actuator, metric, target, seed, args.epochs
                )
                mean = np.mean(figures[-3:])
                worst[actuator] = max(worst.get(actuator, 0), abs(mean - target))
                print(
                    f"| {actuator} | {metric} | {target} | {seed} | {mean:.4f} | "
                    f"{mean - target:+.4f} | {accuracy:.3f} | {setting:.3g} |",
                    flush=True,
                )
    for actuator, gap in worst.items():
        print(f"\nfarthest from its target with {actuator}: {gap:.4f}")


if __name__ == "__main__":
    main()
