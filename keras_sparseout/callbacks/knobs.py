"""Knobs of a model's layers: which layers have one, what it is, and setting it."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np

from keras_sparseout.callbacks.control.actuators import ActuatorName
from keras_sparseout.layers.activation_penalty import ActivationPenalty
from keras_sparseout.layers.adjustable import AdjustableLayer, has_knob
from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.layers.target_sparsity import TargetSparsity
from keras_sparseout.measure import call_arguments, layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils import validation
from keras_sparseout.utils.layer_text import call_of

# What is moved by default, in a model with adjustable layers of a kind.
_ACTUATORS: dict[type[AdjustableLayer], ActuatorName] = {
    Sparseout: "q",
    ActivationPenalty: "weight",
    TargetSparsity: "threshold",
}
_AFTER = "adjustable=True) after the activations that are meant."
_REMEDIES = {
    "q": f"Put Sparseout(0.5, {_AFTER}",
    "rate": f"Put Sparseout(0.5, {_AFTER}",
    "weight": f"Put ActivationPenalty(1e-4, {_AFTER}",
    "target": "Insert them: models.insert(model, {'relu': lambda layer: "
    "TargetSparsity(0.5, adjustable=True)}).",
}
# Noise on weights, or inside a cell, does not act on the activations that go in.
_ACTING = (ActivationPenalty, Sparseout, TargetSparsity)


def values(watched: Iterable[WatchedLayer], knob: str) -> dict[str, float]:
    """Returns the values of the layers' `knob` by log key, for example "q/hidden"."""
    return {f"{knob}/{w.name}": getattr(w.layer, knob) for w in watched}


def assign(watched: Iterable[WatchedLayer], knob: str, value: float) -> None:
    """Sets the layers' `knob` to `value`, where it differs."""
    for w in watched:
        # What a float32 variable would keep of it.
        if np.float32(getattr(w.layer, knob)) != np.float32(value):
            setattr(w.layer, knob, value)


def default_actuator(
    model: keras.Model, layers: Sequence[LayerChoice] | None
) -> ActuatorName:
    """Returns what a controller moves: what the layers have, or else a penalty.

    Args:
        model: The model.
        layers: What the user named, from `layer_selection.check_layers`, or None.

    Raises:
        ValueError: if the model is built, and one that the user named is not in it.
    """
    chosen = layer_selection.all_layers(model)
    # A first batch may make layers that the user named.
    with contextlib.nullcontext() if model.built else contextlib.suppress(ValueError):
        if layers is not None:
            chosen = layer_selection.select(model, layers)
    for kind, actuator in _ACTUATORS.items():
        if any(isinstance(w.layer, kind) and w.layer.adjustable for w in chosen):
            return actuator
    return "penalty"


def layers_to_push(
    model: keras.Model, layers: Sequence[LayerChoice] | None
) -> list[WatchedLayer]:
    """Returns the layers of `model` whose activations a penalty may push.

    Those are the ones that a tracker would watch, without the end of the model, unless
    the user named them. Where the model does not tell it, the first step shows the end.
    """
    watched = layer_selection.select(model, layers)
    if layers is not None:
        return watched
    last = set(_last_layers(model))
    inner = [
        w
        for w in watched
        if not layer_selection.has_output_activation(w.layer)
        and id(w.layer) not in last
    ]
    if not inner:
        raise only_outputs(model, watched)
    return inner


def only_outputs(model: keras.Model, watched: Iterable[WatchedLayer]) -> ValueError:
    """The error for a model whose nonlinear layers are its outputs."""
    return ValueError(
        "`layers` must name the layers to push, since the nonlinear layers of the "
        f"model are its outputs. Received: layers=None for model {model.name!r}, with "
        f"{validation.some_of([w.name for w in watched])}. Give layers=[...]."
    )


def layers_to_control(
    model: keras.Model, layers: Sequence[LayerChoice] | None, knob: str
) -> list[WatchedLayer]:
    """Returns the layers of `model` whose input a controller measures and moves.

    Args:
        model: The model.
        layers: What the user named, from `layer_selection.check_layers`, or None.
        knob: The knob to move.

    Raises:
        ValueError: if there is none, or one that the user named is not adjustable.
    """
    found = chosen = layer_selection.all_layers(model)
    named = layers is not None
    if named:
        chosen = layer_selection.select(model, layers)
    acting = [w for w in chosen if isinstance(w.layer, _ACTING)]
    watched = _adjustable(acting, knob, named=named)
    others = [w.name for w in chosen if w not in watched]
    if not found:
        raise ValueError(
            "`layers` must be layers of the model, which has none yet. Received: "
            f"layers={layers!r}. Call it once on a batch, for example model(x[:1]), "
            "before fit."
        )
    if not watched or (named and others):
        names = validation.some_of(others)
        received = f"layers={names}" if named else f"layers=None, for {names}"
        raise ValueError(
            f"`layers` must be layers with an adjustable {knob}. Received: {received}. "
            f"{_REMEDIES[knob]}"
        )
    if knob == "target":
        return watched
    # A penalty passes its input on, so its input is what is meant too.
    return [dataclasses.replace(w, side="input") for w in watched]


