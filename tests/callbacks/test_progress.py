"""Where readings are said to be, with several steps an execution."""

import shutil

import adjusted
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import SparseoutScheduler, SparsityController, SparsityTracker

X = np.random.default_rng(0).normal(size=(42, 4)).astype("float32")
Y = np.abs(X[:, :1])


def net(**kwargs):
    return adjusted.net(steps_per_execution=4, **kwargs)


def written(folder, tag):
    return [
        event.step
        for path in sorted((folder / "sparsity").glob("events*"))
        for record in tf.data.TFRecordDataset(str(path))
        for event in [tf.compat.v1.Event.FromString(record.numpy())]
        if any(value.tag == tag for value in event.summary.value)
    ]


def unknown(batches):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    return data.take(batches).filter(lambda x, y: True)


def generator(batches):
    for _ in range(batches):
        yield X[:2], Y[:2]


DATA = {
    "arrays": lambda: ({"x": X, "y": Y, "batch_size": 2}, 21),
    "unknown": lambda: ({"x": unknown(21)}, 21),
    # The last execution makes four steps, as long as there are data.
    "steps_per_epoch": lambda: ({"x": unknown(21).repeat(), "steps_per_epoch": 18}, 20),
    "ends early": lambda: ({"x": generator(19), "steps_per_epoch": 23}, 19),
    "whole": lambda: ({"x": X[:32], "y": Y[:32], "batch_size": 2}, 16),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A model and its callbacks, which trace its steps once for all kinds of data.

    Beside them the folder of what the two trackers write.
    """
    folder = tmp_path_factory.mktemp("boards")
    options = {"every": 8, "verbose": 0}
    callbacks = [
        SparsityTracker(metrics="rms", log_dir=folder / "a", **options),
        SparsityTracker(X[:4], metrics="hoyer", log_dir=folder / "b", **options),
        SparsityController(0.6, **options),
    ]
    return net(), callbacks, folder


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("kind", DATA)
def test_positions_and_steps_are_the_true_ones(kind, kept):
    model, callbacks, folder = kept
    seen, probe, controller = callbacks
    before = int(model.optimizer.iterations)
    for path in folder.glob("*/sparsity"):
        shutil.rmtree(path)
    data, batches = DATA[kind]()
    epochs = 1 if kind == "ends early" else 2
    validation = {"validation_data": (X[:10], Y[:10]), "validation_batch_size": 2}
    model.fit(
        **data,
        **validation,
        shuffle=False,
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
    )
    ends = [8, 16, batches] if batches > 16 else [8, 16]
    places = [epoch + end / batches for epoch in range(epochs) for end in ends]
    passed = [before + epoch * batches for epoch in range(epochs + 1)]
    steps = [first + end for first in passed[:-1] for end in ends]
    for callback in (seen, probe):
        assert callback.history["epoch"] == pytest.approx(places)
    # It moves after two executions, whether the second is full or not.
    last = [epoch + 1 for epoch in range(epochs) if batches != 21]
    moved = [place for place in places if place not in last or batches == 16]
    assert controller.history["epoch"] == pytest.approx(moved)
    assert written(folder / "a", "rms") == steps
    assert written(folder / "b", "val_hoyer") == steps
    assert written(folder / "a", "val_rms") == passed[1:]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_accumulated_gradients_leave_them_as_they_are(tmp_path):
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=3)
    model = net(optimizer=optimizer)
    for folder, options in (("a", DATA["arrays"]()[0]), ("b", {"x": unknown(21)})):
        trackers = [
            SparsityTracker(metrics="rms", log_dir=tmp_path / folder, verbose=0),
            SparsityTracker(X[:4], metrics="hoyer", every=8, verbose=0),
        ]
        model.fit(**options, epochs=2, verbose=0, shuffle=False, callbacks=trackers)
        assert trackers[0].history["epoch"] == [1, 2]
        assert trackers[1].history["epoch"] == pytest.approx(
            [e + b / 21 for e in (0, 1) for b in (8, 16, 21)]
        )
    # A new tracker goes on where the model is.
    assert written(tmp_path / "a", "rms") == [21, 42]
    assert written(tmp_path / "b", "rms") == [63, 84]


def test_batches_that_the_scheduler_counts_are_the_true_ones():
    class ByHand(keras.Sequential):
        def train_step(self, data):
            return {"loss": tf.reduce_mean(self(data[0], training=True))}

    model = ByHand(net().layers)
    model.compile(steps_per_execution=4)
    steps = []
    scheduler = SparseoutScheduler(
        rate=lambda step: steps.append(step) or 0.1, verbose=0
    )
    with pytest.warns(UserWarning, match="no optimizer of the model counts"):
        model.fit(**DATA["arrays"]()[0], epochs=2, verbose=0, callbacks=[scheduler])
    assert steps == [0, 4, 8, 12, 16, 20, 21, 25, 29, 33, 37, 41]
