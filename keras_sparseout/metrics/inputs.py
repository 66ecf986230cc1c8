"""Turns the activations that a measure is given into tensors that fit."""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

# By the name of the class, since TensorFlow may not be the back end.
_REMEDIES = {
    "RaggedTensor": "Give x.to_tensor(), with a mask for the padding where there is "
    "one to give: tf.sequence_mask(x.row_lengths()).",
    "SparseTensor": "Convert it with tf.sparse.to_dense.",
    "IndexedSlices": "Give tf.convert_to_tensor(x).",
    "MaskedArray": "Give x.filled(value) with what is to count in place of the masked "
    "elements.",
    "KerasTensor": "Give the activations themselves, as model.predict(...) returns "
    "them.",
}


def real_tensor(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Returns `x` as a tensor of float32 or float64, and `restore` of its kind.

    Its rank is known.

    `restore` turns a tensor into an array, unless `x` was a tensor.
    """
    remedy = remedy_for_kind(x)
    if remedy is not None:
        raise _not_real(f"x of type {type(x).__name__}", remedy)
    restore = _same if ops.is_tensor(x) else ops.convert_to_numpy
    if not hasattr(x, "dtype"):
        x = _array(x)
    try:
        dtype = keras.backend.standardize_dtype(x.dtype)
        real = dtype != "bool" and any(kind in dtype for kind in ("float", "int"))
    except ValueError:  # Keras has no name for it, such as the dtype of objects.
        dtype, real = x.dtype, False
    if not real:
        raise _not_real(f"x.dtype={dtype}", _remedy_for(str(dtype)))
    if validation.shape_of(x) is None:
        raise ValueError(
            "`x` must have a known rank, which tells where the samples and the units "
            "are. Received: x of unknown rank. Set its shape with tf.ensure_shape."
        )
    wide = "float64" if dtype == "float64" else "float32"
    return ops.cast(ops.convert_to_tensor(x), wide), restore


def remedy_for_kind(x: object) -> str | None:
    """Returns what to give instead of an `x` that is sparse, ragged or the like."""
    if hasattr(x, "toarray"):  # A sparse matrix of SciPy.
        return "Give x.toarray()."
    return _REMEDIES.get(type(x).__name__)


def _array(x):
    """Returns numbers, and lists of them, as a numpy array."""
    try:
        array = np.asarray(x)
    except ValueError:
        raise _not_real(
            f"a {type(x).__name__} of parts of different shapes",
            "Pad them to one length, for example with keras.utils.pad_sequences.",
        ) from None
    if array.dtype == object:
        raise _not_real(f"x of type {type(x).__name__}", "Give an array or tensor.")
    return array


def _not_real(received, remedy):
    return ValueError(
        "`x` must be an array or tensor of real numbers, neither sparse nor ragged. "
        f"Received: {received}. {remedy}"
    )


def _remedy_for(dtype):
    if dtype == "bool":
        return 'Convert it with keras.ops.cast(x, "float32").'
    if "complex" in dtype:
        return "Give the magnitudes, numpy.abs(x) or keras.ops.abs(x)."
    if dtype == "object":
        return (
            'Give numpy.asarray(x.tolist(), "float32") if it holds numbers, or pad '
            "what differs in length."
        )
    return "Give the activations of a layer as numbers, for example as float32."


def along_last(x: Tensor, axis: int | None) -> Tensor:
    """Moves the vectors along `axis` to the last axis."""
    shape = tuple(x.shape)
    rank = len(shape)
    named = validation.is_int(axis) and -rank <= axis < rank
    if not named and not (axis is None and rank):
        raise ValueError(
            "`axis` must be an int that names an axis of `x`, or None for the whole of "
            f"each sample. Received: axis={axis!r} for x.shape={shape}. Give -1 for "
            "the last one."
        )
    if 0 in ((shape[1:] or shape) if axis is None else (shape[axis],)):
        raise ValueError(
            "`x` must have at least 1 element along `axis`. Received: "
            f"x.shape={shape}, axis={axis}. Give the axis of the units."
        )
    if axis is None and rank > 2:
        if None in shape[1:]:
            return ops.reshape(x, (ops.shape(x)[0], -1))
        return ops.reshape(x, (-1, math.prod(shape[1:])))
    if axis in (None, -1, rank - 1):
        return x
    # Keras takes no int of NumPy.
    return ops.moveaxis(x, int(axis), -1)


def check_batch(x: Tensor) -> None:
    """Raises unless `x` has samples and units, and no axis but the first is empty."""
    shape = tuple(x.shape)
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(
            "`x` must have the shape (samples, ..., units), of at least 1 unit and "
            f"position. Received: x.shape={shape}. Give x[None] for a single sample."
        )


def check_sample_weight(sample_weight: Tensor | None, x: Tensor) -> Tensor:
    """Returns a float64 weight for each sample of `x`, ones for None."""
    if sample_weight is None:
        return ops.ones(ops.shape(x)[:1], "float64")
    weights = ops.cast(ops.convert_to_tensor(sample_weight), "float64")
    shape = validation.shape_of(weights)
    if shape is None or len(shape) != 1 or not _begins(shape, x.shape):
        raise ValueError(
            "`sample_weight` must hold one number for each sample. Received: "
            f"sample_weight.shape={_shown(shape)} for x.shape={tuple(x.shape)}."
            " Give an array of shape (samples,)."
        )
    return weights


def check_mask(mask: Tensor, x: Tensor) -> Tensor:
    """Returns `mask` as a boolean tensor, for positions of `x` or blocks of them."""
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    shape = validation.shape_of(mask)
    if not shape or not _begins(shape, x.shape[:-1]):
        raise ValueError(
            "`mask` must have the shape of `x` without its last axis, or the beginning "
            f"of that. Received: mask.shape={_shown(shape)} for x.shape="
            f"{tuple(x.shape)}. Give for example one value for each timestep."
        )
    return mask


def expand_to(x: Tensor, rank: int) -> Tensor:
    """Adds axes of size 1 at the end of `x`, up to `rank`."""
    return ops.reshape(x, (*ops.shape(x), *[1] * (rank - len(x.shape))))


def rows(
    x: Tensor, sample_weight: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns `x` as (samples and positions, units), and the rows' float64 weights."""
    x, _ = real_tensor(x)
    check_batch(x)
    positions = len(x.shape) - 1
    weights = expand_to(check_sample_weight(sample_weight, x), positions)
    weights = ops.broadcast_to(weights, ops.shape(x)[:-1])
    if mask is not None:
        weights = ops.where(expand_to(check_mask(mask, x), positions), weights, 0.0)
    weights = ops.reshape(weights, (-1,))
    x = ops.reshape(x, (-1, ops.shape(x)[-1]))
    if sample_weight is not None or mask is not None:
        # A NaN that does not count would still give NaN, times 0.
        x = ops.where(ops.expand_dims(weights == 0, -1), 0.0, x)
    return x, weights


def _same(x):
    return x


def _shown(shape):
    return "unknown" if shape is None else shape


def _begins(shape, whole):
    """Whether `shape`, where known, is the beginning of the shape `whole`."""
    return len(shape) <= len(whole) and all(
        size is None or other is None or size == other
        for size, other in zip(shape, whole, strict=False)
    )