def layers_to_schedule(
    model: keras.Model, layers: Sequence[LayerChoice] | None, knobs: Iterable[str]
) -> dict[str, list[WatchedLayer]]:
    """Returns the layers of `model` to set, by knob.

    Args:
        model: The model.
        layers: What the user named, from `layer_selection.check_layers`, or None.
        knobs: The knobs that have a schedule.

    Raises:
        ValueError: if a knob has no layer, or a layer that the user named has none of
            the knobs or is not adjustable.
    """
    found = chosen = layer_selection.all_layers(model)
    if layers is not None:
        chosen = layer_selection.select(model, layers)
        for wanted in layers:
            _check_has_one(layer_selection.select(model, [wanted]), knobs)
    scheduled = {}
    for knob in knobs:
        scheduled[knob] = _adjustable(chosen, knob, named=layers is not None)
        if not scheduled[knob]:
            where = "of the model" if layers is None else "among `layers`"
            raise _none_has(knob, where, model, found)
    return scheduled


def _last_layers(model: keras.Model) -> Iterator[int]:
    """Yields the ids of layers whose outputs a model returns, and of those in them.

    A model that can't be called, such as a GAN, leaves the outputs of its models to its
    training step: theirs count.
    """
    outputs = [id(tensor) for tensor in getattr(model, "outputs", None) or ()]
    last: list[keras.layers.Layer] = []
    if outputs:
        last = [m for m in model.layers if id(getattr(m, "output", None)) in outputs]
    elif isinstance(model, keras.Sequential):
        last = model.layers[-1:]  # It is not built yet.
    elif not call_arguments.has_call(model):
        last = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    for layer in last:
        yield id(layer)
        if isinstance(layer, keras.Model):
            yield from _last_layers(layer)


def _adjustable(
    watched: Iterable[WatchedLayer], knob: str, *, named: bool
) -> list[WatchedLayer]:
    """Returns those of `watched` whose layers have `knob` as a variable.

    Args:
        watched: Layers, from `layer_selection.all_layers`.
        knob: Name of the knob.
        named: Whether the user named these layers, so that a constant is an error.
            Otherwise it is one only if no layer is adjustable.
    """
    having = [w for w in watched if has_knob(w.layer, knob)]
    adjustable = [w for w in having if w.layer.adjustable]
    constant = [w for w in having if not w.layer.adjustable]
    if constant and (named or not adjustable):
        raise ValueError(
            f"`layers` must be adjustable for their `{knob}` to change. Received: "
            f"{', '.join(w.name for w in constant)} with adjustable=False. Make it "
            f"{call_of(constant[0].layer)[:-1]}, adjustable=True)."
        )
    return adjustable


def _check_has_one(watched: Sequence[WatchedLayer], knobs: Iterable[str]) -> None:
    if not any(has_knob(w.layer, knob) for w in watched for knob in knobs):
        raise ValueError(
            "`layers` must be layers with a knob that is scheduled, of "
            f"{', '.join(knobs)}. Received: "
            f"layers={validation.some_of([w.name for w in watched])}. Leave it "
            "out for all that have one."
        )


def _none_has(
    knob: str, where: str, model: keras.Model, found: Sequence[WatchedLayer]
) -> ValueError:
    """The error for a knob that no layer has."""
    if not found:
        remedy = (
            "It has none yet: call it once on a batch, for example model(x[:1]), "
            "before fit."
        )
    else:
        kind = "ActivationPenalty(1e-3" if knob == "weight" else "Sparseout(0.5"
        remedy = f"Add {kind}, adjustable=True) to it, or leave `{knob}` out."
    return ValueError(
        f"`{knob}` is scheduled, so a layer {where} must have one. {remedy} Received: "
        f"model {model.name!r} with the layers "
        f"{validation.some_of([w.name for w in found])}."
    )
