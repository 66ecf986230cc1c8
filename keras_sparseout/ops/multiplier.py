"""The multiplier n of Sparseout, y = x n, and products with it that stay finite."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import ml_dtypes
import numpy as np
from keras import ops

from keras_sparseout.utils.types import Tensor

# No pow: these exponents (q - 2) / 2 come down to roots and products.
_POWERS = {
    -1.0: lambda a: 1 / a,
    -0.5: ops.rsqrt,
    -0.25: lambda a: ops.rsqrt(ops.sqrt(a)),
    0.25: lambda a: ops.sqrt(ops.sqrt(a)),
    0.5: ops.sqrt,
    1.0: lambda a: a,
}

# Below every probability that a mask can have.
_SMALLEST = 1e-30

Power: TypeAlias = Callable[[Tensor, float | Tensor], Tensor]
Finish: TypeAlias = Callable[[Tensor, Tensor, str], Tensor]


def is_cheap(q: float | Tensor | None) -> bool:
    """Whether the power with the exponent of `q` comes down to roots and products."""
    return isinstance(q, float) and (q == 2 or (q - 2) / 2 in _POWERS)


def power(a: Tensor, exponent: float | Tensor) -> Tensor:
    """a^exponent in two passes."""
    return ops.exp(exponent * ops.log(a))


def multiplier(
    x: Tensor,
    keep: Tensor,
    keep_prob: float | Tensor,
    q: float | Tensor,
    epsilon: float,
    *,
    slope: bool = False,
    power: Power = power,
) -> Tensor:
    """n, or with `slope` the derivative of x n with respect to x; finite for finite x.

    Python numbers shorten the formula, since they are constants; tensors do not.

    Args:
        x: Floating-point tensor in the dtype of the result. For q = 2 only its dtype
            counts.
        keep: Boolean tensor that broadcasts to `x`.
        keep_prob: The probability of True in `keep`, a float or a scalar tensor.
        q: A float, or a scalar tensor.
        epsilon: Added to |x|.
        slope: Whether to return the derivative.
        power: What computes powers that do not come down to roots and products.
    """
    limit = largest(x.dtype)
    exponent = (q - 2) / 2
    one, scale = _one_and_scale(keep_prob, x.dtype)
    kept = ops.cast(keep, x.dtype) * scale
    if isinstance(exponent, float):
        if exponent == 0 or (isinstance(keep_prob, float) and not keep_prob):
            return kept
    else:
        # An infinite one would be NaN times the logarithm of 1.
        exponent = ops.minimum(ops.cast(exponent, x.dtype), limit)
    a = ops.abs(x) + epsilon
    if isinstance(exponent, float) and exponent in _POWERS:
        factor = _POWERS[exponent](a)
    else:
        factor = power(a, exponent)
    # With q from 0.2 to 3 the factor is below 1e27, and kept below 2^32 times that. The
    # exception is a given mask with a rate next to 1, closer than a drawn one can come.
    may_overflow = (
        not isinstance(exponent, float)
        or not -0.9 <= exponent <= 0.5
        or (isinstance(keep_prob, float) and keep_prob < 1e-6)
    )
    if may_overflow:
        factor = ops.minimum(factor, _bound(scale, one, limit))
    noise = factor * (kept - one)
    if slope:
        if may_overflow:
            # The slope may be 0, and infinity times 0 is NaN.
            noise = ops.clip(noise, -limit, limit)
        noise = noise * (1 + exponent * (ops.abs(x) / a))
    n = one + noise
    return ops.clip(n, -limit, limit) if may_overflow else n


def _one_and_scale(keep_prob, dtype):
    """Returns 1 and 1 / keep_prob, at rate 1 zeros in their place, and so n is 0."""
    if isinstance(keep_prob, float):
        one = 1.0 if keep_prob else 0.0
        # Rounded as products round it: next to rate 0 it is 1 in float32.
        dtype = keras.backend.standardize_dtype(dtype)
        return one, float(np.asarray(one / max(keep_prob, _SMALLEST), dtype))
    keep_prob = ops.cast(keep_prob, dtype)
    one = ops.cast(keep_prob > 0, dtype)
    return one, one / ops.maximum(keep_prob, _SMALLEST)


def _bound(scale, one, limit):
    """The largest factor: infinity, unless the noise is 0, since that gives NaN."""
    if isinstance(scale, float):
        return limit if scale == one else math.inf
    return ops.where(scale == one, ops.convert_to_tensor(limit, scale.dtype), math.inf)


def saturate(product: Tensor, v: Tensor, dtype: str) -> Tensor:
    """`product` in `dtype`, cut to its finite range; an infinite or NaN `v` stays.

    A loss-scaling optimizer finds its overflows by the infinities and NaN.

    Args:
        product: A multiple of `v`.
        v: Tensor of the dtype of `product`.
        dtype: Name of the dtype of the result.
    """
    limit = largest(dtype)
    product = ops.clip(product, -limit, limit)
    return ops.cast(ops.where(ops.isfinite(v), product, v), dtype)


def times_n(
    v: Tensor,
    x: Tensor,
    keep: Tensor,
    keep_prob: float | Tensor,
    q: float | Tensor,
    *,
    limit: Tensor | None = None,
    finish: Finish = saturate,
    **settings: Any,
) -> Tensor:
    """Multiplies `v`, which is `x` or an upstream gradient, by the n of `x`.

    Args:
        v: Tensor of the shape and dtype of the result.
        x: Tensor of the same shape. For q = 2 and without a limit it is not used.
        limit: Numbers that broadcast to `x`: where |x| is not below them, n is 1. None:
            there is no limit.
        finish: What saturates the product.
        **settings: `epsilon`, and what else `multiplier` takes. The other arguments are
            as there.
    """
    dtype = keras.backend.standardize_dtype(v.dtype)
    wide = "float64" if dtype == "float64" else "float32"
    x = ops.cast(x, wide)
    n = multiplier(x, keep, keep_prob, q, **settings)
    if limit is not None:
        n = ops.where(ops.abs(x) < limit, n, ops.ones((), wide))
    v = ops.cast(v, wide)
    return finish(v * n, v, dtype)


def largest(dtype: str) -> float:
    """The largest finite number of a dtype."""
    return float(ml_dtypes.finfo(keras.backend.standardize_dtype(dtype)).max)
