"""A TargetSparsity layer as operations of Keras, with its threshold as a constant."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import variables
from keras_sparseout.layers.target_sparsity import TargetSparsity
from keras_sparseout.models.steps import Change
from keras_sparseout.utils.types import Tensor


def change_of(layer: TargetSparsity) -> Change:
    """Returns what takes the place of a layer: operations, or nothing if it cuts none.

    The operations compute what `ops.threshold` does, bit for bit.
    """
    if not layer.built:
        # It was never called, so its threshold is 0.
        return Change(layer, is_removed=True)
    config, dtype = layer.get_config(), layer.compute_dtype
    t = variables.to_numpy(layer.threshold)
    centre = None
    if config["centre"] is not None:
        centre = variables.to_numpy(layer.centre_value)
    shifts = centre is not None and not config["add_back"] and bool(np.any(centre))
    if not np.any(t) and not shifts:
        return Change(layer, is_removed=True)
    function = functools.partial(
        _cut,
        dtype=dtype,
        t=_constant(t, dtype),
        centre=None if centre is None else _constant(centre, dtype),
        add_back=config["add_back"],
        soft=config["soft"],
    )
    return Change(layer, function=function)


def as_layer(change: Change) -> keras.layers.Layer:
    """Returns a layer that computes the operations of `change` and passes masks on.

    An operation drops the mask of its input. That matters where Keras has not noted the
    mask in the calls: inside a model, or a layer, that is called with one.
    """
    shape = (change.layer.get_build_config() or {}).get("input_shape")
    if change.function is None or shape is None:
        raise ValueError(
            "`model` must be built, so that its shapes are known. Received: model with "
            f"{change.layer.name!r}, which was never called. Call the model once."
        )
    # Only the number of units is fixed.
    shape = [None] * (len(shape) - 1) + [*shape[-1:]]
    x = keras.Input(batch_shape=shape, dtype=change.layer.compute_dtype)
    return keras.layers.Activation(
        keras.Model(x, change.function(x)),
        name=change.layer.name,
        dtype=change.layer.dtype_policy,
    )


def makes_masks(layer: keras.layers.Layer) -> bool:
    """Whether a layer may give its outputs a mask that its inputs did not have."""
    if isinstance(layer, keras.layers.Embedding):
        return layer.mask_zero
    if isinstance(layer, keras.layers.Masking):
        return True
    is_own = not type(layer).__module__.startswith(("keras.", "keras_sparseout."))
    return is_own and type(layer).compute_mask is not keras.layers.Layer.compute_mask


def _constant(value: Tensor, dtype: str) -> float | np.ndarray:
    """Returns a number or array that a file can hold, with a value that `dtype` has."""
    rounded = variables.to_numpy(ops.cast(value, dtype))
    # Files hold no arrays of bfloat16.
    kept = np.asarray(rounded).astype("float32" if dtype == "bfloat16" else dtype)
    return kept if kept.ndim else float(kept)


def _cut(
    x: Tensor, *, dtype: str, t: Any, centre: Any, add_back: bool, soft: bool
) -> Tensor:
    x = _as(x, dtype)
    # A difference of an array in float32 is rounded to bfloat16, as one in bfloat16 is.
    distance = x if centre is None else _as(x - centre, dtype)
    kept = x if add_back else distance
    if soft:
        kept = _as(kept - ops.sign(distance) * t, dtype)
    cut = 0.0 if centre is None or not add_back else centre
    return _as(ops.where(ops.abs(distance) <= t, cut, kept), dtype)


def _as(x, dtype):
    return (
        x if keras.backend.standardize_dtype(x.dtype) == dtype else ops.cast(x, dtype)
    )
