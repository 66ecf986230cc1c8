"""The memory that calls, models, readings, fits and batches keep.

    python benchmarks/memory.py
    python benchmarks/memory.py fits batches

prints for each of these what it leaves behind: memory that the process uses after a
garbage collection, and graphs of TensorFlow. It also prints the CPU time. Each line is
a process of its own, which does the same a few times before anything is counted. Linux
with glibc only.
"""

import argparse
import ctypes
import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from interleave import print_machine

from keras_sparseout import Sparseout, SparsityController, SparsityTracker

RATES = np.linspace(0.05, 0.5, 10).tolist()
QS = (0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0)


# MB of memory, number of graphs and CPU seconds.
Kept = tuple[float, float, float]
# Takes rate and q.
MakeLayer = Callable[[float, float], keras.layers.Layer]
# Takes probe data, or a folder for logs.
MakeCallbacks = Callable[..., list[keras.callbacks.Callback]]


def in_use() -> tuple[float, int]:
    """Returns (MB of memory, number of graphs) that this process uses."""
    for _ in range(3):
        gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    # By type(): isinstance would ask weak references what they refer to.
    graphs = sum(issubclass(type(thing), tf.Graph) for thing in gc.get_objects())
    return pages * resource.getpagesize() / 2**20, graphs


def added(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(before, after, strict=True)]


def kept(unit: Callable, arguments: Iterable, burn_in: Iterable) -> Kept:
    """Returns what calls of `unit` keep, after calls with `burn_in`."""
    for argument in burn_in:
        unit(*argument)
    before, start = in_use(), time.process_time()
    for argument in arguments:
        unit(*argument)
    cpu = time.process_time() - start
    return *added(before, in_use()), cpu


class Snapshots(keras.callbacks.Callback):
    """Measures what is in use after two of the batches or epochs of a fit."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.at = {first: None, last: None}

    def _take(self, number):
        if number in self.at:
            # Measuring takes time that does not count.
            start = time.process_time()
            use = in_use()
            self.at[number] = (*use, time.process_time()), start

    def kept(self) -> Kept:
        (first, _), (last, end) = self.at.values()
        return *added(first[:2], last[:2]), end - first[2]


class AfterBatches(Snapshots):
    """Counts batches."""

    def on_train_batch_end(self, batch, logs=None):
        self._take(batch + 1)


class AfterEpochs(Snapshots):
    """Counts epochs."""

    def on_epoch_end(self, epoch, logs=None):
        self._take(epoch + 1)


def calls(make: MakeLayer) -> Kept:
    """Calls new layers on tensors, each with another shape, rate or q."""
    x = {units: tf.ones((32, units)) for units in (63, 64, 96, 128, 160)}

    def call(units, rate, q):
        make(rate, q)(x[units], training=True)

    return kept(
        call,
        itertools.product(list(x)[1:], RATES, QS),
        itertools.product([63], (0.55, 0.6), (2.75, 3.25)),
    )


def models(make: MakeLayer) -> Kept:
    """Builds, compiles and fits models, each with another rate and q."""
    x, y = np.ones((64, 16), "float32"), np.ones((64, 1), "float32")

    def train(rate, q):
        model = keras.Sequential(
            [
                keras.Input((16,)),
                keras.layers.Dense(64, activation="relu"),
                make(rate, q),
                keras.layers.Dense(32, activation="relu"),
                make(rate, q),
                keras.layers.Dense(1),
            ]
        )
        model.compile("adam", "mse")
        model.fit(x, y, verbose=0)

    return kept(
        train,
        itertools.product(RATES, (1.0, 1.3, 1.5, 2.0)),
        [(0.55, 1.75), (0.6, 1.75), (0.6, 2.25)],
    )


def watched_model(layers: int = 1) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """Returns a small model to watch, and its data: 4 batches."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8,))])
    for _ in range(layers):
        model.add(keras.layers.Dense(16, activation="relu"))
        model.add(Sparseout(0.3, q=1.5, adjustable=True))
    model.add(keras.layers.Dense(1))
    model.compile("adam", "mse")
    x = np.random.default_rng(1).normal(size=(128, 8)).astype("float32")
    return model, x, x[:, :1]


