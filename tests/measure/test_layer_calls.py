"""What the defaults leave out: the model's output, and what can't be read."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, activations, fit, is_clean, tracker

from keras_sparseout import Sparseout, SparsityController
from keras_sparseout.measure import layer_selection

L = keras.layers
LAST = {
    "dense": [L.Dense(3, "softmax", name="last")],
    "sigmoid": [L.Dense(1, "sigmoid", name="last"), L.Reshape((1,))],
    "a layer of its own": [L.Dense(3), L.Softmax(name="last")],
    "mixed precision": [
        L.Dense(3, "softmax", name="last", dtype="mixed_float16"),
        L.Activation("linear", dtype="float32"),
    ],
    "an activation": [L.Dense(3), L.Activation("log_softmax", name="last")],
}


def sequential(*layers):
    return keras.Sequential([keras.Input((4,)), L.Dense(8, "relu", name="a"), *layers])


def watched(model, *, eager=False, **kwargs):
    t = tracker(metrics="zero_fraction", verbose=1, **kwargs)
    outputs = getattr(model, "outputs", None) or [None]
    y = [np.ones((22, 1))] * len(outputs) if len(outputs) > 1 else X[:, :1]
    fit(model, t, y=y, compiled={"run_eagerly": eager})
    assert is_clean(model)
    keys = [key for key in t.history if "/" in key]
    return {key.split("/", 1)[1] for key in keys}


@pytest.mark.parametrize("kind", LAST)
def test_the_activation_of_the_output_is_left_out(kind, capsys):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.deserialize(keras.layers.serialize(x)) for x in LAST[kind]]
    assert watched(sequential(*layers)) == {"a"}
    assert "; left out: last (the output of the model)" in capsys.readouterr().out


def test_of_probe_data_too_and_of_several_and_nested_outputs(capsys):
    x = inputs = keras.Input((4,))
    x = L.Dense(8, "relu", name="a")(x)
    inner = keras.Sequential(
        [keras.Input((8,)), L.Dense(5, "sigmoid", name="in"), L.Dense(1, "sigmoid")]
    )
    model = keras.Model(inputs, [inner(x), L.Dense(1, "sigmoid", name="out")(x)])
    for probe in (None, X):
        assert watched(model, x=probe) == {"a", f"{inner.name}/in"}
    assert capsys.readouterr().out.count("left out: ") == 2


@pytest.mark.parametrize("eager", [False, True])
def test_in_a_subclassed_model_the_output_is_what_call_returns(eager):
    class Gated(keras.Model):
        def __init__(self):
            super().__init__()
            # Not in the order of the calls, and one that none calls.
            self.head = L.Dense(1, "sigmoid", name="head")
            self.gate = L.Dense(8, "sigmoid", name="gate")
            self.hidden = L.Dense(8, "relu", name="hidden")
            self.idle = L.ReLU(name="idle")

        def call(self, x):
            return {"y": self.head(self.hidden(x) * self.gate(x))}

    model, t = Gated(), tracker(metrics="zero_fraction")
    model(X)
    fit(model, t, y={"y": X[:, :1]}, compiled={"run_eagerly": eager})
    keys = {f"zero_fraction/{name}" for name in ("hidden", "gate")}
    assert set(t.history) == {"epoch", "zero_fraction", *keys}
    expected = np.mean(np.asarray(model.hidden(X)) == 0)
    assert t.history["zero_fraction/hidden"] == [pytest.approx(expected)]
    with pytest.raises(
        ValueError, match=r"Received: layers=\['idle'\]. Name layers tha"
    ):
        fit(model, tracker(layers=["idle", "hidden"]), y={"y": X[:, :1]})


def test_relu_outputs_named_layers_and_the_only_one_are_read():
    relu = sequential(L.Dense(1, "relu", name="b"))
    assert watched(relu, eager=True) == {"a", "b"}
    named = sequential(L.Dense(1, "sigmoid", name="b"))
    assert watched(named, eager=True, layers=["a", "b"]) == {"a", "b"}
    only = keras.Sequential([keras.Input((4,)), L.Dense(1, "sigmoid", name="b")])
    assert watched(only, eager=True) == {"b"}
    tanh = sequential(L.Dense(1, "tanh", name="b"))
    assert watched(tanh, eager=True) == {"a", "b"}
    sparse = Sparseout(0.5, name="b", jit_compile=False)
    assert watched(sequential(L.Dense(1, "sigmoid"), sparse), eager=True) == {"b"}


class Decorated(L.Layer):
    """A layer whose `call` is a tf.function of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = L.Dense(8, "relu", name="inner")
        self.drop = Sparseout(0.3, adjustable=True, name="drop", jit_compile=False)

    def build(self, shape):
        self.inner.build(shape)
        self.drop.build(shape)

    @tf.function
    def call(self, x, training=False):
        return self.drop(self.inner(x), training=training)


