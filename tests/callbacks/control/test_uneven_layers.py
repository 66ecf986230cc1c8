"""Layers that are called with several numbers of units can be controlled too."""

import keras
import numpy as np
import pytest

from keras_sparseout import Sparseout, SparsityController, SparsityTracker

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")


def functional(act=None):
    act = act or L.ReLU(name="act")
    inputs = keras.Input((8,))
    x = act(L.Dense(8)(act(L.Dense(16)(inputs))))
    return keras.Model(inputs, L.Dense(1)(x))


class Own(keras.Model):
    """Not built before the first batch."""

    def __init__(self):
        super().__init__()
        self.relu = L.ReLU(name="act")
        self.dense = [L.Dense(units) for units in (16, 8, 1)]

    def call(self, x):
        first, second, last = self.dense
        return last(self.relu(second(self.relu(first(x)))))


class Act(L.ReLU):
    """A ReLU that does not tell its number of units, not even in a graph."""

    def call(self, x):
        units = keras.ops.shape(keras.ops.nonzero(x[0] > -9)[0])[0]
        return keras.ops.reshape(super().call(x), (-1, units))

    def get_build_config(self):
        return None


class Unknown(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = L.Dense(16), Act(name="act"), L.Dense(1)

    def call(self, x):
        return self.last(keras.ops.reshape(self.relu(self.first(x)), (-1, 16)))


def unknown():
    model = Unknown()
    model(X)
    return model


class Cut(L.Layer):
    """Returns a number of units that depends on the values."""

    def call(self, x):
        positive = keras.ops.sum(keras.ops.cast(x[:, 0] > 0, "int32"))
        return x[:, : positive % 7 + 4]


class Varies(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.cut = L.Dense(16), L.Dense(1), Cut()
        self.act = L.ReLU(name="act")

    def call(self, x):
        cut = self.act(self.cut(self.first(x)))
        return self.last(self.first(x)) + keras.ops.sum(cut, -1, keepdims=True)


def adjustable():
    return functional(Sparseout(0.5, adjustable=True, name="act", jit_compile=False))


def train(model, **kwargs):
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    metric = "hoyer" if kwargs.pop("q", False) else "zero_fraction"
    control = SparsityController(0.9, metric, reach_by=0.2, **kwargs)
    options = {"epochs": 4, "batch_size": 4, "verbose": 0, "callbacks": [control]}
    return model.fit(X, X[:, :1], **options).history


@pytest.mark.parametrize(
    ("build", "kwargs"),
    [
        (functional, {}),
        (functional, {"x": X}),
        (Own, {}),
        (unknown, {}),
        (Varies, {"x": X, "batch_size": 8}),
        (adjustable, {"q": True, "x": X, "every": 4}),
    ],
)
def test_they_are_moved_without_a_count_of_dead_units(build, kwargs, capsys):
    history = train(build(), **kwargs)
    setting = history[("q" if "q" in kwargs else "penalty") + "/act"]
    assert setting[-1] != setting[0]
    out = capsys.readouterr().out
    assert out.count("the units of act vary in number, so that dead ones are not") == 1


def test_dead_units_of_the_others_count(capsys):
    model = functional()
    name = next(layer.name for layer in model.layers if isinstance(layer, L.Dense))
    model.get_layer(name).activation = keras.activations.relu
    # All its units are dead.
    model.get_layer(name).bias.assign([-99.0] * 16)
    with pytest.warns(UserWarning, match="are dead|no gradient of the loss") as caught:
        train(model, layers=[name, "act"])
    says = f"100% of the units of {name} are dead"
    assert sum(says in str(each.message) for each in caught) == 1
    assert "the units of act vary in number" in capsys.readouterr().out


def test_a_figure_for_each_unit_of_probe_data_needs_one_number():
    tracker = SparsityTracker(
        X[:40], layers="act", metrics="firing_rate", batch_size=32
    )
    model = Varies()
    model.compile("sgd", "mse", jit_compile=False)
    options = {"batch_size": 32, "verbose": 0, "callbacks": [tracker]}
    with pytest.raises(ValueError, match=r"act, which is called with \d+ and \d+ un"):
        model.fit(X, X[:, :1], **options)
