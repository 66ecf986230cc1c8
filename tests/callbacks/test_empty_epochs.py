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


def callbacks(kind, every):
    if kind == "probe":
        return SparsityTracker(X, metrics="hoyer", every=every, verbose=0)
    if kind == "batches":
        return SparsityTracker(metrics="hoyer", every=every, verbose=0)
    if kind == "scheduler":
        return SparseoutScheduler(rate=lambda step: 0.3, verbose=0)
    x = X if kind == "controller of probe data" else None
    return SparsityController(0.6, x=x, every=2 if every == "epoch" else every)


KINDS = ("probe", "batches", "scheduler", "controller", "controller of probe data")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [4, 6, 8])
def test_data_that_end_with_an_epoch(kind, count):
    options = {"steps_per_epoch": 4, "epochs": 3, "verbose": 0, "shuffle": False}
    plain = net().fit(batches(count), **options).history
    callback = callbacks(kind, {4: "epoch", 6: 3, 8: 1}[count])
    history = net().fit(batches(count), callbacks=[callback], **options).history
    # A generator that was looked into gives a few batches once more.
    filled = [epoch for epoch, loss in enumerate(plain["loss"], 1) if loss]
    assert len(filled) < 3 or count > 4
    if not kind.startswith(("controller", "scheduler")):
        assert history["loss"] == plain["loss"]
    assert len(history["loss"]) == 3
    places = getattr(callback, "history", {}).get("epoch", [])
    if kind == "scheduler":
        assert history["rate/hidden"] == pytest.approx([0.3] * 3)
    elif "probe" in kind:
        # What the probe data give is measured whatever was trained on.
        key = "val_hoyer" if kind == "probe" else "val_zero_fraction/hidden"
        assert len(history[key]) == 3
        assert np.isfinite(history[key]).all()
        assert places[-1] == 3
    else:
        key = "hoyer" if kind == "batches" else "zero_fraction/hidden"
        assert len(history[key]) == len(filled)
        assert np.isfinite(history[key]).all()
        assert sorted({math.ceil(place) for place in places}) == filled
        assert places == sorted(places)
    if kind.startswith("controller"):
        assert len(history["q/hidden"]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_that_is_empty_in_one_epoch(kind):
    passes = []

    def made():
        passes.append(0)
        yield from batches(0 if len(passes) == 2 else 3)

    signature = (tf.TensorSpec((16, 4)), tf.TensorSpec((16, 1)))
    data = tf.data.Dataset.from_generator(made, output_signature=signature)
    callback = callbacks(kind, "epoch")
    history = net().fit(
        data,
        epochs=3,
        verbose=0,
        shuffle=False,
        validation_data=(X, Y),
        callbacks=[callback],
    )
    assert history.epoch == [0, 1, 2]
    figures = history.history
    if kind == "batches":
        assert len(figures["hoyer"]) == 2
        assert len(figures["val_hoyer"]) == 3
        assert callback.history["epoch"] == [1, 2, 3]
        assert np.isnan(callback.history["hoyer"]).tolist() == [False, True, False]
    if kind.startswith("controller"):
        measured = "val_" if "probe" in kind else ""
        errors = len(figures["error/hidden"])
        assert errors == len(figures[f"{measured}zero_fraction/hidden"])
        assert errors == (3 if "probe" in kind else 2)
