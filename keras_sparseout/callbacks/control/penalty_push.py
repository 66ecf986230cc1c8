"""Adds the gradient of a penalty to that of a layer's activations, in the step."""

import functools
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import gradients, tensors, tracing
from keras_sparseout.measure import call_arguments, hooks
from keras_sparseout.measure.hooks import Around
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.ops import penalties
from keras_sparseout.utils.types import Tensor

Kind: TypeAlias = Literal["l1", "hoyer_square"]

# Vectors shorter than this share of the typical one are nearly silent: "hoyer_square"
# falls to 0 there, as its gradient would grow without bound.
SILENT = 0.03


class PenaltyPush:
    """Pushes the activations of one layer, and measures how hard the loss pushes.

    The gradient of the loss with respect to the activations x becomes

        g + weight * dP/dx

    as if weight * P(x) were a part of the loss, with P the mean penalty of the vectors
    of x. The loss that `fit` shows stays that of the user.

    Args:
        model: The model that is trained.
        watched: The layer.
        kind: Which penalty.
        sample_size: How many samples of each batch are measured, spread over it.
        measured: Variable to which each step adds, in the layer's column: 1, the norms
            of g and of dP/dx, and the number of units of a vector of x.
        column: The number of the column.

    Attributes:
        refused: What the layer has in place of what can be pushed; empty if that can.
        calls: How often it was called since this was set to 0.
    """

    def __init__(
        self,
        model: keras.Model,
        watched: WatchedLayer,
        kind: Kind,
        sample_size: int,
        measured: keras.Variable,
        column: int,
    ) -> None:
        self.watched = watched
        self._model = model
        self._kind = kind
        self._sample_size = sample_size
        self._measured = measured
        self._column = column
        self.refused = ""
        self.calls = 0

    def around(self, weight: Tensor) -> Around:
        """Returns the function to put around the layer's `call`.

        Args:
            weight: The factor of the penalty in this step.
        """
        graph = tracing.current_graph()

        def push(call: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            layer = self.watched.layer
            inputs = call_arguments.first(layer, args, kwargs)
            mask = hooks.mask_for_call(layer, args, kwargs)
            if self.watched.side == "input":
                pushed = self._pushed(inputs, inputs, mask, weight, graph)
                args, kwargs = call_arguments.with_first(
                    layer, lambda _: pushed, args, kwargs
                )
                return call(*args, **kwargs)
            outputs = call(*args, **kwargs)
            return self._pushed(outputs, inputs, mask, weight, graph)

        return push

    def _pushed(self, structure, inputs, mask, weight, graph):
        """Returns `structure`, whose first tensor is pushed."""
        flat = keras.tree.flatten(structure)
        x = flat[0] if flat else None
        rank = hooks.rank_of(x)
        # What can't be read can't be pushed either: `StepSums` says which layers.
        if rank < 2 or tracing.graph_of(x) is not graph:
            return structure
        self.refused = _refusal(x)
        if self.refused:
            return structure
        mask = hooks.mask_of_call(self.watched, x, inputs, mask)
        axis = self.watched.units_axis(rank, mask)
        settings = self._kind, axis, self._sample_size
        # Without this object: what changes a gradient is kept for ever.
        measured = self._measured, self._column
        change = functools.partial(_changed, measured, settings)
        masks, scale = () if mask is None else (mask,), self._scale()
        replicas = self._model.distribute_strategy.num_replicas_in_sync
        asked = {"error": self._twice(), "shared": replicas > 1}
        pushed = gradients.change_gradient(x, change, weight, scale, *masks, **asked)
        flat[0] = hooks.with_mask_of(x, pushed)
        return keras.tree.pack_sequence_as(structure, flat)

    def _twice(self):
        """What is said where a gradient of a gradient goes through the layer."""
        name = self.watched.name
        return (
            "`layers` must be layers through which the training step takes no gradient "
            "of a gradient, as for a gradient penalty or a differential equation: the "
            f"push would change the inner one. Received: layers with {name}. Name "
            "others, layers=[...], or put ActivationPenalty(0.0, adjustable=True) "
            f"behind {name}, whose weight the controller moves instead. Call `gradient`"
            " of a persistent tape outside of its `with`, which would record it."
        )

    def _scale(self):
        """What the step multiplies the loss by: for replicas, against underflow."""
        scale = 1 / self._model.distribute_strategy.num_replicas_in_sync
        scale = ops.convert_to_tensor(scale, "float32")
        if getattr(self._model, "optimizer", None) is not None:
            scale = self._model.optimizer.scale_loss(scale)
        return scale


def _changed(measured, settings, gradient, x, weight, scale, mask=None):
    """Returns the gradient with that of the penalty, and measures both.

    Args:
        measured: The variable for what is measured, and the column there.
        settings: The kind of penalty, the axis of the units, and how many samples are
            measured.
        gradient: The gradient of the loss.
        x: The activations.
        weight: The factor of the penalty.
        scale: What the loss was multiplied by.
        mask: The mask of timesteps, or None.
    """
    kind, axis, n = settings
    dtype = keras.backend.standardize_dtype(x.dtype)
    wide = "float64" if dtype == "float64" else "float32"
    x, loss = ops.cast(x, wide), ops.cast(gradient, wide)
    pushing, vectors = penalties.mean_penalty_gradient(x, mask, kind, SILENT, axis)
    scale, units = ops.cast(scale, wide), float(x.shape[axis] or 1)
    rows = _rows(x, n)
    norms = _norm(ops.take(loss, rows, axis=0)) / scale
    norms = norms, _norm(ops.take(pushing, rows, axis=0)) / vectors
    _measure(measured, [1.0, *norms, units])
    factor = scale * ops.cast(weight, wide) / vectors
    return ops.cast(loss + factor * pushing, gradient.dtype)


def _rows(x, n):
    """Returns the numbers of `n` rows of `x`, one from each n-th of it; or all.

    Some rows may have no loss, such as samples without a label. They may be the first
    ones, or each second one.
    """
    # With float64 as Keras' own type, it makes int64 of an int32 and a Python number.
    size = ops.cast(ops.shape(x)[0], "int32")
    number = ops.minimum(size, np.int32(min(n, 2**31 - 1)))
    parts = ops.maximum(number, np.int32(1))
    step, rest = ops.floor_divide(size, parts), ops.mod(size, parts)
    part = ops.arange(number, dtype="int32")
    table = _places(min(n, _MOST_PLACES))
    places = ops.mod(part, np.int32(len(table)))
    within = ops.take(ops.convert_to_tensor(table), places)
    # The first parts have one more.
    start = part * step + ops.minimum(part, rest)
    return start + ops.mod(within, step + ops.cast(part < rest, "int32"))


# `sample_size` may be any number that is meant as all samples.
_MOST_PLACES = 4096


@functools.lru_cache(maxsize=8)
def _places(n):
    return np.random.default_rng(0).integers(2**31, size=n, dtype="int32")


def _measure(measured, numbers):
    variable, column = measured
    now = ops.stack([ops.cast(number, "float32") for number in numbers])
    own = np.arange(variable.shape[1]) == column
    # Not a product: another layer's column must not get NaN.
    variable.assign_add(ops.where(own, now[:, None], 0.0))


def _refusal(x):
    """Why a tensor can't be pushed; empty if it can."""
    if tensors.is_sparse(x):
        return "a sparse tensor"
    dtype = keras.backend.standardize_dtype(x.dtype)
    return "" if keras.backend.is_float_dtype(dtype) else f"a tensor of {dtype}"


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))
