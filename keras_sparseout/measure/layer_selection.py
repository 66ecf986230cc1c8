"""Finds the layers of a model to measure, and names them."""

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, TypeAlias

import keras

from keras_sparseout.backend import tracing
from keras_sparseout.layers import nested_layers
from keras_sparseout.layers.activation_penalty import ActivationPenalty
from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.layers.target_sparsity import TargetSparsity
from keras_sparseout.measure.watched_layer import Side, WatchedLayer
from keras_sparseout.utils import validation

# One entry of the argument `layers`.
LayerChoice: TypeAlias = str | type | re.Pattern[str] | keras.layers.Layer

# These may do without their parts: an RNN calls its cell in a loop, attention calls its
# Softmax only where it has no faster way.
_WITH_PARTS = (
    keras.layers.RNN,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)
_NONLINEAR = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
)
# What is 0 before them can be 0 behind them.
_KEEP_ZEROS = (
    *(Sparseout, ActivationPenalty, TargetSparsity),
    *(keras.layers.Dropout, keras.layers.GaussianDropout),
    *(keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D),
    *(keras.layers.SpatialDropout3D, keras.layers.ActivityRegularization),
    *(keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute),
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D),
    *(keras.layers.AveragePooling3D, keras.layers.GlobalMaxPooling1D),
    *(keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D),
)
# Their output is that of their activation, which may be a layer.
_END_WITH_ACTIVATION = (
    *(keras.layers.Activation, keras.layers.Dense, keras.layers.EinsumDense),
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose),
    *(keras.layers.Conv3DTranspose, keras.layers.DepthwiseConv1D),
    *(keras.layers.DepthwiseConv2D, keras.layers.SeparableConv1D),
    keras.layers.SeparableConv2D,
)
# The names of activations that a model ends with, in Keras and in TensorFlow.
_OF_OUTPUTS = (
    *("sigmoid", "hard_sigmoid", "log_sigmoid", "softmax", "softmax_v2"),
    *("log_softmax", "log_softmax_v2", "linear"),
)


def all_layers(model: keras.Model | keras.layers.Layer) -> list[WatchedLayer]:
    """Returns every layer inside `model`, except those that stand for its inputs.

    The side is "input" for Sparseout layers: their output is noisy in training, and
    their input is the activations that they act on. It is "output" for all others.
    """
    found: list[WatchedLayer] = []
    seen, names = {id(model)}, set()

    def visit(parent: keras.layers.Layer, prefix: str, in_part: bool) -> None:
        # TimeDistributed hides the mask from the layer inside it.
        is_part = in_part or isinstance(parent, keras.layers.TimeDistributed)
        for layer in children(parent):
            if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
                continue
            seen.add(id(layer))
            path = name = prefix + layer.name
            count = 0
            while name in names:
                count += 1
                name = f"{path}_{count}"
            names.add(name)
            side: Side = "input" if isinstance(layer, Sparseout) else "output"
            found.append(WatchedLayer(name, layer, side, is_part))
            visit(layer, path + "/", in_part or isinstance(layer, _WITH_PARTS))

    visit(model, "", False)
    return found


