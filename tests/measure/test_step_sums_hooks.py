"""Tracking without data leaves the model unchanged, however `fit` ends."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, Y, figures, fit, is_clean, net, tracker

from keras_sparseout import Sparseout
from keras_sparseout.backend import train_step


def regularized():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "relu", name="a"),
            keras.layers.BatchNormalization(name="norm"),
            Sparseout(0.3, q=1.5, name="drop", jit_compile=False),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(5, "tanh", name="b"),
            keras.layers.Dense(1, name="out"),
        ]
    )


def weights_after(callbacks, compiled):
    model, x, options = regularized(), X, {"validation_data": (X[:9], Y[:9])}
    # Its variables are made while the step is traced, so it is traced twice.
    momentum = 0.0 if compiled else 0.9
    optimizer = keras.optimizers.SGD(0.01, momentum=momentum)
    if "jit_compile" in compiled:
        # XLA takes its time to compile, for each size of a batch once more.
        model, x, options = net(), X[:16], {}
    before = [id(v) for v in model.variables]
    fit(
        model,
        *callbacks,
        x=x,
        y=Y[: len(x)],
        optimizer=optimizer,
        compiled=compiled,
        epochs=1 if "run_eagerly" in compiled else 2,
        **options,
    )
    assert is_clean(model)
    assert [id(v) for v in model.variables] == before
    return [np.asarray(v) for v in model.variables + model.optimizer.variables]


@pytest.mark.onednn
@pytest.mark.usefixtures("optimizers_of_keras")
@pytest.mark.parametrize("how", ["graph", "jit_compile", "run_eagerly"])
def test_a_tracked_run_is_the_untracked_run(how):
    compiled = {how: True} if how != "graph" else {}
    plain = weights_after([], compiled)
    trackers = [
        tracker(layers=".*", where="output", metrics={"out": "zero_fraction"}),
        tracker(layers=["norm|a", "b"], where="input", metrics={"in": "rms"}),
    ]
    if how != "jit_compile":  # XLA takes long to compile sorting.
        # What sorts is not compiled, the others are.
        trackers.append(tracker(layers="b", where="output", metrics="gini"))
    tracked = weights_after(trackers, compiled)
    for a, b in zip(plain, tracked, strict=True):
        if how == "jit_compile":  # XLA fuses what is measured in another way.
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(a, b)


# For tests in which the graph does not matter: tracing takes time.
EAGER = {"run_eagerly": True}


class Raising(keras.callbacks.Callback):
    """Raises in the second batch, at its beginning or its end, or after the epoch."""

    def __init__(self, where, error):
        super().__init__()
        self.where, self.error = where, error

    def on_train_batch_begin(self, batch, logs=None):
        if self.where == "begin" and batch == 1:
            raise self.error

    def on_train_batch_end(self, batch, logs=None):
        if self.where == "end" and batch == 1:
            raise self.error

    def on_test_batch_begin(self, batch, logs=None):
        if self.where == "test begin":
            raise self.error

    def on_test_batch_end(self, batch, logs=None):
        if self.where == "test":
            raise self.error


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("begin", KeyboardInterrupt()),
        ("end", RuntimeError("broken")),
        ("test begin", RuntimeError("broken")),
        ("test", KeyboardInterrupt()),
    ],
)
def test_a_callback_may_break_off_the_fit(where, error):
    model = net()
    # Behind one tracker and before another.
    callbacks = [tracker(), Raising(where, error), tracker(layers="a", metrics="rms")]
    with pytest.raises(type(error)):
        fit(model, *callbacks, validation_data=(X, Y), compiled=EAGER)
    assert is_clean(model)
    plain = model.train_function
    assert not isinstance(plain, train_step._StandIn)
    assert not isinstance(model.test_function, train_step._StandIn)
    batched.fit(model, X, Y, verbose=0)
    assert model.train_function is plain
    t = tracker()
    fit(model, t, compiled=EAGER)
    assert t.history["hoyer"] == [pytest.approx(figures(model)["hoyer"], rel=1e-5)]


@pytest.mark.parametrize("eager", [False, True])
def test_the_training_step_may_fail(eager):
    class Failing(keras.Sequential):
        broken = True

        def train_step(self, data):
            logs = super().train_step(data)
            if self.broken:
                raise RuntimeError("no step")
            return logs

    model = Failing(net().layers)
    with pytest.raises(RuntimeError, match="no step"):
        fit(model, tracker(), compiled={"run_eagerly": eager})
    assert is_clean(model)
    assert not isinstance(model.train_function, train_step._StandIn)
    Failing.broken = False
    fit(model, t := tracker())
    assert np.isfinite(t.history["hoyer"]).all()


def test_a_step_of_the_models_own_object_stays():
    model = net()
    calls = []

    def train_step(data):
        calls.append(1)
        return keras.Sequential.train_step(model, data)

    model.train_step = train_step
    fit(model, tracker())
    assert vars(model)["train_step"] is train_step
    assert calls


def test_a_fit_without_a_tracker_measures_nothing():
    model = net()
    t = tracker()
    fit(model, t)
    before = t.history
    plain = model.train_function
    batched.fit(model, X, Y, verbose=0)
    assert model.train_function is plain
    assert t.history == before
    assert t._training.totals()["a"] == [0, 0, 0, 0]


def test_a_second_fit_traces_nothing_anew():
    class Counting(keras.layers.Layer):
        traces = 0

        def call(self, x):
            Counting.traces += 1
            return x

    model = keras.Sequential([net(), Counting()])
    t = tracker()
    fit(model, t, validation_data=(X, Y))
    traces = Counting.traces
    options = {"batch_size": 8, "verbose": 0, "validation_data": (X, Y)}
    batched.fit(model, X, Y, callbacks=[t], **options)
    assert Counting.traces == traces
    t.sample_size = 1
    batched.fit(model, X[:2], Y[:2], verbose=0, callbacks=[t])
    assert Counting.traces == traces + 1
    expected = figures(model.layers[0], X[:1])["hoyer"]
    assert t.history["hoyer"] == [pytest.approx(expected, rel=1e-5)]


def test_saving_while_training_finds_no_hooks(tmp_path):
    model = net()
    saving = keras.callbacks.ModelCheckpoint(str(tmp_path / "model.keras"), save_freq=1)
    fit(model, tracker(), saving)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))


def test_layers_in_a_function_of_their_own_are_an_error_before_the_first_batch():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(3, "relu", name="hidden")
            self.out = keras.layers.Dense(1)

        @tf.function
        def call(self, x):
            return self.out(self.hidden(x))

    model = Own()
    model(X)
    with pytest.raises(ValueError, match=r"`layers` must be given, since"):
        fit(model, tracker())
    assert is_clean(model)
    with pytest.raises(ValueError, match=r"layers=None, for hidden\. Take @tf.func"):
        model.evaluate(batched.batches(X, Y, 8), verbose=0, callbacks=[tracker()])
    batched.fit(model, X, Y, verbose=0)
