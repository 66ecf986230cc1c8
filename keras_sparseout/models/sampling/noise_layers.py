"""Finds the layers of a model that add noise, and sets what they are called with."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from keras_sparseout.layers import nested_layers
from keras_sparseout.layers.per_sequence_noise import PerSequenceNoise, is_dropout_cell
from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.measure import call_arguments, layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils import validation

_ADD_NOISE = (
    # SpatialDropout of each rank is among them.
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    Sparseout,
    # Bridgeout, Shakeout and SparseoutCellWrapper.
    PerSequenceNoise,
)
# On a GPU these apply the dropout of their cell themselves.
_WITH_FAST_PATH = (keras.layers.LSTM, keras.layers.GRU)


def find(
    model: keras.Model, layers: Sequence[LayerChoice] | None
) -> tuple[list[WatchedLayer], list[keras.layers.Layer]]:
    """Returns the noise layers of a model, and those that stay in inference in them.

    Args:
        model: A built Keras model.
        layers: Which layers are to be noisy, from `layer_selection.check_layers`: they
            and all noise layers inside them. None: every layer that is known to add
            noise.

    Raises:
        ValueError: if there is none, or one in `layers` can't be noisy.
    """
    every = layer_selection.all_layers(model)
    if layers is None:
        noisy = [w for w in every if adds_noise(w.layer)]
        if not noisy:
            raise _no_noise(model, every)
    else:
        noisy = _named(model, layers, every)
    ids = {id(w.layer) for w in noisy}
    within = {id(i.layer): i.layer for w in noisy for i in _inside(w.layer)}
    return noisy, [layer for key, layer in within.items() if key not in ids]


def adds_noise(layer: keras.layers.Layer) -> bool:
    """Whether `layer` is of a kind that is known to add noise in training."""
    if isinstance(layer, _ADD_NOISE):
        return True
    if isinstance(layer, _WITH_FAST_PATH):
        return adds_noise(layer.cell)
    if isinstance(layer, keras.layers.Attention) or is_dropout_cell(layer):
        rates = (getattr(layer, n, 0) for n in ("dropout", "recurrent_dropout"))
        return any(rate > 0 for rate in rates)
    return False


def training_in(
    layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Returns the `training` that `layer.call` was called with.

    A layer that does not take it has one mode, in which it may add noise.
    """
    if not takes_training(layer):
        return True
    place = call_arguments.place_of(layer, "training")
    if "training" in kwargs:
        return bool(kwargs["training"])
    if place is not None and place < len(args):
        return bool(args[place])
    default = inspect.signature(type(layer).call).parameters["training"].default
    return default is not inspect.Parameter.empty and bool(default)


def with_training(
    layer: keras.layers.Layer,
    training: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call of `layer.call`, with another `training`."""
    if not takes_training(layer):
        return args, kwargs
    place = call_arguments.place_of(layer, "training")
    if place is not None and place < len(args):
        return (*args[:place], training, *args[place + 1 :]), kwargs
    return args, {**kwargs, "training": training}


def takes_training(layer: keras.layers.Layer) -> bool:
    """Whether a layer's `call` has the argument `training`."""
    return "training" in inspect.signature(type(layer).call).parameters


def _inside(layer: keras.layers.Layer) -> list[WatchedLayer]:
    return layer_selection.all_layers(layer)


def _named(
    model: keras.Model, layers: Sequence[LayerChoice], every: list[WatchedLayer]
) -> list[WatchedLayer]:
    """Returns the layers that the user named, and the noise layers inside them."""
    chosen = layer_selection.select(model, layers)
    ids = set()
    for w in chosen:
        inner = [i.layer for i in _inside(w.layer) if adds_noise(i.layer)]
        own = [w.layer] if _may_add_noise(w.layer) else []
        if not own and not inner:
            raise ValueError(
                "`layers` must be layers that add noise when their `call` gets "
                "training=True, or have such a layer inside. Received: layers with "
                f"{w.name!r}, a {type(w.layer).__name__}. Leave it out."
            )
        ids |= {id(layer) for layer in (*own, *inner)}
    return [
        w
        for w in every
        if id(w.layer) in ids
        or (isinstance(w.layer, _WITH_FAST_PATH) and id(w.layer.cell) in ids)
    ]


def _may_add_noise(layer: keras.layers.Layer) -> bool:
    """Whether a layer may add noise with training=True: all but those known not to."""
    is_known = type(layer).__module__.split(".")[0] in ("keras", "keras_sparseout")
    if is_known and not nested_layers.held_by(layer, keras.random.SeedGenerator):
        return False
    return takes_training(layer)


def _no_noise(model: keras.Model, every: list[WatchedLayer]) -> ValueError:
    names = validation.some_of([w.name for w in every])
    return ValueError(
        "`model` must have a noise layer, such as keras.layers.Dropout or Sparseout, "
        "or dropout above 0 in a recurrent or attention layer. Received: "
        f"model={model.name!r} with {names}. If a layer of your own adds noise, name "
        "it: layers=[...]."
    )
