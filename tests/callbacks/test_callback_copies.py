"""Deep copies of callbacks, as a search over hyperparameters makes them, and files."""

import copy
import pickle

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import (
    Sparseout,
    SparseoutScheduler,
    SparsityController,
    SparsityTracker,
)
from keras_sparseout.metrics import ActivationHistogram

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.abs(X[:, :1])


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[8 * index : 8 * index + 8], Y[:8]


def net():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "relu", name="first"),
            Sparseout(0.3, q=1.5, adjustable=True, name="hidden"),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def fit(*callbacks, **kwargs):
    options = {"batch_size": 8, "verbose": 0, **kwargs}
    return batched.fit(net(), X, Y, callbacks=list(callbacks), **options).history


def largest(x):
    return keras.ops.max(x, axis=-1)


def largest_share(x, axis=-1):
    return keras.ops.max(x, axis) / (1e-9 + keras.ops.sum(x, axis))


DATASET = tf.data.Dataset.from_tensor_slices(X).batch(8)


def trackers():
    """A tracker for each kind of metrics and data, with log keys of its own."""
    return [
        SparsityTracker(metrics="hoyer", verbose=0),
        SparsityTracker(metrics=["rms", "histogram"], verbose=0),
        SparsityTracker(metrics=largest, verbose=0),
        SparsityTracker(metrics={"lambda": lambda x: largest(x)}, verbose=0),
        *(
            SparsityTracker(x, metrics={f"of_{name}": "hoyer"}, verbose=0)
            for name, x in (
                ("array", X),
                ("tensor", tf.constant(X)),
                ("dataset", DATASET),
                ("sequence", Batches()),
            )
        ),
    ]


def controllers():
    rate = keras.optimizers.schedules.PolynomialDecay(0.5, 4, 0.1)
    return [
        SparsityController(0.6, largest_share, every=1, verbose=0),
        SparseoutScheduler(rate=rate, verbose=0),
    ]


def controllers_of_probe_data():
    return [
        SparsityController(0.6, x=DATASET, actuator="rate", every=1, verbose=0),
        SparseoutScheduler(q=lambda step: 1.5, verbose=0),
    ]


@pytest.mark.parametrize("made", [trackers, controllers, controllers_of_probe_data])
def test_copies_do_what_the_originals_do(made):
    originals = made()
    before = copy.deepcopy(originals)
    options = {"epochs": 2, "batch_size": 16}
    expected = fit(*originals, **options)
    after = copy.deepcopy(originals)
    for original, early, late in zip(originals, before, after, strict=True):
        assert late.model is None
        if hasattr(original, "history"):
            assert late.history == original.history
            assert early.history == {}
    # Each on its own: the originals are trained on meanwhile.
    assert fit(*before, **options) == fit(*after, **options) == expected
    lengths = [len(c.history["epoch"]) for c in after if hasattr(c, "history")]
    fit(*originals, epochs=1)
    assert lengths == [len(c.history["epoch"]) for c in after if hasattr(c, "history")]


def test_a_callback_can_be_kept_in_a_file_after_fit(tmp_path):
    originals = [
        SparsityTracker(X, metrics=["rms", "histogram"], log_dir=tmp_path, verbose=0),
        SparsityTracker(metrics=["hoyer", "firing_rate"], verbose=0),
        SparsityController(0.6, layers="first", actuator="penalty", verbose=0),
        SparseoutScheduler(q=keras.optimizers.schedules.PolynomialDecay(2.0, 4, 1.0)),
    ]
    expected = fit(*originals)
    kept = pickle.loads(pickle.dumps(originals))
    for original, loaded in zip(originals, kept, strict=True):
        assert loaded.model is None
        if hasattr(original, "history"):
            assert loaded.history == original.history != {}
    assert list(originals[1].units) == ["firing_rate/hidden"]
    np.testing.assert_equal(kept[1].units, originals[1].units)
    assert fit(*kept) == expected


def test_what_is_the_users_is_not_copied():
    layer = keras.layers.Dense(3)
    tracker = SparsityTracker(X, layers=[layer], metrics=largest, verbose=0)
    tracker.mine = {"a": []}
    copied = copy.deepcopy(tracker)
    assert copied.layers[0] is layer
    assert copied.data.x is X
    assert copied.mine == {"a": []}
    assert copied.mine is not tracker.mine
    controller = SparsityController(0.6, x=X, layers=[layer], verbose=0)
    copied = copy.deepcopy(controller)
    assert copied.layers[0] is layer
    assert copied.data.x is X
    histograms = SparsityTracker(metrics="histogram", verbose=0)
    fit(histograms)
    copied = copy.deepcopy(histograms)
    seen = histograms.histograms["activations/hidden"].histogram()[1].sum()
    fit(copied, epochs=3)
    again = histograms.histograms["activations/hidden"].histogram()[1].sum()
    assert seen == again == 8 * 8


def written(folder):
    return [
        [
            event.step
            for record in tf.data.TFRecordDataset(str(path))
            for event in [tf.compat.v1.Event.FromString(record.numpy())]
            if any(value.tag == "rms" for value in event.summary.value)
        ]
        for path in sorted(folder.glob("sparsity/events*"))
    ]


def test_files_are_opened_when_training_begins(tmp_path):
    tracker = SparsityTracker(metrics="rms", log_dir=tmp_path, verbose=0)
    copied = copy.deepcopy(tracker)
    assert not list(tmp_path.iterdir())
    fit(tracker, epochs=2)
    assert written(tmp_path) == [[2, 4]]
    # A second fit goes on in a file of its own, and so does a copy.
    fit(tracker)
    assert written(tmp_path) == [[2, 4], [6]]
    fit(copied)
    assert written(tmp_path) == [[2, 4], [6], [2]]
    net().evaluate(X, Y, verbose=0, callbacks=[tracker])
    assert written(tmp_path) == [[2, 4], [6], [2], []]


def test_readings_make_no_histograms_anew(tmp_path, monkeypatch):
    made = []
    build = ActivationHistogram.__init__

    def counting(self, **kwargs):
        made.append(self)
        build(self, **kwargs)

    tracker = SparsityTracker(
        metrics="rms", log_dir=tmp_path, every=1, layers=["first", "hidden"], verbose=0
    )
    monkeypatch.setattr(ActivationHistogram, "__init__", counting)
    fit(tracker, epochs=2, validation_data=(X, Y))
    # For two layers, in training and in validation.
    assert len(made) == 4
    fit(tracker, epochs=2, validation_data=(X, Y))
    assert len(made) == 4
    assert tracker.histograms["activations/first"].histogram()[1].sum() == 4 * 8
