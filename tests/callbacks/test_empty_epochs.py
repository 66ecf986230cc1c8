"""Epochs in which the data give no batch: training finishes as without us."""

import math

import numpy as np
import pytest
import tensorflow as tf
from adjusted import net

from keras_sparseout import SparseoutScheduler, SparsityController, SparsityTracker

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.abs(X[:, :1])
pytestmark = pytest.mark.filterwarnings(
    "ignore:Your input ran out of data", "ignore:.*no reading|.*not available"
)


def batches(count):
    for _ in range(count):
        yield X, Y


class Kept:
    """A model and callbacks that all tests share, so that each step is traced once.

    Every fit begins with the variables that the model had first.
    """

    def __init__(self):
        self.model = net()
        self.first = [v.numpy() for v in self.model.variables]
        self.probe = SparsityTracker(X, metrics={"probe": "hoyer"}, verbose=0)
        self.seen = SparsityTracker(metrics="hoyer", verbose=0)
        self.alone = SparsityController(0.6, verbose=0)
        # A controller of probe data, which a scheduler need not disturb.
        self.probed = SparsityController(0.6, x=X, verbose=0)
        self.scheduler = SparseoutScheduler(rate=lambda step: 0.3, verbose=0)

    def fit(self, data, *callbacks, **options):
        for variable, value in zip(self.model.variables, self.first, strict=True):
            variable.assign(value)
        self.model.get_layer("hidden").controller_state = None
        options = {"epochs": 3, "verbose": 0, "shuffle": False, **options}
        return self.model.fit(data, callbacks=list(callbacks), **options)


@pytest.fixture(scope="module")
def kept():
    return Kept()


def check(figures, places, filled):
    """One figure for each epoch that had batches, read at places in these epochs."""
    assert len(figures) == len(filled)
    assert np.isfinite(figures).all()
    assert sorted({math.ceil(place) for place in places}) == filled
    assert places == sorted(places)


@pytest.mark.parametrize(("count", "every"), [(4, "epoch"), (6, 3), (8, 1)])
def test_data_that_end_with_an_epoch(count, every, kept):
    def fit(*callbacks):
        return kept.fit(batches(count), *callbacks, steps_per_epoch=4).history

    plain = fit()
    # A generator that was looked into gives a few batches once more.
    filled = [epoch for epoch, loss in enumerate(plain["loss"], 1) if loss]
    assert len(filled) < 3 or count > 4
    probe, seen, alone, probed = kept.probe, kept.seen, kept.alone, kept.probed
    probe.every = seen.every = every
    alone.every = probed.every = 2 if every == "epoch" else every
    history = fit(probe, seen)
    assert history["loss"] == plain["loss"]
    check(history["hoyer"], seen.history["epoch"], filled)
    # The probe data are measured whatever was trained on.
    assert len(history["val_probe"]) == 3
    assert np.isfinite(history["val_probe"]).all()
    assert probe.history["epoch"][-1] == 3
    history = fit(alone, kept.scheduler)
    assert history["rate/hidden"] == pytest.approx([0.3] * 3)
    assert len(history["loss"]) == len(history["q/hidden"]) == 3
    check(history["zero_fraction/hidden"], alone.history["epoch"], filled)
    history = fit(probed)
    assert len(history["val_zero_fraction/hidden"]) == len(history["q/hidden"]) == 3
    assert np.isfinite(history["val_zero_fraction/hidden"]).all()
    assert probed.history["epoch"][-1] == 3


@pytest.mark.parametrize("kind", ["trackers", "controllers", "probe data"])
def test_a_data_set_that_is_empty_in_one_epoch(kind, kept):
    passes = []

    def made():
        passes.append(0)
        yield from batches(0 if len(passes) == 2 else 3)

    signature = (tf.TensorSpec((16, 4)), tf.TensorSpec((16, 1)))
    data = tf.data.Dataset.from_generator(made, output_signature=signature)
    kept.seen.every = kept.probe.every = "epoch"
    kept.alone.every = kept.probed.every = 2
    callbacks = {
        "trackers": (kept.probe, kept.seen),
        "controllers": (kept.alone, kept.scheduler),
        "probe data": (kept.probed,),
    }[kind]
    history = kept.fit(data, *callbacks, validation_data=(X, Y))
    assert history.epoch == [0, 1, 2]
    figures = history.history
    if kind == "trackers":
        assert len(figures["hoyer"]) == 2
        assert len(figures["val_hoyer"]) == len(figures["val_probe"]) == 3
        read = callbacks[1].history
        assert read["epoch"] == [1, 2, 3]
        assert np.isnan(read["hoyer"]).tolist() == [False, True, False]
    else:
        measured = "val_" if kind == "probe data" else ""
        errors = len(figures["error/hidden"])
        assert errors == len(figures[f"{measured}zero_fraction/hidden"])
        assert errors == (3 if kind == "probe data" else 2)
