"""How near SparsityController comes to what it is asked for.

    python studies/controller.py               # one hidden layer of 256 ReLU units
    python studies/controller.py --model cnn   # the last hidden layer of the example's

trains a model on the example's images for 8 epochs, and asks for each target with q and
with an L1 penalty. It prints the sparsity on test images, as the mean over the last
three epochs, and how far off the target it is.

For the CNN it first holds the settings at either end, to see what all seeds can reach.
The targets are spread over that range.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_cnn

from keras_sparseout import ActivationPenalty, Sparseout, SparsityController, metrics

METRICS = ("hoyer", "zero_fraction")
TARGETS = {"hoyer": (0.55, 0.65, 0.75), "zero_fraction": (0.65, 0.75, 0.85)}
# Where the targets of the CNN are, between the ends of what it can reach.
SHARES = (0.25, 0.5, 0.75)
BATCH_SIZES = {"dense": 32, "cnn": 64}
# Batches between two readings. Both models get the same number of readings an epoch.
EVERY = {"dense": 32, "cnn": 16}
# Bounds that differ from the defaults of the controller.
BOUNDS = {"dense": {"q": (0.5, 8)}, "cnn": {"q": (0.5, 4)}}
# Settings to hold, to see what the CNN can reach. A weight of 0.1 would silence it.
ENDS = {"q": (0.5, 4), "weight": (0.0, 0.03)}


def hidden(actuator: str, setting: float, rate: float) -> keras.Model:
    """The layers to control, as a model, so that both kinds have the same names.

    The penalty works against q = 4, where activations are dense.
    """
    if actuator == "q":
        layers = [Sparseout(rate, q=setting, adjustable=True, name="regularizer")]
    else:
        layers = [
            ActivationPenalty(setting, adjustable=True, name="regularizer"),
            Sparseout(rate, q=4.0),
        ]
    return keras.Sequential(layers, name="hidden")


def build(name: str, actuator: str, setting: float) -> keras.Model:
    if name == "cnn":
        return fashion_cnn.build_model(
            (28, 28, 1),
            10,
            lambda place: (
                hidden(actuator, setting, 0.3)
                if place == "hidden"
                else Sparseout(0.3, q=2.0, name=place)
            ),
        )
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            hidden(actuator, setting, 0.5),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


class OnTestImages(keras.callbacks.Callback):
    """Measures the hidden layer on test images at the end of each epoch."""

    def __init__(self, x):
        super().__init__()
        self.x = x
        self.figures = {name: [] for name in METRICS}

    def on_epoch_end(self, epoch, logs=None):
        part = keras.Model(self.model.inputs, self.model.get_layer("hidden").input)
        a = part.predict(self.x, batch_size=1000, verbose=0)
        for name, figures in self.figures.items():
            figures.append(float(np.nanmean(getattr(metrics, name)(a))))

    def last(self, name: str) -> float:
        """The mean of a metric over the last three epochs."""
        return float(np.mean(self.figures[name][-3:]))


def train(
    name: str,
    data: fashion_cnn.Data,
    actuator: str,
    setting: float,
    seed: int,
    epochs: int,
    controllers: Iterable[SparsityController] = (),
) -> tuple[keras.Model, OnTestImages]:
    """Trains a model; returns it, and its figures on test images."""
    keras.utils.set_random_seed(seed)
    model = build(name, actuator, setting)
    model.compile(
        keras.optimizers.Adam(1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    test = OnTestImages(data[2][0])
    model.fit(
        *data[0],
        batch_size=BATCH_SIZES[name],
        epochs=epochs,
        verbose=0,
        callbacks=[*controllers, test],
    )
    return model, test


def reachable(
    data: fashion_cnn.Data, actuator: str, seeds: list[int], epochs: int
) -> dict[str, tuple[float, float]]:
    """Returns the least and the largest figure that all seeds reach, by metric."""
    ends = [
        [train("cnn", data, actuator, setting, seed, epochs)[1] for seed in seeds]
        for setting in ENDS[actuator]
    ]
    ranges = {}
    for metric in METRICS:
        low, high = sorted(
            ([test.last(metric) for test in tests] for tests in ends), key=np.mean
        )
        ranges[metric] = max(low), min(high)
        print(
            f"{metric} with {actuator} held at {ENDS[actuator][0]:g} and "
            f"{ENDS[actuator][1]:g}: all seeds reach {max(low):.3f} to {min(high):.3f}",
            flush=True,
        )
    return ranges


def run(
    name: str,
    data: fashion_cnn.Data,
    actuator: str,
    metric: str,
    target: float,
    seed: int,
    epochs: int,
) -> tuple[float, float, float]:
    """Returns the mean on test images, test accuracy and the setting at the end."""
    controller = SparsityController(
        target,
        metric,
        x=data[1][0],
        actuator=actuator,
        bounds=BOUNDS[name].get(actuator),
        layers="hidden/regularizer",
        every=EVERY[name],
        verbose=0,
    )
    setting = 2.0 if actuator == "q" else 0.0
    model, test = train(name, data, actuator, setting, seed, epochs, [controller])
    _, accuracy = model.evaluate(*data[2], batch_size=1000, verbose=0)
    setting = controller.history[f"{actuator}/hidden/regularizer"][-1]
    return test.last(metric), accuracy, setting


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=BATCH_SIZES, default="dense")
    parser.add_argument("--actuators", nargs="+", default=["q", "weight"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    data, _ = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    targets = dict.fromkeys(args.actuators, TARGETS)
    if args.model == "cnn":
        for actuator in args.actuators:
            ranges = reachable(data, actuator, args.seeds, args.epochs)
            targets[actuator] = {
                metric: [round(low + share * (high - low), 2) for share in SHARES]
                for metric, (low, high) in ranges.items()
            }
    print(
        "| actuator | metric | target | seed | last 3 epochs | off by | accuracy | at |"
    )
    print("|---" * 8 + "|")
    worst = {}
    for actuator in args.actuators:
        asked = [(m, target) for m in METRICS for target in targets[actuator][m]]
        for (metric, target), seed in itertools.product(asked, args.seeds):
            mean, accuracy, setting = run(
                args.model, data, actuator, metric, target, seed, args.epochs
            )
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