def controlled():
    drop = Sparseout(0.3, adjustable=True, name="drop", jit_compile=False)
    return sequential(drop, Decorated(name="own"), L.Dense(1))


@pytest.mark.parametrize("probe", [None, X])
def test_what_cannot_be_read_is_left_out_and_said(probe, capsys):
    t = tracker(x=probe, verbose=1, metrics="zero_fraction")
    controller = SparsityController(0.7, x=probe, every=2)
    fit(controlled(), t, controller)
    [*_, key] = [key for key in t.history if "/" in key]
    assert key.endswith("zero_fraction/drop")
    said = capsys.readouterr().out
    left_out = "left out: own/drop (not called, or in a loop or tf.function)"
    assert said.count(f"; {left_out}") == 1
    assert f"SparsityController: {left_out}" in said
    assert "q/drop" in controller.history
    assert not any("own" in key for key in controller.history)


def test_the_advice_for_layers_in_a_function_of_their_own_works():
    model = controlled()
    for callback in (
        tracker(layers=["own/inner"]),
        tracker(x=X, layers=["own/inner"]),
        SparsityController(0.7, layers=["own/drop"], verbose=0),
    ):
        with pytest.raises(
            ValueError, match=r"Take @tf.function off the `call` of 'own'"
        ):
            fit(model, callback)
        assert int(model.optimizer.iterations) == 0
    alone = keras.Sequential([keras.Input((4,)), Decorated(name="own"), L.Dense(1)])
    with pytest.raises(
        ValueError, match=r"must be given.*layers=None, for own/drop. Ta"
    ):
        fit(alone, tracker())
    Undecorated = type("Undecorated", (Decorated,), {"call": None})
    Undecorated.call = Decorated.call.python_function
    model = sequential(Undecorated(name="own"), L.Dense(1))
    assert watched(model, layers=["own/inner"]) == {"own/inner"}


def test_the_advice_for_an_activation_that_is_an_operation_works():
    inputs = keras.Input((4,))
    x = keras.ops.relu(L.Dense(8, name="linear")(inputs))
    model = keras.Model(inputs, L.Dense(1, name="out")(x))
    with pytest.raises(
        ValueError, match=r'the layer after it, with where="input"\. The mo'
    ):
        fit(model, tracker())
    fit(model, t := tracker(layers=["out"], where="input", metrics="zero_fraction"))
    expected = np.mean(activations(model, "linear") <= 0)
    assert t.history["zero_fraction/out"] == [pytest.approx(expected)]


def test_messages_name_a_few_layers_near_ones_first():
    # As MobileNet has them.
    names = ["conv1", *(f"conv_pw_{i}_relu" for i in range(1, 14)), "dropout"]
    layers = [L.Dense(4, name=names[0]), *(L.ReLU(name=name) for name in names[1:-1])]
    layers.append(L.Dropout(0.1, name=names[-1]))
    model = keras.Sequential([keras.Input((4,)), *layers])
    for wanted, near in (
        ("conv_pw_13_rel", "conv_pw_13_relu"),
        (L.LSTM, "conv1"),
        ("dropuot", "dropout"),
    ):
        with pytest.raises(ValueError, match="which is not among them") as error:
            layer_selection.select(model, [wanted])
        text = str(error.value).split(" The model has: ")[1]
        assert text.startswith(near)
        assert text.endswith(f" and {len(names) - 8} more.")
        assert text.count(",") == 7
