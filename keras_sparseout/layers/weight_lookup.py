"""Finding weights by name in a layer and in the layers inside it."""

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_sparseout.layers import nested_layers
from keras_sparseout.utils import validation

# The weights to perturb if the user names none: the first of these that a layer has.
_MAIN = (("kernel",), ("embeddings",), ("depthwise_kernel", "pointwise_kernel"))

# For each layer, by id: the layers that it is directly in, and its names there.
_Parents = dict[int, list[tuple[keras.layers.Layer, list[str]]]]


class Weight(NamedTuple):
    """A weight, the innermost layer that has it, and the parents of all layers."""

    variable: keras.Variable
    owner: keras.layers.Layer
    parents: _Parents

    @property
    def path(self) -> str:
        """One of its paths, from the layer in which it was found."""
        path, layer = self.variable.name, self.owner
        while self.parents[id(layer)]:
            layer, names = self.parents[id(layer)][0]
            path = f"{names[0]}/{path}"
        return path

    @property
    def is_quantized(self) -> bool:
        """Whether `quantize` has turned it into integers."""
        dtype = keras.backend.standardize_dtype(self.variable.dtype)
        return self.owner.quantization_mode is not None and "int" in dtype

    def is_named(self, name: str) -> bool:
        """Whether one of its paths ends with `name`.

        Compares layer by layer, from the end: a list of all paths would be too long,
        since each layer with two names doubles their number.
        """
        is_found, rest = _match_end(name, self.variable.name)
        todo = [] if rest is None else [(self.owner, rest)]
        while todo and not is_found:
            layer, rest = todo.pop()
            for parent, names in self.parents[id(layer)]:
                for part in names:
                    matches, left = _match_end(rest, part)
                    is_found = is_found or matches
                    if left is not None:
                        todo.append((parent, left))
        return is_found


def _match_end(name: str, part: str) -> tuple[bool, str | None]:
    """Compares `name` with a `part` of a path.

    Returns:
        Whether `part` ends with the whole of `name`, as "cells/0" with "0"; and if not,
        but `name` ends with `part`, what comes before that in `name`, otherwise None.
    """
    if f"/{part}".endswith(f"/{name}"):
        return True, None
    return False, name.removesuffix(f"/{part}") if name.endswith(f"/{part}") else None


def find_weights(
    layer: keras.layers.Layer, names: Sequence[str] | None, *, incomplete: bool = False
) -> list[Weight]:
    """Returns the weights of a layer, and of layers inside it, that are named.

    Args:
        layer: Keras layer.
        names: Names, or ends of paths, such as "kernel" or
            "backward_layer/cell/kernel". Each stands for all weights that have it.
            None: the weights named "kernel", or if there is none, "embeddings", or if
            there is none, "depthwise_kernel" and "pointwise_kernel".
        incomplete: Whether the layer may not have all its weights yet, see
            `has_all_weights`.

    Raises:
        ValueError: if no weight has one of the names, unless `incomplete`.
    """
    weights = _all_weights(layer)
    if names is None:
        for main in _MAIN:
            found = [w for w in weights if w.variable.name in main]
            if found:
                return found
        if incomplete:
            return []
        raise _not_found(layer, weights, names, None)
    for name in names:
        if not incomplete and not any(w.is_named(name) for w in weights):
            raise _not_found(layer, weights, names, name)
    return [w for w in weights if any(w.is_named(name) for name in names)]


def _all_weights(layer: keras.layers.Layer) -> list[Weight]:
    layers, parents = _walk(layer)
    variables = layer.weights
    # A layer that Keras does not track has weights that `layer` does not have.
    wanted = {id(variable) for variable in variables}
    found: dict[int, Weight] = {}
    for owner in layers:
        # The list of an outer layer takes time for every layer inside it.
        if len(found) == len(wanted):
            break
        for variable in owner.weights:
            if id(variable) in wanted:
                found.setdefault(id(variable), Weight(variable, owner, parents))
    return [found[id(variable)] for variable in variables]


def layers_within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns all layers inside `layer`, and then `layer`: inner ones come first."""
    return _walk(layer)[0]


def has_all_weights(layer: keras.layers.Layer) -> bool:
    """Whether a layer has all its weights, so that a call makes no more of them.

    A layer without a `build` of its own has the weights of its children, which may be
    built only in its `call`. Loaded from a file it says too early that it is built.
    """
    inner = layers_within(layer)
    return all(child.built or not has_build(child) for child in inner)


def has_build(layer: keras.layers.Layer) -> bool:
    """Whether the class of a layer has a `build` of its own."""
    return type(layer).build is not keras.layers.Layer.build


def _walk(
    layer: keras.layers.Layer,
) -> tuple[list[keras.layers.Layer], _Parents]:
    """Returns the layers, as `layers_within` does, and the parents of each."""
    found: list[keras.layers.Layer] = []
    parents: _Parents = {id(layer): []}

    def visit(parent):
        for child, names in nested_layers.children(parent):
            is_new = id(child) not in parents
            if child is not layer:
                parents.setdefault(id(child), []).append((parent, names))
            if is_new:
                visit(child)
        found.append(parent)

    visit(layer)
    return found, parents


def _not_found(
    layer: keras.layers.Layer,
    weights: list[Weight],
    names: Sequence[str] | None,
    name: str | None,
) -> ValueError:
    """The error for a `name` that no weight has, or if None, without main weights."""
    received = f"Received: weights={names!r} for layer {layer.name!r}"
    if not weights:
        return ValueError(
            "`layer` must be a layer with weights. "
            f"{received}, which has none. Wrap a layer that has weights."
        )
    known = [w.variable.name for w in weights]
    # A path where several weights have the name.
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


def check_names(names: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Returns `names` as a tuple, or None; raises unless they are non-empty strings."""
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
