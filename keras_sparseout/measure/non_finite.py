"""Which layers have invalid figures, because a weight or the loss is not finite."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_sparseout.backend import variables
from keras_sparseout.measure import call_order
from keras_sparseout.measure.layer_selection import all_layers
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.types import Tensor


def invalid_layers(
    model: keras.Model, watched: Iterable[WatchedLayer], loss: Tensor | float = 0.0
) -> dict[str, str]:
    """Returns the layers whose figures would mean nothing: a dict of causes by name.

    NaN in a kernel need not show in the activations: oneDNN and XLA may turn it into 0
    together with a ReLU. The layer would seem sparse, and its units dead.

    Args:
        model: The model.
        watched: Layers of it.
        loss: The loss of the batches on which they were measured, if it is known.
    """
    if not np.all(np.isfinite(loss)):
        return {w.name: f"the loss is {np.asarray(loss).tolist()}" for w in watched}
    not_finite = _not_finite(model.variables)
    # Not those of its metrics.
    not_finite &= set(map(id, model.weights))
    if not not_finite:
        return {}
    found, causes = all_layers(model), {}
    for w in watched:
        before = not_finite - call_order.weights_behind(model, w)
        culprit = _culprit(w, found, before)
        if before and culprit is None:
            culprit = model.name
        if culprit is not None:
            causes[w.name] = f"the weights of layer {culprit!r} are not finite"
    return causes


def _culprit(
    w: WatchedLayer, found: Sequence[WatchedLayer], not_finite: set[int]
) -> str | None:
    """The first layer that has weights among `not_finite`, by name; None for none."""
    for v in found:
        # A layer around `w` has the weights of the layers in it too, which come later.
        is_around = w.name.startswith(v.name + "/")
        weights = _weights_of_its_own(v.layer) if is_around else v.layer.weights
        if not_finite.intersection(map(id, weights)):
            return v.name
    return None


def _weights_of_its_own(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights of a layer without those of the layers inside it."""
    inner = {id(v) for w in all_layers(layer) for v in w.layer.weights}
    return [v for v in layer.weights if id(v) not in inner]


def _not_finite(found: Iterable[keras.Variable]) -> set[int]:
    """The ids of those variables with an element that is not finite."""
    floating = [v for v in found if keras.backend.is_float_dtype(v.dtype)]
    finite = variables.are_finite(floating)
    return {id(v) for v, known in zip(floating, finite, strict=True) if not known}
