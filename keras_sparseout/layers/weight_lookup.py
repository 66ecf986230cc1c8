"""Finding weights inside of a layer, by name, and what their axes are."""

import numbers
from typing import NamedTuple

import keras

from keras_sparseout.utils import validation

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
    """A weight, the layer that has it, and the ways there, see `_search`."""

    variable: keras.Variable
    owner: keras.layers.Layer
    ways: dict

    @property
    def path(self):
        """One of its paths, from the layer that was searched."""
        path, layer = self.variable.name, self.owner
        while self.ways[id(layer)]:
            layer, names = self.ways[id(layer)][0]
            path = f"{names[0]}/{path}"
        return path

    @property
    def is_quantized(self):
        """Whether quantization has made integers of it."""
        dtype = keras.backend.standardize_dtype(self.variable.dtype)
        return self.owner.quantization_mode is not None and "int" in dtype

    def is_named(self, name):
        """Whether `name` is the end of one of its paths.

        It is compared from its end, layer by layer: the paths are too many to list,
        they double with each layer that goes by two names.
        """
        found, rest = _without_end(name, self.variable.name)
        todo = [] if rest is None else [(self.owner, rest)]
        while todo and not found:
            layer, rest = todo.pop()
            for around, names in self.ways[id(layer)]:
                for end in names:
                    whole, left = _without_end(rest, end)
                    found = found or whole
                    if left is not None:
                        todo.append((around, left))
        return found


def _without_end(name, end):
    """Whether `name` is all in `end`, as 0 is in cells/0, or else what precedes it."""
    if f"/{end}".endswith(f"/{name}"):
        return True, None
    return False, name.removesuffix(f"/{end}") if name.endswith(f"/{end}") else None


def choose(layer, names, *, partly=False):
    """Returns those weights of a layer, and of layers inside it, that are named.

    Args:
        layer: Keras layer.
        names: Tuple of names, or ends of paths, such as "kernel" or
            "backward_layer/cell/kernel"; each stands for all weights that have it.
            None: those named "kernel", or else "embeddings", or else
            "depthwise_kernel" and "pointwise_kernel".
        partly: Whether weights may still be missing, see `are_made`.

    Returns:
        List of `Weight`.

    Raises:
        ValueError: if the layer has no such weight, unless `partly`.
    """
    layers, ways = _search(layer)
    variables, found = layer.weights, {}
    for owner in layers:
        # That of an outer layer takes a step for each that is inside.
        if len(found) == len(variables):
            break
        for variable in owner.weights:
            found.setdefault(id(variable), Weight(variable, owner, ways))
    weights = [found[id(variable)] for variable in variables]
    if names is None:
        for main in _MAIN:
            chosen = [w for w in weights if w.variable.name in main]
            if chosen:
                return chosen
    for name in names or (None,):
        if not partly and (name is None or not any(w.is_named(name) for w in weights)):
            raise _no_such_weight(layer, weights, names, name)
    return [w for w in weights if any(w.is_named(name) for name in names or ())]


def inside(layer):
    """Returns all layers inside of `layer`, and itself, inner ones first."""
    return _search(layer)[0]


def are_made(layer):
    """Whether a layer has all its weights, so that none is made when it is called.

    A layer without a `build` of its own has those of its children, which it may build
    in its `call`; loaded from a file it says that it is built before they are.
    """
    return all(inner.built or not has_build(inner) for inner in inside(layer))


def has_build(layer):
    """Whether a layer has a `build` of its own."""
    return type(layer).build is not keras.layers.Layer.build


def _search(layer):
    """Returns the layers as `inside`, and the ways there.

    These are a dict that has for each of them, by id, a list of the layers that it is
    in, each with the names that it goes by there.
    """
    found, ways = [], {id(layer): []}

    def visit(around):
        for child, names in _children(around):
            is_new = id(child) not in ways
            if child is not layer:
                ways.setdefault(id(child), []).append((around, names))
            if is_new:
                visit(child)
        found.append(around)

    visit(layer)
    return found, ways


def _children(layer):
    """Returns (layer, names) of those right inside of `layer`: attributes, its name."""
    children = {}
    for attribute, value in vars(layer).items():
        several = isinstance(value, (list, tuple))
        for i, child in enumerate(value if several else (value,)):
            if isinstance(child, keras.layers.Layer) and child is not layer:
                _, names = children.setdefault(id(child), (child, []))
                # An attribute is known in advance, an automatic name has a number.
                if not attribute.startswith("_"):
                    names.append(f"{attribute}/{i}" if several else attribute)
    return [(child, [*names, child.name]) for child, names in children.values()]


def _no_such_weight(layer, weights, names, name):
    received = f"Received: weights={names!r} for layer {layer.name!r}"
    if not weights:
        return ValueError(
            "`layer` must be a layer with weights. "
            f"{received}, which has none. Wrap a layer that has weights."
        )
    known = [w.variable.name for w in weights]
    # Where a name is not enough the path is shown.
    shown = [
        w.variable.name if known.count(w.variable.name) == 1 else w.path
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
    variable, owner = weight.variable, weight.owner
    rank = len(variable.shape)
    if weight.variable.name in _KERNELS:
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


def check_axis(axis):
    """Returns `axis` as a tuple of integers, or None."""
    axes = (axis,) if isinstance(axis, numbers.Integral) else axis
    if axes is None:
        return None
    if (
        not isinstance(axes, (tuple, list))
        or not axes
        or not all(isinstance(a, numbers.Integral) for a in axes)
        or any(isinstance(a, bool) for a in axes)
    ):
        raise ValueError(
            "`axis` must be an integer or a tuple of integers, the axes of the weights "
            f"along which the input units are, or None. Received: axis={axis!r}. Leave "
            "it out for a layer of Keras."
        )
    return tuple(int(a) for a in axes)
