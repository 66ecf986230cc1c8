"""Adds the gradient of a penalty to that of a layer's activations, in the step."""

from typing import Any, Literal, TypeAlias

import keras
from keras import ops

from keras_sparseout.backend import gradients, tensors, tracing
from keras_sparseout.measure import hooks
from keras_sparseout.measure.hooks import Around
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.ops import penalties
from keras_sparseout.utils.types import Tensor

Kind: TypeAlias = Literal["l1", "hoyer_square"]

# Vectors shorter than this share of the typical one are nearly silent: "hoyer_square"
# falls to 0 there, as its gradient would grow without bound.
SILENT = 0.03
# How much of the measured norms stays from one batch to the next.
_MEMORY = 0.98


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
        sample_size: How many samples of each batch are measured.

    Attributes:
        norms: Variable: how many batches were measured, moving means of the norms of
            g and of dP/dx, and of the length of a vector of x; how many units it has.
    """

    def __init__(
        self, model: keras.Model, watched: WatchedLayer, kind: Kind, sample_size: int
    ) -> None:
        self.watched = watched
        self._model = model
        self._kind = kind
        self._sample_size = sample_size
        self.norms = keras.Variable(
            ops.zeros((5,)),
            trainable=False,
            dtype="float32",
            aggregation="mean",
            name="norms",
        )

    def around(self, weight: Tensor) -> Around:
        """Returns the function to put around the layer's `call`.

        Args:
            weight: The factor of the penalty in this step.
        """
        graph = tracing.current_graph()

        def push(call: Any, *args: Any, **kwargs: Any) -> Any:
            inputs = args[0] if args else next(iter(kwargs.values()), None)
            mask = kwargs.get("mask")
            if self.watched.side == "input":
                pushed = self._pushed(inputs, inputs, mask, weight, graph)
                if args:
                    return call(pushed, *args[1:], **kwargs)
                return call(**{**kwargs, next(iter(kwargs)): pushed})
            outputs = call(*args, **kwargs)
            return self._pushed(outputs, inputs, mask, weight, graph)

        return push

    def _pushed(self, structure, inputs, mask, weight, graph):
        """Returns `structure`, whose first tensor is pushed."""
        flat = keras.tree.flatten(structure)
        x = flat[0] if flat else None
        rank = hooks.rank_of(x)
        # What can't be read can't be pushed either: `StepSums` says which layers.
        if (
            x is None
            or rank < 2
            or tensors.is_sparse(x)
            or tracing.graph_of(x) is not graph
        ):
            return structure
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
            return structure
        mask = hooks.mask_of_call(self.watched, rank, inputs, mask)

        def change(gradient):
            return self._changed(gradient, x, mask, weight)

        flat[0] = gradients.change_gradient(x, change)
        return keras.tree.pack_sequence_as(structure, flat)

    def _changed(self, gradient, x, mask, weight):
        """Returns the gradient with that of the penalty, and measures both."""
        pushing = self._gradient_of_penalty(ops.cast(x, "float32"), mask)
        # The step multiplies the loss, against underflow and for the replicas' sum.
        scale = 1 / self._model.distribute_strategy.num_replicas_in_sync
        if getattr(self._model, "optimizer", None) is not None:
            scale = self._model.optimizer.scale_loss(ops.cast(scale, "float32"))
        loss = ops.cast(gradient, "float32") / scale
        self._measure(loss, pushing, x)
        return ops.cast(
            ops.cast(gradient, "float32") + scale * weight * pushing, gradient.dtype
        )

    def _gradient_of_penalty(self, x, mask):
        moved = self.watched.is_channels_first(len(x.shape))
        typical = ops.sqrt(ops.mean(ops.sum(ops.square(x), axis=1 if moved else -1)))
        epsilon = ops.maximum(SILENT * typical, keras.config.epsilon())
        if mask is not None:
            mask = ops.reshape(
                mask, (*ops.shape(mask), *[1] * (len(x.shape) - 1 - len(mask.shape)))
            )

        def penalty(x):
            if moved:
                x = ops.moveaxis(x, 1, -1)
            return penalties.mean_penalty(x, mask, self._kind, epsilon)

        return gradients.gradient_of(penalty, x)

    def _measure(self, loss, pushing, x):
        n = self._sample_size
        x = ops.cast(x[:n], "float32")
        axis = 1 if self.watched.is_channels_first(len(x.shape)) else -1
        now = ops.stack(
            [
                _norm(loss[:n]),
                _norm(pushing[:n]),
                ops.sqrt(ops.mean(ops.sum(ops.square(x), axis=axis))),
            ]
        )
        before = ops.cast(self.norms, "float32")
        count = before[0] + 1
        kept = ops.minimum(_MEMORY, 1 - 1 / count)
        mean = kept * before[1:4] + (1 - kept) * now
        units = ops.convert_to_tensor([float(x.shape[axis] or 1)])
        measured = ops.concatenate([count[None], mean, units])
        # A step whose scaled loss overflows is skipped by the optimizer too.
        finite = ops.all(ops.isfinite(now))
        self.norms.assign(ops.where(finite, measured, before))


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))
