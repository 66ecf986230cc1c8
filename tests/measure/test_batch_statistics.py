"""The statistics of BatchNormalization layers over data, beside those by NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Sparseout, TargetSparsity
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.batch_statistics import BatchStatistics

# In batches of 8 the last one is smaller.
X = np.random.default_rng(0).normal(2, 3, size=(22, 4)).astype("float32")
BATCHES = [X[i : i + 8] for i in range(0, 22, 8)]
EPSILON = 1e-3


class Renamed(keras.layers.BatchNormalization):
    """A layer of the user's, whose `call` has arguments of other names."""

    def call(self, x, **kwargs):
        return super().call(x, training=True)


class NormalisingCell(keras.layers.SimpleRNNCell):
    def __init__(self, units):
        super().__init__(units)
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        super().build(shape)
        self.norm.build((None, self.units))

    def call(self, x, states, training=False):
        y, states = super().call(x, states, training=training)
        return self.norm(y, training=training), states


class AtInference(keras.layers.Layer):
    """Calls a layer as at inference, also in training."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def build(self, shape):
        if not self.layer.built:
            self.layer.build(shape)

    def call(self, x):
        return self.layer(x, training=False)


class Parts(keras.Model):
    def __init__(self, layers):
        super().__init__()
        self.parts = layers

    def call(self, x, training=False):
        for layer in self.parts:
            takes = isinstance(layer, (keras.layers.Dropout, keras.Sequential))
            x = layer(x, training=training) if takes else layer(x)
        return x


def layers(norm=keras.layers.BatchNormalization, **kwargs):
    keras.utils.set_random_seed(1)
    return [
        keras.layers.Dense(5, "relu", name="dense"),
        norm(name="first", **kwargs),
        keras.layers.Dropout(0.5),
        Sparseout(0.4, q=1.0),
        TargetSparsity(0.3),
        keras.layers.GaussianNoise(1.0),
        keras.layers.Dense(3, name="second_dense"),
        norm(name="second", **kwargs),
    ]


def sequential(**kwargs):
    return keras.Sequential([keras.Input((4,)), *layers(**kwargs)])


def functional(**kwargs):
    x = inputs = keras.Input((4,))
    for layer in layers(**kwargs):
        x = layer(x)
    return keras.Model(inputs, x)


def nested(**kwargs):
    dense, norm, *rest = layers(**kwargs)
    inner = keras.Sequential([keras.Input((5,)), norm, *rest], name="inner")
    return keras.Sequential([keras.Input((4,)), dense, inner])


def subclassed(**kwargs):
    model = Parts(layers(**kwargs))
    model(X)
    return model


def values(model):
    return [np.array(v) for v in model.variables]


def by_layer(model, batches=BATCHES):
    statistics = BatchStatistics(model).measure(batches)
    return {name.split("/")[-1]: s for name, s in statistics.items()}


def check(statistics, x, axis=0):
    x = np.asarray(x, "float64")
    np.testing.assert_allclose(statistics.mean, x.mean(axis), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(statistics.variance, x.var(axis), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "kwargs"),
    [
        (sequential, {}),
        (functional, {"norm": Renamed}),
        (nested, {"synchronized": True}),
        (subclassed, {}),
        (subclassed, {"norm": Renamed}),
    ],
)
def test_they_are_those_of_the_inputs_and_nothing_changes(build, kwargs):
    model = build(**kwargs)
    before = values(model)
    statistics = by_layer(model)
    found = [w.layer for w in layer_selection.all_layers(model)]
    dense = [layer for layer in found if isinstance(layer, keras.layers.Dense)]
    [w, b], [w2, b2] = (layer.get_weights() for layer in dense)
    hidden = [np.maximum(x @ w + b, 0) for x in BATCHES]
    check(statistics["first"], np.concatenate(hidden))
    # At inference TargetSparsity has the threshold 0, at which it begins.
    normal = [(h - h.mean(0)) / np.sqrt(h.var(0) + EPSILON) for h in hidden]
    check(statistics["second"], np.concatenate([h @ w2 + b2 for h in normal]))
    for a, b in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not model.losses
    assert not any("call" in vars(layer) for layer in model.layers)


def test_layers_that_training_does_not_move_are_left_out():
    frozen = keras.layers.BatchNormalization(trainable=False, name="frozen")
    quiet = keras.layers.BatchNormalization(name="quiet")
    moved = keras.layers.BatchNormalization(name="moved")
    inputs = keras.Input((4,))
    y = moved(AtInference(quiet)(frozen(inputs)))
    model = keras.Model(inputs, y)
    assert list(by_layer(model)) == ["moved"]
    moved.trainable = False
    assert by_layer(model) == {}


def test_a_shared_layer_has_the_statistics_of_the_calls_that_train():
    shared = keras.layers.BatchNormalization(name="shared")
    inputs = keras.Input((4,))
    quiet = AtInference(shared)(keras.layers.Rescaling(5.0)(inputs))
    parts = [shared(inputs), quiet, shared(keras.layers.Rescaling(2.0, 1.0)(inputs))]
    model = keras.Model(inputs, parts)
    check(by_layer(model)["shared"], np.concatenate([X, 2 * X + 1]))


def test_a_layer_in_a_loop_is_left_out_and_the_others_follow_it():
    rnn = keras.layers.RNN(NormalisingCell(3))
    norm = keras.layers.BatchNormalization(name="norm")
    inputs = keras.Input((5, 4))
    # Called twice, so that what is assigned in one loop is read in the next.
    model = keras.Model(inputs, norm(rnn(inputs) + rnn(2 * inputs)))
    x = np.random.default_rng(1).normal(size=(6, 5, 4)).astype("float32")
    statistics = by_layer(model, [x[:4], x[4:]])
    assert list(statistics) == ["norm"]
    check(statistics["norm"], rnn(x) + rnn(2 * x))


def test_masked_timesteps_do_not_count():
    x = np.random.default_rng(1).normal(size=(6, 5, 3)).astype("float32")
    x[1, 2:] = x[4] = 0
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            keras.layers.Masking(),
            keras.layers.BatchNormalization(name="norm"),
        ]
    )
    check(by_layer(model, [x[:4], x[4:5], x[5:]])["norm"], x[np.any(x != 0, axis=-1)])


def test_channels_first_and_numbers_far_from_zero():
    x = np.random.default_rng(1).normal(1000, 1, size=(6, 3, 4, 4)).astype("float32")
    norm = keras.layers.BatchNormalization(axis=1, name="norm")
    model = keras.Sequential([keras.Input((3, 4, 4)), norm])
    statistics = by_layer(model, [x[:4], x[4:]])["norm"]
    check(statistics, np.moveaxis(x, 1, -1).reshape(-1, 3))


def test_statistics_in_place_are_gone_after_the_context():
    model = sequential()
    before = values(model)
    statistics = BatchStatistics(model)
    new = statistics.measure(BATCHES)

    def fail():
        with statistics.in_place(new):
            first = model.get_layer("first").moving_mean
            np.testing.assert_allclose(first, new["first"].mean, rtol=1e-6)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    for a, b in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_function_of_tensorflow_is_an_obstacle():
    class Traced(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        @tf.function
        def call(self, x, training=False):
            return self.norm(x, training=training)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Traced()])
    assert BatchStatistics(model).obstacle() == model.layers[-1].name
    assert BatchStatistics(sequential()).obstacle() is None
