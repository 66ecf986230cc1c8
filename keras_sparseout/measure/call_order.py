"""Which weights of a model come before a layer, as far as the model tells."""

from collections.abc import Sequence

import keras

from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.watched_layer import WatchedLayer


def trainable_before(model: keras.Model, watched: WatchedLayer) -> bool:
    """Whether trainable weights may come before a layer's activations."""
    behind = weights_behind(model, watched)
    return any(id(v) not in behind for v in model.trainable_weights)


def weights_behind(model: keras.Model, watched: WatchedLayer) -> set[int]:
    """Returns the ids of the weights that are known to come after the activations.

    Functional and Sequential models know in which order they call their layers. In what
    a `call` of the user's own does, any weight may come before: those of the layers in
    it, in whatever order they are attributes, and those of the model itself.
    """
    others, behind = _around(model, watched.layer) or ([], [])
    if watched.side == "input":
        behind = [watched.layer, *behind]
    # A layer may be in several models.
    return _weights(behind) - _weights(others)


def _around(
    parent: keras.layers.Layer, layer: keras.layers.Layer
) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]] | None:
    """Returns what may come before `layer` in `parent`, and what comes behind it alone.

    None if `layer` is not in `parent`.
    """
    children = layer_selection.children(parent)
    for i, child in enumerate(children):
        inside = ([], []) if child is layer else _around(child, layer)
        if inside is None:
            continue
        others, behind = inside
        if _knows_order(parent):
            return [*others, *children[:i]], [*behind, *children[i + 1 :]]
        return [*others, *children[:i], *children[i + 1 :]], behind
    return None


def _knows_order(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a model that calls its layers in the order of its list."""
    if isinstance(layer, keras.Sequential):
        return True
    plain = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    # Not of a class with a `call` of its own.
    return plain and type(layer).call.__module__.split(".")[0] == "keras"


def _weights(layers: Sequence[keras.layers.Layer]) -> set[int]:
    return {id(v) for layer in layers for v in layer.weights}
