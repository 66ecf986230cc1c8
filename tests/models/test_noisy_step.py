"""One pass with noise: its calls, layers that are named, and nothing is left of it."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from uncertain import InTraining, X, assert_untouched, every_layer, states

from keras_sparseout.models import mc_predict


class Reused(keras.Model):
    """Calls one noise layer with and without noise when it trains."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x), self.layer(2 * x), self.layer(x, training=False)


def test_calls_without_noise_in_training_have_none():
    model = Reused(kl.Dropout(0.5))
    _, deviations, y = mc_predict(model, X, 8, 0, return_samples=True)
    assert [bool(d.any()) for d in deviations] == [True, True, False]
    # It draws anew in each call.
    assert not np.array_equal(2 * y[0], y[1])
    # The user may want it all the same.
    assert all(d.any() for d in mc_predict(model, X, 8, 0, layers=kl.Dropout)[1])


def test_layers_may_be_named():
    inner = keras.Sequential([keras.Input((8,)), kl.Dropout(0.5), InTraining()])
    inner.name = "inner"
    x = keras.Input((8,))
    outputs = [kl.Dropout(0.5, name="out")(x), inner(x), kl.Dropout(0.0)(x)]
    model = keras.Model(x, outputs)
    for layers, noisy in (
        ("out", [True, False, False]),
        ("inner", [False, True, False]),
        (["out", inner.layers[0]], [True, True, False]),
        (None, [True, True, False]),
    ):
        means, deviations = mc_predict(model, X[:, 0], 8, 0, layers=layers)
        assert [bool(d.any()) for d in deviations] == noisy
        assert np.abs(means[1]).max() < 100
    # A cell that is named is noisy on the fast path of its LSTM too.
    lstm = keras.Sequential([keras.Input((3, 8)), kl.LSTM(3, dropout=0.5, name="l")])
    a, b = (mc_predict(lstm, X, 3, 0, layers=n) for n in ("l", "l/lstm_cell"))
    np.testing.assert_array_equal(a, b)


class OfUser(kl.Layer):
    """Adds noise from the global generator of Keras, in training."""

    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


