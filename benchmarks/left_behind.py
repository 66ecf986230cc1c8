"""What is done again and again to see what it leaves in memory."""

import itertools
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks.kept import AfterBatches, AfterEpochs, Kept, kept
from keras_sparseout import Sparseout, SparsityController, SparsityTracker

RATES = np.linspace(0.05, 0.5, 10).tolist()
QS = (0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0)

# Takes rate and q.
MakeLayer = Callable[[float, float], keras.layers.Layer]
# Takes probe data, or a folder for logs.
MakeCallbacks = Callable[..., list[keras.callbacks.Callback]]


def calls(count: int, make: MakeLayer) -> Kept:
    """Calls new layers on tensors, each with another shape, rate or q."""
    x = {units: tf.ones((32, units)) for units in (63, 64, 96, 128, 160)}

    def call(units, rate, q):
        make(rate, q)(x[units], training=True)

    return kept(
        call,
        itertools.islice(itertools.product(list(x)[1:], RATES, QS), count),
        itertools.product([63], (0.55, 0.6), (2.75, 3.25)),
    )


def models(count: int, make: MakeLayer) -> Kept:
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
        itertools.islice(itertools.product(RATES, (1.0, 1.3, 1.5, 2.0)), count),
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


def readings(count: int, make: MakeCallbacks) -> Kept:
    """Epochs of a fit, with a reading of 8 layers in each."""
    model, x, y = watched_model(layers=8)
    epochs = 5 + count // 8
    after = AfterEpochs(5, epochs)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [*make(folder), after]
        model.fit(x, y, epochs=epochs, verbose=0, callbacks=callbacks)
    return after.kept()


def fits(
    count: int, make: MakeCallbacks, same: bool = False, compiles: bool = False
) -> Kept:
    """Fits of one model."""
    model, x, y = watched_model()
    callbacks = make(x)

    def fit():
        if compiles:
            model.compile("adam", "mse")
        model.fit(x, y, verbose=0, callbacks=callbacks if same else make(x))

    return kept(fit, [()] * count, [()] * 3)


def batches(count: int, make: MakeCallbacks) -> Kept:
    """Batches of one fit."""
    model, x, y = watched_model()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).repeat()
    end = 200 + count
    after = AfterBatches(200, end)
    callbacks = [*make(x), after]
    model.fit(data, steps_per_epoch=end, verbose=0, shuffle=False, callbacks=callbacks)
    return after.kept()


def tracker(x=None, **arguments):
    return SparsityTracker(x, verbose=0, **arguments)


def controller():
    return SparsityController(0.6, every=2, verbose=0)


LAYERS = {
    "keras Dropout": lambda rate, q: keras.layers.Dropout(rate),
    "Sparseout": Sparseout,
    "Sparseout, adjustable": lambda rate, q: Sparseout(rate, q, adjustable=True),
    "Sparseout, jit_compile=False": lambda rate, q: Sparseout(
        rate, q, jit_compile=False
    ),
}
NO_CALLBACK = "no callback"
CALLBACKS = {
    "tracker": lambda x: [tracker()],
    "tracker with x": lambda x: [tracker(x)],
    "controller": lambda x: [controller()],
    "controller and tracker": lambda x: [controller(), tracker()],
}


class Group(NamedTuple):
    """Lines that do the same with different layers or callbacks."""

    count: int  # Units.
    quick_count: int
    units: str
    # By name: a function of the number of units, and its other arguments.
    lines: Mapping[str, tuple[Callable[..., Kept], Mapping[str, Any]]]


GROUPS = {
    "calls": Group(
        400,
        40,
        "eager calls of new layers",
        {name: (calls, {"make": make}) for name, make in LAYERS.items()},
    ),
    "models": Group(
        40,
        4,
        "models, two such layers in each, compiled and trained for 2 batches",
        {name: (models, {"make": make}) for name, make in LAYERS.items()},
    ),
    "readings": Group(
        160,
        32,
        "readings of 8 layers, once an epoch",
        {
            NO_CALLBACK: (readings, {"make": lambda folder: []}),
            "tracker": (readings, {"make": lambda folder: [tracker()]}),
            'tracker, "histogram"': (
                readings,
                {"make": lambda folder: [tracker(metrics=["hoyer", "histogram"])]},
            ),
            "tracker, log_dir": (
                readings,
                {"make": lambda folder: [tracker(log_dir=folder)]},
            ),
        },
    ),
    "fits": Group(
        8,
        2,
        "fits of one model",
        {
            NO_CALLBACK: (fits, {"make": lambda x: []}),
            f"{NO_CALLBACK}, compiled again": (
                fits,
                {"make": lambda x: [], "compiles": True},
            ),
            **{
                f"{name}, the same": (fits, {"make": make, "same": True})
                for name, make in CALLBACKS.items()
            },
            **{
                f"{name}, new ones": (fits, {"make": make})
                for name, make in CALLBACKS.items()
            },
        },
    ),
    "batches": Group(
        4500,
        300,
        "batches of one fit",
        {
            NO_CALLBACK: (batches, {"make": lambda x: []}),
            "controller": (batches, {"make": lambda x: [controller()]}),
        },
    ),
}


def line(group: str, name: str, count: int) -> Kept:
    """Returns the figures of a line of a group."""
    function, arguments = GROUPS[group].lines[name]
    return function(count, **arguments)
