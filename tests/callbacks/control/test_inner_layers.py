"""By default a penalty pushes no layer whose output the model returns."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import SparsityController
from keras_sparseout.callbacks import knobs

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")


def halves():
    encoder = [keras.Input((8,)), L.Dense(6, "relu", name="e")]
    decoder = [keras.Input((6,)), L.Dense(8, "relu", name="last")]
    return keras.Sequential(encoder, name="enc"), keras.Sequential(decoder, name="dec")


def sequential():
    return keras.Sequential([keras.Input((8,)), *halves()])


def functional(*ends):
    encoder, decoder = halves()
    inputs = keras.Input((8,))
    code = encoder(inputs)
    outputs = [decoder(code), L.Dense(3, "tanh", name="head")(code)]
    for end in ends:
        outputs = [end(x) for x in outputs]
    return keras.Model(inputs, outputs)


class Own(keras.Model):
    """Its layers are not in the order of their calls."""

    def __init__(self, first=None, end=None):
        super().__init__()
        self.end = end or L.Identity()
        self.last = L.Dense(8, "relu", name="last")
        self.first = first or L.Dense(6, "relu", name="first")

    def call(self, x):
        return self.end(self.last(self.first(x)))


@pytest.mark.parametrize("build", [sequential, functional])
def test_the_last_layers_of_inner_models_are_left_out(build):
    model = build()
    assert [w.name for w in knobs.layers_to_push(model, None)] == ["enc/e"]
    named = knobs.layers_to_push(model, ["dec/last"])
    assert [w.name for w in named] == ["dec/last"]


def pushed(model, y, eager=False, **kwargs):
    """The logged penalties of a short fit, and those of all layers."""
    keras.utils.set_random_seed(0)
    model.compile("adam", "mse", run_eagerly=eager, jit_compile=False)
    control = SparsityController(0.9, reach_by=0.1, **kwargs)
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, "callbacks": [control]}
    history = model.fit(X, y, **options).history
    keys = {key.removeprefix("penalty/") for key in history if "penalty/" in key}
    return keys, control._choice.stepping.values()


def test_a_layer_is_the_output_behind_a_reshape_too(capsys):
    model = functional(L.Reshape((-1, 1)))
    y = [X[:, :, None], X[:, :3, None]]
    # Together, so that what pushes one layer would push the others.
    keys, weights = pushed(model, y, together=True)
    assert keys == {"enc/e"}
    assert weights["enc/e"] > 0
    assert weights["dec/last"] == weights["head"] == 0
    assert capsys.readouterr().out.count("left out: ") == 1


@pytest.mark.usefixtures("optimizers_of_keras")
@pytest.mark.parametrize("eager", [False, True])
def test_the_first_step_shows_the_end_of_a_subclassed_model(eager, capsys):
    # In eager mode nothing tells what a tensor was reshaped from.
    end = None if eager else L.Reshape((2, 4))
    keys, weights = pushed(Own(end=end), X if eager else X.reshape(-1, 2, 4), eager)
    assert keys == {"first"}
    assert weights["first"] > weights["last"] == 0
    assert "left out: last (the output of the model)" in capsys.readouterr().out


def test_a_model_with_no_other_layer_has_to_name_one():
    with pytest.raises(ValueError, match=r"are its outputs\. Received: layers=None"):
        pushed(Own(L.Dense(6)), X)
    keys, weights = pushed(Own(L.Dense(6)), X, layers="last", verbose=0)
    assert keys == {"last"}
    assert weights["last"] > 0


class Gan(keras.Model):
    """Can't be called itself: its step calls the models in it."""

    def __init__(self):
        super().__init__()
        self.generator = Own()

    def train_step(self, data):
        with tf.GradientTape() as tape:
            y = self.generator(data[0], training=True)
            loss = keras.ops.mean((y - data[1]) ** 2)
        weights = self.generator.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def test_the_end_of_a_subclassed_model_is_one_in_a_model_without_call(capsys):
    model = Gan()
    model.generator(X)
    keys, weights = pushed(model, X)
    first, last = (f"{model.generator.name}/{name}" for name in ("first", "last"))
    assert keys == {first}
    assert weights[first] > weights[last] == 0
    assert f"left out: {last} (the output of the model)" in capsys.readouterr().out
