"""Finding weights inside of a layer, by name, and what their axes are."""

from typing import NamedTuple

import keras

from keras_sparseout import validation

# What a layer is taken to be about if it is not said: the first that it has.
_MAIN = (("kernel",), ("embeddings",), ("depthwise_kernel", "pointwise_kernel"))

_LAYERS = keras.layers
# Of their weights the inputs go along the axis before the last, or along the last.
_INPUTS_BEFORE_LAST = (
    *(_LAYERS.Dense, _LAYERS.Embedding),
    *(_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D),
    *(_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D),
    *(_LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D),
    *(_LAYERS.LSTMCell, _LAYERS.GRUCell, _LAYERS.SimpleRNNCell),
)
_INPUTS_LAST = (
    _LAYERS.Conv1DTranspose,
    _LAYERS.Conv2DTranspose,
    _LAYERS.Conv3DTranspose,
)
_KERNELS = (
    "kernel",
    "recurrent_kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "embeddings",
)


class Weight(NamedTuple):
    """A weight of a layer, the layer inside of it that has it, and its paths there."""

    variable: keras.Variable
    owner: keras.layers.Layer
    paths: tuple


def choose(layer, names):
    """Returns those weights of a built layer, and of layers inside it, that are named.

    Args:
        layer: Keras layer.
        names: Tuple of names, or ends of paths, such as "kernel" or
            "backward_layer/cell/kernel"; each stands for all weights that have it.
            None: those named "kernel", or else "embeddings", or else
            "depthwise_kernel" and "pointwise_kernel".

    Returns:
        List of `Weight`.

    Raises:
        ValueError: if the layer has no such weight.
    """
    found = {}
    _find(layer, ("",), found)
    weights = [found[id(variable)] for variable in layer.weights]
    if names is None:
        for main in _MAIN:
            chosen = [w for w in weights if w.variable.name in main]
            if chosen:
                return chosen
    for name in names or (None,):
        if not any(_is_named(w, name) for w in weights):
            raise _no_such_weight(layer, weights, names, name)
    return [w for w in weights if any(_is_named(w, name) for name in names)]


def _find(layer, prefixes, found):
    """Puts each weight into the dict `found`, by id; inner layers over outer ones."""
    for variable in layer.weights:
        paths = tuple(prefix + variable.name for prefix in prefixes)
        found[id(variable)] = Weight(variable, layer, paths)
    for child, names in _children(layer):
        # An attribute is known in advance, an automatic name has a number.
        inner = [f"{prefix}{name}/" for prefix in prefixes for name in names]
        _find(child, inner, found)


def _children(layer):
    """Returns (layer, names) of those right inside of `layer`: attributes, its name."""
    children = {}
    for attribute, value in vars(layer).items():
        several = isinstance(value, (list, tuple))
        for i, child in enumerate(value if several else (value,)):
            if isinstance(child, keras.layers.Layer) and child is not layer:
                _, names = children.setdefault(id(child), (child, []))
                if not attribute.startswith("_"):
                    names.append(f"{attribute}/{i}" if several else attribute)
    return [(child, [*names, child.name]) for child, names in children.values()]


def _is_named(weight, name):
    return any(f"/{path}".endswith(f"/{name}") for path in weight.paths)


def _no_such_weight(layer, weights, names, name):
    received = f"Received: weights={names!r} for layer {layer.name!r}"
    if not weights:
        if not layer.built:
            remedy = "Call it once before, or give it a `build` of one shape."
        else:
            remedy = "Wrap a layer that has weights."
        return ValueError(
            "`layer` must be a layer with weights, made when it is built. "
            f"{received}, which has none. {remedy}"
        )
    known = [w.variable.name for w in weights]
    # Where a name is not enough the path is shown.
    shown = [
        w.variable.name if known.count(w.variable.name) == 1 else w.paths[0]
        for w in weights
    ]
    remedy = f"Give for example weights=({shown[0]!r},)."
    if name is not None:
        remedy = validation.did_you_mean(name, [*known, *shown], remedy)
    return ValueError(
        "`weights` must be names of weights that the layer has. "
        f"{received} with the weights {', '.join(shown)}. {remedy}"
    )


def input_axes(weight):
    """The axes of a weight along which the input units of its layer are."""
    variable, owner, _ = weight
    rank = len(variable.shape)
    if variable.name in _KERNELS:
        if isinstance(owner, _INPUTS_BEFORE_LAST):
            return {rank - 2}
        if isinstance(owner, _INPUTS_LAST):
            return {rank - 1}
        if isinstance(owner, keras.layers.EinsumDense):
            inputs, rest = owner.equation.split(",")
            kernel, _ = rest.split("->")
            axes = {axis for axis, letter in enumerate(kernel) if letter in inputs}
            if axes:
                return axes
    raise ValueError(
        "`weights` must be kernels of layers of Keras, of which it is known along "
        "which axis the input units are, unless `axis` says it. Received: "
        f"{variable.name} of shape {tuple(variable.shape)} of "
        f"{type(owner).__name__} {owner.name!r}. "
        "Give axis=-2 if it is the one before the last."
    )


def check_names(names):
    """Returns `names` as a tuple, or None."""
    if names is None:
        return None
    given = (names,) if isinstance(names, str) else names
    if (
        not isinstance(given, (tuple, list))
        or not given
        or not all(isinstance(name, str) and name for name in given)
    ):
        raise ValueError(
            "`weights` must be a tuple of names of weights, or None. Received: "
            f'weights={names!r}. Give for example weights=("recurrent_kernel",), or '
            "leave it out for the main weights of the layer."
        )
    return tuple(given)