class Sampling(kl.Layer):
    """Adds noise always, as the middle of a variational autoencoder does."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)


def test_noise_of_other_layers():
    x, options = X[:, 0], {"return_samples": True}
    own = keras.Sequential([keras.Input((8,)), OfUser(name="own")])
    keras.utils.set_random_seed(1)
    first = keras.random.normal((2, 3))
    y = mc_predict(own, x, 5, 0, layers="own", **options)[2]
    np.testing.assert_array_equal(
        mc_predict(own, x, 5, 0, layers="own", **options)[2], y
    )
    assert len(np.unique(y)) == y.size
    # The global generator goes on where it was.
    second = keras.random.normal((2, 3))
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(keras.random.normal((2, 3)), first)
    np.testing.assert_array_equal(keras.random.normal((2, 3)), second)
    always = keras.Sequential([keras.Input((8,)), Sampling(), kl.Dropout(0.5)])
    before = states(always)
    y = mc_predict(always, x, 5, 0, **options)[2]
    np.testing.assert_array_equal(mc_predict(always, x, 5, 0, **options)[2], y)
    assert_untouched(always, before)


def test_a_stateful_model_starts_each_batch_from_its_states():
    layer = kl.GRU(3, stateful=True, dropout=0.5)
    model = keras.Sequential([keras.Input((3, 8), batch_size=2), layer])
    model.predict(X[:2], verbose=0)
    before = states(model)
    x = np.concatenate([X[:2], X[:2]])
    mean, deviation = mc_predict(model, x, 100, 0)
    assert_untouched(model, before)
    error = np.sqrt((deviation[:2] ** 2 + deviation[2:] ** 2) / 100)
    assert np.all(np.abs(mean[:2] - mean[2:]) < 5 * error)


class Meeting(kl.Layer):
    """Lets another thread run in the middle of the trace of inference."""

    def __init__(self):
        super().__init__()
        self.waiting = None
        self.reached, self.over = threading.Event(), threading.Event()

    def call(self, x, training=False):
        if threading.get_ident() == self.waiting and not training:
            self.reached.set()
            assert self.over.wait(20)
        return x


def test_other_threads_see_no_noise():
    meeting = Meeting()
    layers = [kl.Dropout(0.5), meeting, kl.Dropout(0.5)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile("sgd", "mse", jit_compile=False)
    meeting.waiting = threading.get_ident()
    found, x = [], X[:, 0]

    def beside():
        try:
            assert meeting.reached.wait(20)
            found.append(model.predict(x, verbose=0))
            found.append(model(x))
        finally:
            meeting.over.set()

    thread = threading.Thread(target=beside)
    thread.start()
    _, deviation = mc_predict(model, x, 8, 0)
    thread.join()
    assert (deviation > 0).any()
    for y in found:
        np.testing.assert_array_equal(y, x)
    assert not any("call" in vars(layer) for layer in every_layer(model))


class Breaking(kl.Layer):
    """Raises while it is traced in inference."""

    breaks = False

    def call(self, x, training=False):
        if self.breaks and not training:
            raise ArithmeticError("broken")
        return x


def test_an_error_leaves_the_model_as_it_was():
    class Broken(kl.SimpleRNNCell):
        def call(self, x, states, training=False):
            return super().call(breaking(x), states, training=training)

    breaking = Breaking()
    cell = Broken(4, dropout=0.5, recurrent_dropout=0.5)
    model = keras.Sequential([keras.Input((3, 8)), kl.RNN(cell), kl.Dropout(0.5)])
    model(X)
    before, breaking.breaks = states(model), True
    with pytest.raises(ArithmeticError, match="broken"):
        mc_predict(model, X, 3, 0)
    assert_untouched(model, before)
    breaking.breaks = False
    assert np.isfinite(model(X, training=True)).all()
    assert (mc_predict(model, X, 3, 0)[1] > 0).any()


class Frozen(keras.Model):
    """Calls its noise layer in inference always."""

    def __init__(self):
        super().__init__(name="frozen")
        self.drop = kl.Dropout(0.5, name="drop")

    def call(self, x):
        return self.drop(x, training=False)


def network(*layers):
    layers = layers or (kl.Dense(3, name="dense"), kl.Dropout(0.5, name="drop"))
    return keras.Sequential([keras.Input((3, 8)), *layers])


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: None, {}, r"`model` must be a Keras model\. Received: model=None"),
        (
            lambda: network(kl.Dense(3, name="dense")),
            {},
            r"`model` must have a noise layer.*with dense\. If a layer of your own",
        ),
        (
            Frozen,
            {},
            r"`model` must call a noise layer with training=True.*frozen.*drop, or",
        ),
        (
            lambda: network(kl.Dropout(0.5), kl.Flatten(), kl.Dense(1), Scalar()),
            {},
            "`model` must return dense tensors of real numbers",
        ),
        (lambda: network(Traced()), {}, r"'traced', whose `call` is one\. Take"),
        (network, {"samples": 0}, r"`samples` must be an integer >= 1.*=0\. Give for"),
        (network, {"samples": 2.0}, "`samples` must be an integer >= 1"),
        (network, {"seed": 1.0}, r"`seed` must be an integer.*seed=1\.0"),
        (network, {"x": X[:0]}, "`x` must hold at least one sample"),
        (network, {"x": X[..., :3]}, "`x` must have the shape of the model's inputs"),
        (network, {"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        (network, {"layers": "dence"}, "`layers` must be layers of the model"),
        (network, {"layers": "dense"}, r"that add noise.*'dense', a Dense\. Leave"),
        (network, {"layers": []}, "`layers` must be a list of at least one"),
        (network, {"return_samples": 1}, "`return_samples` must be True or False"),
    ],
)
def test_errors(make, options, message):
    arguments = {"x": X, "samples": 3, "seed": 0, **options}
    with pytest.raises(ValueError, match=message):
        mc_predict(make(), **arguments)


class Traced(kl.Layer):
    """A layer that traces itself."""

    def __init__(self):
        super().__init__(name="traced")
        self.drop = kl.Dropout(0.5)

    @tf.function
    def call(self, x):
        return self.drop(x)


class Scalar(kl.Layer):
    """Returns one number for a whole batch."""

    def call(self, x):
        return keras.ops.sum(x)


def test_eager_functions_are_refused():
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(RuntimeError, match="run_functions_eagerly"):
            mc_predict(network(), X, 3, 0)
    finally:
        tf.config.run_functions_eagerly(False)
