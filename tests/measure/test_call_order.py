"""Which weights come before a layer: only some models tell the order of their calls."""

import keras
import numpy as np
import pytest

from keras_sparseout import SparsityController
from keras_sparseout.measure import layer_selection, non_finite
from keras_sparseout.measure.call_order import trainable_before

L = keras.layers
X = np.random.default_rng(0).normal(size=(128, 4)).astype("float32")


class Own(keras.Model):
    """Its attributes are not in the order of the calls."""

    def __init__(self):
        super().__init__()
        self.relu = L.ReLU(name="relu")
        self.hidden = L.Dense(6, name="hidden")
        self.out = L.Dense(1, name="out")

    def call(self, x):
        return self.out(self.relu(self.hidden(x)))


class Prompted(keras.Model):
    """All that it trains is a weight of its own."""

    def __init__(self):
        super().__init__()
        self.prompt = self.add_weight(shape=(4,), initializer="zeros", name="prompt")
        self.relu = L.Dense(6, "relu", name="relu", trainable=False)
        self.out = L.Dense(1, name="out", trainable=False)

    def call(self, x):
        return self.out(self.relu(x + self.prompt))


def sequential(*, inner=None, trains=True):
    inner = inner or keras.Sequential([keras.Input((4,)), L.ReLU(name="relu")])
    first = L.Dense(4, name="first", trainable=trains)
    return keras.Sequential([keras.Input((4,)), first, inner, L.Dense(1, name="last")])


class Reversed(keras.Model):
    """A functional model with a `call` of its own."""

    def __init__(self):
        inputs = keras.Input((4,))
        super().__init__(inputs, L.Dense(4)(L.ReLU(name="relu")(inputs)))

    def call(self, x):
        for layer in self.layers[:0:-1]:
            x = layer(x)
        return x


def own(**kwargs):
    model = Own()
    model(X)
    for name, trains in kwargs.items():
        getattr(model, name).trainable = trains
    return model


def relu_of(model):
    return layer_selection.select(model, [".*relu"])[0]


@pytest.mark.parametrize(
    ("build", "known"),
    [
        (sequential, True),
        (lambda: sequential(trains=False), False),
        # A block whose order is not known, in a model whose order is.
        (lambda: sequential(inner=own(), trains=False), True),
        (lambda: sequential(inner=own(hidden=False, out=False), trains=False), False),
        (own, True),
        (lambda: own(hidden=False, out=False), False),
        (Reversed, True),
        (Prompted, True),
    ],
)
def test_trainable_weights_before_a_layer(build, known):
    model = build()
    assert trainable_before(model, relu_of(model)) == known


def test_a_weight_that_is_not_finite_may_come_before_where_no_order_is_known():
    for model, broken in (
        (own(), {"relu", "hidden", "out"}),
        # In front of the block there is nothing broken.
        (sequential(inner=own()), {"own/relu", "own/hidden", "own/out", "last"}),
    ):
        found = layer_selection.all_layers(model)
        [block] = [w.layer for w in found if isinstance(w.layer, Own)] or [model]
        block.hidden.bias.assign([np.nan] * 6)
        causes = non_finite.invalid_layers(model, found)
        names = {name.replace(block.name, "own") for name in causes}
        assert names - {"own"} == broken
        [relu] = [c for name, c in causes.items() if name.endswith("relu")]
        assert relu.endswith("hidden' are not finite")
    model = Prompted()
    model(X)
    model.prompt.assign([np.nan] * 4)
    causes = non_finite.invalid_layers(model, layer_selection.all_layers(model))
    assert causes["relu"] == f"the weights of layer {model.name!r} are not finite"


def shared():
    """The second call of the ReLU has trainable weights before it, the first has none.

    The order of the layers is that of the first one.
    """
    inputs, relu = keras.Input((4,)), L.ReLU(name="relu")
    return keras.Model(inputs, L.Dense(1)(relu(L.Dense(4)(relu(inputs)))))


@pytest.mark.parametrize("build", [Own, shared])
def test_no_warning_says_of_a_layer_that_is_pushed_that_it_is_not(build, capsys):
    keras.utils.set_random_seed(1)
    model = build()
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=False)
    control = SparsityController(0.9, layers=["relu"])
    # A warning would be an error.
    options = {"epochs": 2, "batch_size": 8, "verbose": 0, "callbacks": [control]}
    history = model.fit(X, X[:, :1], **options).history
    assert history["penalty/relu"][-1] > 0
    assert "the run has 32 batches, which were too few" in capsys.readouterr().out
