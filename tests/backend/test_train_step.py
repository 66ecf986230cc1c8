"""Steps are measured inside the functions that the model makes, for one call each."""

import contextlib

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, Y, figures, fit, is_clean, net, tracker

from keras_sparseout import Sparseout, SparsityController
from keras_sparseout.backend import train_step


def test_armed_then_traced_once_then_restored():
    model, entered = net(), []
    model.compile("sgd", "mse")

    def step(name):
        @contextlib.contextmanager
        def context():
            entered.append(name)
            yield

        return train_step.MeasuredStep(model, "train", context)

    one, other = step("one"), step("other")
    model.make_train_function()
    own = model.train_function
    one.arm()
    assert model.train_function is not own
    one.disarm()
    assert model.train_function is own
    for batch in range(3):
        for s in (one, other):
            s.arm()
            assert not s.called
            assert model.train_function is not own
        assert is_clean(model)
        model.train_on_batch(X, Y)
        assert model.train_function is own
        assert is_clean(model)
        assert one.called
        assert other.called
        # While it is traced: one function for both.
        assert entered == ["one", "other"], batch
    model.train_on_batch(X, Y)
    # Alone it needs a function of its own.
    one.arm()
    model.train_on_batch(X, Y)
    assert entered == ["one", "other", "one"]
    assert int(model.optimizer.iterations) == 5


class Counting(keras.Sequential):
    """Notes each call of a step function that it made itself."""

    def __init__(self, layers):
        super().__init__(layers)
        self.calls = []

    def counted(self, function):
        def call(iterator):
            self.calls.append(1)
            return function(iterator)

        return call


class WithoutForce(Counting):
    """Looks its step up when it is traced, with AutoGraph, and once for all."""

    def make_train_function(self):
        if self.train_function is None:
            function = tf.function(lambda iterator: self.train_step(next(iterator)))
            self.train_function = self.counted(function)
        return self.train_function


class AroundKeras(Counting):
    def make_train_function(self, force=False):
        super().make_train_function(force)
        self.train_function = self.counted(self.train_function)


class Eager(Counting):
    def make_train_function(self, **kwargs):
        self.train_function = self.counted(lambda data: self.train_step(next(data)))


class ABoundMethod(Counting):
    def make_train_function(self, force=False):
        self.train_function = self.my_function

    def my_function(self, iterator):
        self.calls.append(1)
        return self.train_step(next(iterator))


@pytest.mark.parametrize("kind", [WithoutForce, AroundKeras, Eager, ABoundMethod])
def test_a_function_that_the_model_makes_is_called_and_measured(kind):
    weights = []
    for callbacks in ([], [t := tracker()]):
        model = kind(net().layers)
        optimizer = keras.optimizers.SGD(0.01)
        fit(model, *callbacks, optimizer=optimizer, epochs=2)
        assert len(model.calls) == 6
        assert is_clean(model)
        weights.append(model.get_weights())
    for plain, tracked in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, tracked)
    assert np.isfinite(t.history["hoyer"]).all()
    fit(model, t := tracker())
    reference = net()
    reference.set_weights(model.get_weights())
    expected = figures(reference)["hoyer"]
    assert t.history["hoyer"] == [pytest.approx(expected, rel=1e-5)]


def assigned(model):
    def my_function(iterator):
        return model.train_step(next(iterator))

    model.train_function = my_function


def wrapped(model):
    model.make_train_function()
    plain = model.train_function
    model.train_function = lambda iterator: plain(iterator)


def compiled(model):
    model.train_function = tf.function(lambda data: model.train_step(next(data)))


@pytest.mark.parametrize("assign", [assigned, wrapped, compiled])
def test_a_function_that_was_assigned_is_an_error_before_the_first_batch(assign):
    model = net()
    model.compile("sgd", "mse")
    assign(model)
    before, function = model.get_weights(), model.train_function
    with pytest.raises(
        ValueError, match=r"^`train_function` .* must come from .*Received"
    ) as e:
        batched.fit(model, X, Y, verbose=0, callbacks=[tracker()])
    assert f"model.train_function={function!r}. Override `train_step`" in str(e.value)
    assert model.train_function is function
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # Probe data need no step.
    t = tracker(x=X)
    batched.fit(model, X, Y, verbose=0, callbacks=[t])
    assert np.isfinite(t.history["val_hoyer"]).all()
    assert model.train_function is function


def test_a_step_with_a_decorator_is_an_error_before_the_first_batch():
    class Decorated(keras.Sequential):
        @tf.function
        def train_step(self, data):
            return super().train_step(data)

    layers = [*net().layers, Sparseout(0.5, adjustable=True), keras.layers.Dense(1)]
    model = Decorated(layers)
    for callback in (tracker(), SparsityController(0.5, verbose=0)):
        with pytest.raises(
            ValueError, match=r"^`train_step` .* Take the decorator away"
        ):
            fit(model, callback)
        assert int(model.optimizer.iterations) == 0
    assert is_clean(model)


def test_a_step_that_was_compiled_before_is_an_error_that_says_so():
    class Early(Counting):
        def __init__(self, layers):
            super().__init__(layers)
            self.early = tf.function(lambda x: keras.Sequential.train_step(self, x))

        def make_train_function(self, force=False):
            self.train_function = self.counted(lambda data: self.early(next(data)))

    model = Early(net().layers)
    with pytest.raises(
        ValueError, match=r"`make_train_function` .* from `self.train_st"
    ):
        fit(model, tracker())
    assert is_clean(model)


@pytest.mark.parametrize("how", ["assigned", "early"])
def test_validation_that_cannot_be_measured_ends_no_training(how):
    class Early(keras.Sequential):
        def make_test_function(self, force=False):
            step = keras.Sequential.test_step
            self.test_function = lambda data: step(self, next(data))

    model = net() if how == "assigned" else Early(net().layers)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    if how == "assigned":
        model.test_function = lambda iterator: model.test_step(next(iterator))
    t = tracker()
    options = {"epochs": 2, "batch_size": 8, "verbose": 0}
    with pytest.warns(
        UserWarning, match=r"validation has no figures. `.*test_funct"
    ) as w:
        history = batched.fit(
            model, X, Y, validation_data=(X, Y), callbacks=[t], **options
        )
    assert sum("validation" in str(warning.message) for warning in w) == 1
    assert len(history.history["val_loss"]) == 2
    assert len(history.history["hoyer"]) == 2
    assert not any(key.startswith("val_") for key in t.history)
    with pytest.raises(ValueError, match="test_function"):
        model.evaluate(batched.batches(X, Y, 8), verbose=0, callbacks=[tracker()])
