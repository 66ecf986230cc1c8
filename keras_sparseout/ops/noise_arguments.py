"""Checks of the arguments of `sparseout`."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sparseout.ops import masks
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor


def check_number(
    name: str, value: Any, check: Callable[[Any], float]
) -> float | Tensor:
    """Returns a number as `check` does, or a scalar tensor; raises for others."""
    return masks.check_scalar(name, value) if ops.is_tensor(value) else check(value)


def check_seed(seed: Any) -> Any:
    """Returns what `masks.seed_pair` takes; it checks tensors itself."""
    if isinstance(seed, keras.random.SeedGenerator) or ops.is_tensor(seed):
        return seed
    return validation.check_seed(seed)


def check_not_symbolic(name: str, value: Any) -> None:
    """Raises if `value` is a tensor of a model that is being made."""
    if isinstance(value, keras.KerasTensor):
        raise ValueError(
            f"`{name}` must be an array or tensor, with values. Received: {name} of "
            f"type KerasTensor, of shape {tuple(value.shape)}. Put the layer "
            "keras_sparseout.Sparseout into the model, or call this in the `call` of a "
            "layer of your own."
        )


def check_boolean(mask: Tensor) -> None:
    """Raises unless `mask` is boolean."""
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if dtype != "bool":
        raise ValueError(
            "`mask` must be boolean, True where a unit is kept. Received: "
            f'mask.dtype={dtype}. Convert it with keras.ops.cast(mask, "bool").'
        )


def shape_of_mask(mask: Tensor, x: Tensor) -> Shape:
    """Returns the shape of `mask`, with as many dimensions as `x`.

    Raises:
        ValueError: if it does not broadcast to that of `x`.
    """
    # From the right, as broadcasting goes; a missing dimension counts as 1.
    shape = (1,) * (len(x.shape) - len(mask.shape)) + tuple(mask.shape)
    if len(shape) != len(x.shape) or any(
        None not in (size, dim) and size not in (1, dim)
        for size, dim in zip(shape, x.shape, strict=True)
    ):
        raise ValueError(
            "`mask` must have a shape that broadcasts to the shape of `x`. Received: "
            f"mask.shape={tuple(mask.shape)} for x.shape={tuple(x.shape)}. Give one "
            "entry for each dimension, of size 1 where all units share one draw."
        )
    return shape
