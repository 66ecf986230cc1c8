"""Checks of tensors, and of the shapes of masks for them."""

from collections.abc import Sequence

import keras

from keras_sparseout.utils.types import Shape, Tensor
from keras_sparseout.utils.validation.messages import value_error
from keras_sparseout.utils.validation.numeric import is_int


def check_noise_shape(noise_shape: object) -> Shape | None:
    """Returns `noise_shape` as a tuple of positive ints and None, or None."""
    if noise_shape is None:
        return None
    if not isinstance(noise_shape, (tuple, list)) or not all(
        dim is None or (is_int(dim) and dim > 0) for dim in noise_shape
    ):
        raise value_error(
            "noise_shape",
            noise_shape,
            "a tuple of positive integers and None, where None takes the dimension of "
            "the input",
            "Give for example noise_shape=(None, 1, None) for one draw a sequence and "
            "unit.",
        )
    return tuple(None if dim is None else int(dim) for dim in noise_shape)


def check_noise_shape_fits(
    noise_shape: Shape | None, shape: Sequence[int | None]
) -> None:
    """Raises unless a mask of `noise_shape` broadcasts to an input of `shape`."""
    if not noise_shape_fits(noise_shape, shape):
        raise ValueError(
            "`noise_shape` must have one entry for each dimension of the input, each "
            "of them None, 1 or the size of that dimension. "
            f"Received: noise_shape={noise_shape!r} for an input of shape "
            f"{tuple(shape)}. Give None where each element has its own draw and 1 "
            "where all share one."
        )


def noise_shape_fits(noise_shape: Shape | None, shape: Sequence[int | None]) -> bool:
    """Whether a mask of `noise_shape`, or None, broadcasts to `shape`."""
    return noise_shape is None or (
        len(noise_shape) == len(shape)
        and all(
            noise in (None, 1) or dim is None or noise == dim
            for noise, dim in zip(noise_shape, shape, strict=True)
        )
    )


def check_has_units(
    target_fraction: float, shape: Sequence[int | None] | None, name: str = "inputs"
) -> None:
    """Raises unless all units are perturbed, or there are samples with units.

    A `shape` of None is one of unknown rank.
    """
    if target_fraction == 1:
        return
    if shape is None:
        raise ValueError(
            f"`{name}` must have a known rank if `target_fraction` is below 1, since "
            f"the rank tells what the units of a sample are. Received: {name} of "
            f"unknown rank with target_fraction={target_fraction!r}. Set the shape "
            "with tf.ensure_shape. Where a mask is drawn, `noise_shape` tells the rank "
            "too."
        )
    if len(shape) < 2:
        raise ValueError(
            f"`{name}` must have a batch dimension and the units of a sample after it "
            f"if `target_fraction` is below 1. Received: {name}.shape={tuple(shape)} "
            f"with target_fraction={target_fraction!r}. Reshape it to (samples, units),"
            " or leave `target_fraction` out."
        )


def check_floating(x_dtype: object, name: str = "x") -> str:
    """Returns the name of a dtype; raises unless it is real floating-point."""
    dtype = keras.backend.standardize_dtype(x_dtype)
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(
            f"`{name}` must be real floating-point numbers. Received: "
            f"{name}.dtype={dtype}. Convert it first, for example with "
            f'keras.ops.cast({name}, "float32").'
        )
    return dtype


def check_dense(x: Tensor, name: str = "inputs") -> None:
    """Raises if `x` is a ragged or sparse tensor, or a symbolic ragged one.

    A symbolic sparse one passes: Keras marks the dense result of `x * 2.0` as sparse.
    """
    # By the name of the class: this room does not know which back end there is.
    kind = type(x).__name__
    if kind == "RaggedTensor" or getattr(x, "ragged", False):
        remedy = f"{name}.to_tensor(), and keras.layers.Masking after it"
        kind = "ragged"
    elif kind == "SparseTensor":
        kind, remedy = "sparse", f"tf.sparse.to_dense({name})"
    else:
        return
    raise ValueError(
        f"`{name}` must be a dense tensor. Received: {name} of kind {kind}, of shape "
        f"{tuple(x.shape)}. Make it dense before, with {remedy}."
    )


def check_mask(mask: object, shape: Sequence[int | None]) -> Tensor:
    """Returns a mask of samples or timesteps as a boolean tensor.

    Args:
        mask: True where something counts.
        shape: The sizes that the mask may have, None where they are not known; the last
            ones may be missing, and 1 stands for all.

    Raises:
        ValueError: if its sizes are others, or it is made of strings.
    """
    found = keras.ops.convert_to_tensor(mask)
    dtype = keras.backend.standardize_dtype(found.dtype)
    if dtype == "string":
        raise ValueError(
            "`mask` must be boolean, True where something counts. Received: "
            f"mask.dtype={dtype}. Give one value for each timestep."
        )
    sizes = tuple(found.shape)
    if len(sizes) > len(shape) or any(
        None not in (size, wanted) and size not in (1, wanted)
        for size, wanted in zip(sizes, shape, strict=False)
    ):
        raise ValueError(
            f"`mask` must have the shape {tuple(shape)}, or the beginning of that, for "
            f"these inputs. Received: mask.shape={sizes}. Give one value for each "
            "timestep."
        )
    return keras.ops.cast(found, "bool")


def shape_of(tensor: Tensor) -> Shape | None:
    """Returns the shape of a tensor as a tuple, or None if its rank is unknown."""
    unknown = getattr(tensor.shape, "rank", 0) is None
    return None if unknown else tuple(tensor.shape)