def readings(make: MakeCallbacks) -> Kept:
    """Epochs of a fit, with a reading of 8 layers in each."""
    model, x, y = watched_model(layers=8)
    after = AfterEpochs(5, 5 + 20)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [*make(folder), after]
        model.fit(x, y, epochs=25, verbose=0, callbacks=callbacks)
    return after.kept()


def fits(make: MakeCallbacks, same: bool = False, compiles: bool = False) -> Kept:
    """Fits of one model."""
    model, x, y = watched_model()
    callbacks = make(x)

    def fit():
        if compiles:
            model.compile("adam", "mse")
        model.fit(x, y, verbose=0, callbacks=callbacks if same else make(x))

    return kept(fit, [()] * 8, [()] * 3)


def batches(make: MakeCallbacks) -> Kept:
    """Batches of one fit."""
    model, x, y = watched_model()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).repeat()
    after = AfterBatches(200, 4700)
    callbacks = [*make(x), after]
    model.fit(data, steps_per_epoch=4700, verbose=0, shuffle=False, callbacks=callbacks)
    return after.kept()


def tracker(x=None, **arguments):
    return SparsityTracker(x, verbose=0, **arguments)


def controller():
    return SparsityController(0.6, every=2, verbose=0)


DROPOUT = "keras Dropout"
LAYERS = {
    DROPOUT: lambda rate, q: keras.layers.Dropout(rate),
    "Sparseout": Sparseout,
    "Sparseout, adjustable": lambda rate, q: Sparseout(rate, q, adjustable=True),
    "Sparseout, jit_compile=False": lambda rate, q: Sparseout(
        rate, q, jit_compile=False
    ),
}
CALLBACKS = {
    "tracker": lambda x: [tracker()],
    "tracker with x": lambda x: [tracker(x)],
    "controller": lambda x: [controller()],
    "controller and tracker": lambda x: [controller(), tracker()],
}
# By group: the number of units, what a unit is, and a function for each line.
GROUPS = {
    "calls": (
        400,
        "eager calls of new layers",
        {n: lambda make=make: calls(make) for n, make in LAYERS.items()},
    ),
    "models": (
        40,
        "models, two such layers in each, compiled and trained for 2 batches",
        {n: lambda make=make: models(make) for n, make in LAYERS.items()},
    ),
    "readings": (
        20 * 8,
        "readings, 20 epochs times 8 layers",
        {
            "no callback": lambda: readings(lambda folder: []),
            "tracker": lambda: readings(lambda folder: [tracker()]),
            'tracker, "histogram"': lambda: readings(
                lambda folder: [tracker(metrics=["hoyer", "histogram"])]
            ),
            "tracker, log_dir": lambda: readings(
                lambda folder: [tracker(log_dir=folder)]
            ),
        },
    ),
    "fits": (
        8,
        "fits of one model",
        {
            "no callback": lambda: fits(lambda x: []),
            "no callback, compiled again": lambda: fits(lambda x: [], compiles=True),
            **{
                f"{name}, the same": lambda make=make: fits(make, same=True)
                for name, make in CALLBACKS.items()
            },
            **{
                f"{name}, new ones": lambda make=make: fits(make)
                for name, make in CALLBACKS.items()
            },
        },
    ),
    "batches": (
        4500,
        "batches of one fit",
        {
            "no callback": lambda: batches(lambda x: []),
            "controller": lambda: batches(lambda x: [controller()]),
        },
    ),
}


def in_fresh_process(group: str, line: str) -> Kept:
    """Returns the figures of a line of the table."""
    command = [sys.executable, __file__, "--line", group, line]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{run.stderr}\n{line} of {group} failed: see above")
    return json.loads(run.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}; all")
    parser.add_argument("--line", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.groups) - set(GROUPS):
        parser.error(f"groups are {', '.join(GROUPS)}, not {', '.join(unknown)}")

    if args.line:
        group, line = args.line
        print(json.dumps(GROUPS[group][2][line]()))
        return
    print_machine()
    for group in args.groups or GROUPS:
        count, units, lines = GROUPS[group]
        print(f"\n{group}: {count:,} {units}")
        for line in lines:
            mb, graphs, cpu = in_fresh_process(group, line)
            print(
                f"{line:<36} {mb:7.1f} MB {mb * 1024 / count:8.1f} KB each"
                f" {graphs / count:6.2f} graphs each {cpu:6.1f} s CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
