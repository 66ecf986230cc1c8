"""Which layers have a knob to move, and what is said of those that have none."""

import keras
import pytest
from controlled import classifier, fit

from keras_sparseout import (
    ActivationPenalty,
    Bridgeout,
    Sparseout,
    SparsityController,
)
from keras_sparseout.callbacks import knobs
from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.measure import layer_selection


def model_of(*layers):
    return keras.Sequential([keras.Input((8,)), *layers])


def network(adjustable):
    return model_of(
        keras.layers.Dense(4, name="hidden"),
        ActivationPenalty(0.1, adjustable=adjustable, name="penalty"),
        Sparseout(0.5, q=1.5, adjustable=adjustable, name="first"),
        Sparseout(0.5, q=1.5, adjustable=adjustable, name="second"),
    )


def scheduled(model, *wanted, layers=None):
    layers = layer_selection.check_layers(layers)
    found = knobs.layers_to_schedule(model, layers, wanted)
    return {knob: [w.name for w in watched] for knob, watched in found.items()}


def error_of(model, *wanted, layers=None):
    with pytest.raises(ValueError, match="Received") as error:
        scheduled(model, *wanted, layers=layers)
    return str(error.value)


def test_layers_are_found_by_their_knobs():
    found = scheduled(network(True), "rate", "weight")
    assert found == {"rate": ["first", "second"], "weight": ["penalty"]}
    found = scheduled(network(True), "q", "weight", layers=["second", "pen.*"])
    assert found == {"q": ["second"], "weight": ["penalty"]}


def test_knobs_are_read_and_assigned_where_they_differ(monkeypatch):
    model, assigned = network(True), []
    watched = knobs.layers_to_control(model, ["first", "second"], "q")
    assert [w.side for w in watched] == ["input", "input"]
    assert knobs.values(watched, "q") == {"q/first": 1.5, "q/second": 1.5}
    model.get_layer("second").q = 0.3
    assign = Sparseout.q.__set__

    def counting(knob, layer, value):
        assigned.append(layer.name)
        assign(layer, value)

    monkeypatch.setattr(Knob, "__set__", counting)
    knobs.assign(watched, "q", 0.1 + 0.2)  # In float32 the same as 0.3.
    assert assigned == ["first"]
    assert knobs.values(watched, "q") == {"q/first": 0.3, "q/second": 0.3}


@pytest.mark.parametrize("layers", [None, "second"])
def test_layers_that_are_not_adjustable_raise_with_the_line_to_change(layers):
    model = network(adjustable=False)
    message = error_of(model, "q", layers=layers)
    assert "`layers` must be adjustable for their `q` to change. Received: " in message
    assert "second with adjustable=False" in message
    assert "Make it Sparseout(0.5, q=1.5, name=" in message
    assert ", adjustable=True)." in message
    message = error_of(model, "weight")
    assert "Make it ActivationPenalty(0.1, name='penalty', adjustable=True)." in message


def test_a_model_without_such_a_layer_raises():
    # Dropout has a rate, but not one that could be assigned.
    only = keras.layers.Dense(2, name="only")
    model = model_of(keras.layers.Dropout(0.5, name="dropout"), only)
    message = error_of(model, "rate")
    assert "`rate` is scheduled, so a layer of the model must have one." in message
    assert "Add Sparseout(0.5, adjustable=True)" in message
    assert message.endswith("with the layers dropout, only.")
    message = error_of(model, "weight")
    assert "Add ActivationPenalty(1e-3, adjustable=True)" in message
    message = error_of(keras.Sequential(name="empty"), "rate")
    assert "It has none yet: call it once on a batch, for example model(x" in message


def test_layers_without_a_knob_that_is_scheduled_raise():
    message = error_of(network(True), "q", layers=["first", "hidden"])
    assert "a knob that is scheduled, of q. Received: layers=hidden." in message
    message = error_of(network(True), "q", "weight", layers="first")
    assert "`weight` is scheduled, so a layer among `layers` must" in message
    assert "layers='frist'" in error_of(network(True), "q", layers="frist")


def test_layers_that_cannot_be_moved_show_the_change():
    constant = classifier(regularizer=lambda name: Sparseout(0.5, q=1.5, name=name))
    for layers in (None, ["hidden"]):
        with pytest.raises(ValueError, match="`layers` must be adjustable") as error:
            fit(constant, SparsityController(0.5, layers=layers, actuator="q"))
        assert "Received: hidden with adjustable=False" in str(error.value)
        call = "Make it Sparseout(0.5, q=1.5, name='hidden', adjustable=True)"
        assert call in str(error.value)
    dropout = classifier(regularizer=lambda name: keras.layers.Dropout(0.5, name=name))
    with pytest.raises(ValueError, match=r"Put Sparseout\(0.5, adjustable=True\)"):
        fit(dropout, SparsityController(0.5, actuator="q"))
    with pytest.raises(
        ValueError, match=r"Put ActivationPenalty\(1e-4, adjustable=True"
    ):
        fit(classifier(), SparsityController(0.5, actuator="weight"))
    with pytest.raises(ValueError, match=r"'hiden' is no layer.*Did you mean 'hidden'"):
        fit(classifier(), SparsityController({"hiden": 0.5}))


def test_noise_on_weights_is_not_what_is_moved():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(64, "relu"),
            Sparseout(0.5, adjustable=True, name="hidden"),
            Bridgeout(keras.layers.Dense(3), 0.1, adjustable=True, name="out"),
        ]
    )
    controller = SparsityController(0.7, every=8, verbose=0)
    fit(model, controller, epochs=1)
    assert list(controller.targets) == ["hidden"]
    assert model.get_layer("hidden").q != 2
    assert model.get_layer("out").q == 2
    with pytest.raises(ValueError, match=r"adjustable q. Received: layers=out\. Put"):
        fit(model, SparsityController(0.7, layers="out", actuator="q"))
    # None was named.
    with pytest.raises(ValueError, match=r"Received: layers=None, for \w+, hidden, "):
        fit(model, SparsityController(0.7, actuator="weight"))


class OnlyTrained(keras.Model):
    """Can't be called: a training step would call the models in it."""

    def __init__(self, *, shape):
        super().__init__()
        first = [keras.Input((12,))] if shape else []
        second = [keras.Input((4,))] if shape else []
        code = [keras.layers.Dense(8, "relu", name="a"), keras.layers.Dense(4)]
        back = [keras.layers.Dense(8, "relu", name="b")]
        back += [keras.layers.Dense(12, "relu", name="end")]
        self.encoder = keras.Sequential([*first, *code], name="encoder")
        self.decoder = keras.Sequential([*second, *back], name="decoder")


@pytest.mark.parametrize("shape", [True, False])
def test_of_a_model_without_call_the_ends_of_its_models_are_not_pushed(shape):
    pushed = knobs.layers_to_push(OnlyTrained(shape=shape), None)
    assert [w.name for w in pushed] == ["encoder/a", "decoder/b"]