def children(parent: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers directly inside `parent`."""
    if isinstance(parent, keras.Model):
        # Without what is not called as a layer, such as the model inside a Sequential.
        return parent.layers
    return [child for child, _ in nested_layers.children(parent)]


def select(
    model: keras.Model,
    layers: Sequence[LayerChoice] | None = None,
    where: Literal["input", "output"] | None = None,
) -> list[WatchedLayer]:
    """Returns the layers of `model` to measure.

    Args:
        model: A built Keras model.
        layers: List of layers of the model, paths ("encoder/dense"), regular
            expressions (a string must match a whole path, "block.*"; a compiled one
            may match a part of it), types (keras.layers.Conv2D), or, where no path
            matches, names of activations ("relu") or of types ("conv2d") in any case.
            None: all Sparseout layers. If there is none, all layers with a nonlinear
            activation. One that is the activation of another counts as that one.
        where: The side to measure, "input" or "output"; None for the side that
            `all_layers` gives.

    Raises:
        ValueError: if there is none, or one that `layers` names is not in the model.
    """
    found = all_layers(model)
    if where is not None:
        found = [dataclasses.replace(w, side=where) for w in found]
    if layers is not None:
        named = {w.name: w for choice in layers for w in _look_up(choice, found)}
        return list(named.values())
    watched = [w for w in found if isinstance(w.layer, Sparseout)]
    if not watched:
        # Their output is that of the layer around them, which must not count twice.
        inner = {id(_own_activation(w.layer)) for w in found}
        for parent in (model, *(w.layer for w in found)):
            if isinstance(parent, keras.Model):  # What it calls itself counts.
                inner -= {id(layer) for layer in parent.layers}
        watched = [
            w
            for w in found
            if not w.is_part and _is_nonlinear(w.layer) and id(w.layer) not in inner
        ]
    if not watched:
        raise ValueError(
            "`layers` must name the layers to watch, since the model has neither "
            "Sparseout layers nor layers with a nonlinear activation. Received: "
            f"layers=None for model {model.name!r}. Give layers=[...]. Where the "
            "activation is an operation, as keras.ops.relu, make it a layer, such as "
            "keras.layers.ReLU(). A tracker or a summary can read the layer after it, "
            'with where="input". The model has: '
            f"{validation.some_of([w.name for w in found])}."
        )
    return watched


def check_layers(
    layers: LayerChoice | Sequence[LayerChoice] | None,
) -> list[LayerChoice] | None:
    """Returns `layers` as a list for `select`, or None."""
    one = (str, type, re.Pattern, keras.layers.Layer)
    if layers is None:
        return None
    if isinstance(layers, one):
        return [layers]
    if (
        not isinstance(layers, (list, tuple))
        or not layers
        or not all(isinstance(item, one) for item in layers)
    ):
        raise ValueError(
            "`layers` must be a list of at least one layer, name, regular expression, "
            f"type or activation's name. Received: layers={layers!r}. Leave it out for "
            "the default."
        )
    return list(layers)


def has_output_activation(layer: keras.layers.Layer) -> bool:
    """Whether a layer's activation is one for the end of a model, such as softmax."""
    layer = _own_activation(layer) or layer
    if isinstance(layer, keras.layers.Softmax):
        return True
    return _activation(layer) in _OF_OUTPUTS


def is_rectifier(layer: keras.layers.Layer) -> bool:
    """Whether a layer ends with a ReLU, which has zeros of its own or can get them."""
    layer = _own_activation(layer) or layer
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    return _activation(layer) in ("relu", "relu6")


def is_rectified(model: keras.Model, watched: WatchedLayer) -> bool:
    """Whether what is measured of a layer comes from a ReLU, as far as that is known.

    A model without a graph of its layers does not tell what comes before one.
    """
    found = [model, *(w.layer for w in all_layers(model))]
    layer: object = watched.layer
    if watched.side == "input":
        layer = _before(watched.layer, found)
    while isinstance(layer, _KEEP_ZEROS):
        layer = _before(layer, found)
    return isinstance(layer, keras.layers.Layer) and is_rectifier(layer)


def _before(layer: keras.layers.Layer, found: Sequence[keras.layers.Layer]) -> object:
    """Returns what makes the input of a layer; None if no model in `found` tells."""
    for parent in found:
        if isinstance(parent, keras.Sequential) and layer in parent.layers[1:]:
            return parent.layers[parent.layers.index(layer) - 1]
    # Not by the `output` of others: a layer that is called twice has that of its first
    # call alone. No public attribute tells what made a tensor.
    history = getattr(getattr(layer, "input", None), "_keras_history", None)
    return getattr(history, "operation", None)


def unreadable(
    names: Sequence[str], model: keras.Model, *, named: bool = True
) -> ValueError:
    """The error for layers whose activations could not be read.

    Args:
        names: Names of the layers, at least one.
        model: The model that they are in.
        named: Whether the user named them; otherwise they are the defaults.
    """
    found = all_layers(model)
    rule = "be layers that the model calls, and not"
    received = f"layers={names[:8]}"
    if not named:
        rule = "be given, since the default ones are not called, or"
        received = f"layers=None, for {validation.some_of(names)}"
    return ValueError(
        f"`layers` must {rule} inside an RNN cell, a loop or a tf.function of its own, "
        "from where activations can't be read. "
        f"Received: {received}. {_remedy(names[0], found, model)} The model has: "
        f"{validation.some_of([w.name for w in found], names[0])}."
    )


def _remedy(name: str, found: list[WatchedLayer], model: keras.Model) -> str:
    around = sorted(w.name for w in found if name.startswith(w.name + "/"))
    layers = {w.name: w.layer for w in found}
    for layer in (model, *(layers[n] for n in around)):
        if tracing.is_tf_function(layer.call):
            return (
                f"Take @tf.function off the `call` of {layer.name!r}: Keras compiles "
                "the whole step."
            )
    if around:
        return f"Name what is around it, layers=[{around[0]!r}], or others."
    return "Name layers that it calls, layers=[...]."


def _is_nonlinear(layer: keras.layers.Layer) -> bool:
    own = _own_activation(layer)
    name = _activation(own or layer)
    if name is None:
        return own is not None or isinstance(layer, _NONLINEAR)
    return name != "linear"


def _own_activation(layer: keras.layers.Layer) -> keras.layers.Layer | None:
    """The layer that a layer ends with as its activation, None if there is none."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return _own_activation(layer.layer)
    own = getattr(layer, "activation", None)
    is_own = isinstance(layer, _END_WITH_ACTIVATION)
    return own if is_own and isinstance(own, keras.layers.Layer) else None


def _activation(layer: keras.layers.Layer) -> str | None:
    """The name of a layer's activation function, None if it has none."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return _activation(layer.layer)
    function = _function(layer)
    return None if function is None else getattr(function, "__name__", "")


def _function(layer: keras.layers.Layer) -> Any:
    """The attribute `activation` of a layer; an RNN without has that of its cell."""
    if isinstance(layer, keras.layers.RNN) and not hasattr(layer, "activation"):
        return _function_of_cell(layer.cell)
    return getattr(layer, "activation", None)


def _function_of_cell(cell: Any) -> Any:
    if cell is None or hasattr(cell, "activation"):
        return getattr(cell, "activation", None)
    # The output is that of the last one of stacked cells. Others are wrapped.
    inner = [*getattr(cell, "cells", []), getattr(cell, "cell", None)]
    inner.append(getattr(cell, "layer", None))
    return _function_of_cell(next((c for c in reversed(inner) if c is not None), None))


def _kinds(layer: keras.layers.Layer) -> set[str]:
    """Returns the names of a layer's type and of its activation, in lower case."""
    activation = _function(layer)
    name = getattr(activation, "__name__", type(activation).__name__)
    return {type(layer).__name__.lower(), name.lower()} - {"nonetype"}


def _look_up(choice: LayerChoice, found: list[WatchedLayer]) -> list[WatchedLayer]:
    """Returns the layers that one entry of `layers` means, at least one."""
    if isinstance(choice, type):
        chosen = [w for w in found if isinstance(w.layer, choice)]
    elif isinstance(choice, re.Pattern):
        chosen = [w for w in found if choice.search(w.name)]
    elif isinstance(choice, str):
        chosen = [w for w in found if w.name == choice]
        with contextlib.suppress(re.error):  # A name may be no regular expression.
            chosen = chosen or [w for w in found if re.fullmatch(choice, w.name)]
        alike = [w for w in found if choice.lower() in _kinds(w.layer)]
        # An RNN has the activation of its cell: choose the RNN alone.
        chosen = chosen or [w for w in alike if not w.is_part] or alike
    else:
        chosen = [w for w in found if w.layer is choice]
    return chosen or _raise_not_found(choice, found)


def _raise_not_found(choice: LayerChoice, found: list[WatchedLayer]) -> NoReturn:
    shown = choice.__name__ if isinstance(choice, type) else choice
    shown = getattr(choice, "name", getattr(choice, "pattern", shown))
    names = [w.name for w in found]
    kinds = sorted(set().union(*(_kinds(w.layer) for w in found)))
    raise ValueError(
        "`layers` must be layers of the model, their names, regular expressions that "
        "match names, types, or names of types or activations. "
        f"Received: layers={shown!r}, which is not among them. "
        + validation.did_you_mean(shown, [*names, *kinds], "Name others.")
        + f" The model has: {validation.some_of(names, shown)}."
    )
