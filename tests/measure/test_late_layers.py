"""Models that make layers in the first batch: all of them are moved and watched."""

import batched
import keras
import numpy as np
import pytest

from keras_sparseout import (
    Sparseout,
    SparseoutScheduler,
    SparsityController,
    SparsityTracker,
)

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.abs(X[:, :1])
NO_NOISE = {"rate": 0.0, "adjustable": True, "name": "first", "jit_compile": False}


def parts():
    return (
        keras.layers.Dense(16, "relu", name="inner"),
        Sparseout(0.5, q=2.0, adjustable=True, name="drop", jit_compile=False),
    )


class BuildsThem(keras.layers.Layer):
    def build(self, shape):
        self.inner, self.drop = parts()
        self.inner.build(shape)
        self.drop.build((*shape[:-1], 16))

    def call(self, x, training=False):
        return self.drop(self.inner(x), training=training)


class CallsThem(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Keras lets a layer make others in its first call while one is not built.
        self.before = keras.layers.Dense(6)
        self.made = []

    def call(self, x, training=False):
        if not self.made:
            self.made = list(parts())
        return self.made[1](self.made[0](self.before(x)), training=training)


class Subclassed(keras.Model):
    def __init__(self, block):
        super().__init__()
        self.block = block
        self.first = Sparseout(**NO_NOISE)
        self.head = keras.layers.Dense(1, name="head")

    def call(self, x, training=False):
        x = self.block(self.first(x, training=training), training=training)
        return self.head(x)


def sequential(block, *first):
    return keras.Sequential([*first, block, keras.layers.Dense(1, name="head")])


MODELS = {
    "call": lambda: sequential(CallsThem(name="block"), Sparseout(**NO_NOISE)),
    "subclassed": lambda: Subclassed(BuildsThem(name="block")),
}


def building():
    return sequential(BuildsThem(name="block"), Sparseout(**NO_NOISE))


def fit(model, *callbacks, epochs=2, **kwargs):
    model.compile("sgd", "mse", **kwargs)
    options = {"batch_size": 8, "epochs": epochs, "verbose": 0}
    return batched.fit(model, X, Y, callbacks=list(callbacks), **options).history


@pytest.mark.parametrize("kind", MODELS)
def test_layers_of_the_first_batch_are_moved_and_watched(kind, capsys):
    rates = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            block = self.model.layers[1 - (kind == "subclassed")]
            made = getattr(block, "made", None) or [None, getattr(block, "drop", None)]
            rates.append(made[1] and made[1].rate)

    model = MODELS[kind]()
    tracker = SparsityTracker(metrics="zero_fraction", sample_size=8)
    controller = SparsityController(0.7, every=2, layers=".*drop")
    scheduler = SparseoutScheduler(rate=lambda step: step / 10)
    history = fit(model, scheduler, tracker, controller, Record())
    # From the second batch on the late layer follows too.
    assert rates[1:] == [step / 10 for step in range(1, 8)]
    names = ["first", "block/drop"]
    if kind == "subclassed":
        names.reverse()
    out = capsys.readouterr().out.splitlines()
    assert sorted(out[:3]) == [
        f"SparseoutScheduler: rate of {', '.join(names)}",
        "SparsityController: zero_fraction of block/drop to 0.7, by q in [1, 4]",
        "SparsityTracker: zero_fraction of the inputs of "
        f"{', '.join(names)} on 8 samples of each batch",
    ]
    assert len([line for line in out if line.startswith("SparsityTracker:")]) == 1
    keys = {f"{k}/{n}" for k in ("rate", "zero_fraction") for n in names}
    assert {key for key in history if "/" in key} == keys | {
        "q/block/drop",
        "error/block/drop",
    }
    assert all(len(figures) == 2 for figures in history.values())
    assert history["zero_fraction/first"] == [0.0, 0.0]
    assert 0 < history["zero_fraction/block/drop"][0] < 1
    # The first batch made them, so three of the four are measured.
    assert controller.history["epoch"] == [0.75, 1.5, 2.0]
    second = fit(model, scheduler, tracker, controller)
    assert second.keys() == history.keys()
    assert controller.history["epoch"] == [0.5, 1.0, 1.5, 2.0]


def test_no_other_layer_is_watched_in_their_place(capsys):
    class Block(keras.layers.Layer):
        def build(self, shape):
            self.dense = keras.layers.Dense(16, "relu", name="dense")
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

    head = keras.layers.Dense(1, "sigmoid", name="head")
    model = keras.Sequential([Block(name="block"), head])
    history = fit(model, SparsityTracker(metrics="zero_fraction"), run_eagerly=True)
    assert 0 < history["zero_fraction/block/dense"][0] < 1
    assert "block/dense" in capsys.readouterr().out
    # None at all before, and one that is named.
    for layers in (None, "block/dense"):
        model = keras.Sequential([Block(name="block"), keras.layers.Dense(1)])
        t = SparsityTracker(metrics="zero_fraction", layers=layers)
        history = fit(model, t, run_eagerly=True)
        assert "zero_fraction/block/dense" in history


def test_an_epoch_of_the_first_batch_alone_has_no_figures():
    tracker = SparsityTracker(metrics="zero_fraction", verbose=0)
    controller = SparsityController(0.7, every=2, layers=".*drop", verbose=0)
    history = fit(building(), tracker, controller, epochs=3, steps_per_execution=4)
    assert tracker.history["epoch"] == controller.history["epoch"] == [2.0, 3.0]
    assert len(history["zero_fraction/block/drop"]) == 2
    assert len(history["q/block/drop"]) == 3
    assert len(history["error/block/drop"]) == 2


def test_a_layer_that_the_first_batch_does_not_make_is_an_error():
    for callback in (
        SparsityTracker(layers="block/other"),
        SparsityController(0.7, layers="block/other"),
        SparseoutScheduler(rate=lambda step: 0.1, layers="block/other"),
    ):
        with pytest.raises(ValueError, match="layers='block/other', which is not"):
            fit(building(), callback, run_eagerly=True)


def test_evaluating_says_that_the_model_has_to_be_built():
    model, data = building(), batched.batches(X, Y, 32)
    model.compile("sgd", "mse")
    tracker = SparsityTracker(verbose=0)
    with pytest.raises(ValueError, match=r"`model` must be built before.*model\(x\["):
        model.evaluate(data, verbose=0, callbacks=[tracker])
    tracker = SparsityTracker(verbose=0)
    model.evaluate(data, verbose=0, callbacks=[tracker])
    assert "val_zero_fraction/block/drop" in tracker.evaluated


class Block(keras.layers.Layer):
    """Keras builds its layers when it is called first, in a graph of their own."""

    def __init__(self):
        super().__init__(name="block")
        self.inner = keras.layers.Dense(8, "relu", name="inner")

    def call(self, x):
        return self.inner(x)


class WithABuild(keras.Model):
    """Counts as built before its first call is over."""

    def __init__(self):
        super().__init__()
        self.block = Block()
        self.head = keras.layers.Dense(1)

    def build(self, shape):
        self.shift = self.add_weight(shape=(shape[-1],), name="shift")

    def call(self, x):
        return self.head(self.block(x + self.shift))


@pytest.mark.usefixtures("optimizers_of_keras")
def test_a_model_with_a_build_of_its_own_makes_layers_in_the_first_step():
    model = WithABuild()
    model.compile("sgd", "mse", jit_compile=False)
    tracker = SparsityTracker(metrics=["dead_units", "zero_fraction"], verbose=0)
    controller = SparsityController(0.7, verbose=0)
    options = {"batch_size": 16, "verbose": 0, "callbacks": [tracker, controller]}
    model.fit(X, Y, **options)
    assert list(controller.targets) == ["block/inner"]
    assert 0.2 < tracker.history["zero_fraction/block/inner"][0] < 0.8


class OfSequences(keras.Model):
    def __init__(self):
        super().__init__()
        self.lstm = keras.layers.LSTM(4, name="lstm")
        self.head = keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.lstm(x))


def test_a_cell_can_not_be_read_in_a_model_that_the_first_step_builds():
    """TensorFlow's loop calls it once outside too, with states of zeros."""
    model = OfSequences()
    model.compile("sgd", "mse", jit_compile=False)
    tracker = SparsityTracker(layers="lstm/lstm_cell", metrics="rms", verbose=0)
    with pytest.raises(ValueError, match="inside an RNN cell"):
        model.fit(X[:, None], Y, verbose=0, callbacks=[tracker])
