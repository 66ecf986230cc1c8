"""The algebra of Sparseout, on a mask that is given or drawn."""

import math

import keras
import ml_dtypes
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.ops import masks
from keras_sparseout.utils import validation

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


def sparseout(
    x,
    rate,
    q=2.0,
    *,
    mask=None,
    noise_shape=None,
    seed=None,
    epsilon=None,
    stop_gradient=True,
):
    """Sparseout: Dropout with an exponent q that sets the sparsity of activations.

        xi = keep / (1 - rate) - 1
        n  = 1 + (|x| + epsilon)^((q - 2) / 2) xi
        y  = x n

    so that E[y] = x and Var[y] = |x|^q rate / (1 - rate) (to epsilon). q = 2 is
    Dropout; in training q < 2 makes activations sparser and q > 2 denser. For q != 2 a
    dropped unit is not 0: it becomes x (1 - |x|^((q - 2) / 2)).

    The gradient of y with respect to x is n: the multiplier is held constant, as in the
    authors' release. With q != 2 this is the gradient of no loss: in the activations it
    is that of an L_q penalty with 2/q times the coefficient that the weights see. With
    `stop_gradient=False` it is the derivative of the formula.

    Products are taken in float32 (float64 for float64 inputs) and both y and the
    gradient are saturated to the largest finite number of the dtype. Infinite and NaN
    inputs or upstream gradients stay what they are.

    Args:
        x: Tensor of real floating-point numbers, of any shape.
        rate: Drop rate in [0, 1], a number or a scalar float32 tensor. Without `mask`
            it is rounded to a multiple of 2^-16.
        q: Exponent of the noise's variance, a number >= 0 that is finite in float32, or
            a scalar float32 tensor.
        mask: Boolean, True where a unit is kept; of a shape that broadcasts to that of
            `x`. Drawn if None.
        noise_shape: Shape of the mask to draw: a tuple of one entry a dimension of `x`,
            None for its size or 1 for one draw along it. None: that of `x`.
        seed: An integer, a `keras.random.SeedGenerator`, an integer tensor of shape
            (2,), or None for Keras' global generator.
        epsilon: Added to |x|, >= 1e-30. It bounds the multiplier where x is near 0: at
            x = 0, n = 1 + epsilon^((q - 2) / 2) xi, for q = 1 up to 3e3 with the
            default, and 1e6 with 1e-12, the value of the authors' release. For q <= 1
            and activations with density at 0 (tanh, LSTM) the variance of n grows
            without bound as epsilon falls. None: `keras.config.epsilon()`.
        stop_gradient: Whether the multiplier is held constant in the gradient.

    Returns:
        Tensor of the shape and dtype of `x`.

    Raises:
        ValueError: if an argument is out of range, `noise_shape` or `mask` does not
            broadcast to `x`, `x` is not real floating-point or not dense, or `mask`
            comes together with `noise_shape` or `seed`.
        RuntimeError: if a mask is to be drawn on another backend than TensorFlow.

    Source: Khan & Stavness (2019), "Sparseout: Controlling Sparsity in Deep Networks",
        https://arxiv.org/abs/1904.08050.

    Example:

    >>> x = np.array([4.0, 4.0, 0.25, 0.25], "float32")
    >>> mask = np.array([True, False, True, False])
    >>> np.round(sparseout(x, 0.5, q=1.0, mask=mask), 3).tolist()
    [6.0, 2.0, 0.75, -0.25]
    >>> np.round(sparseout(x, 0.5, q=2.0, mask=mask), 3).tolist()
    [8.0, 0.0, 0.5, 0.0]
    """
    validation.check_dense(x, "x")
    x = ops.convert_to_tensor(x)
    validation.check_floating(x.dtype)
    rate = _check_number("rate", rate, validation.check_rate)
    if ops.is_tensor(rate):
        rate = ops.cast(rate, "float32")
    q = _check_number("q", q, validation.check_q)
    epsilon = validation.check_epsilon(epsilon)
    validation.check_bool("stop_gradient", stop_gradient)
    if mask is None:
        noise_shape = validation.check_noise_shape(noise_shape)
        validation.check_noise_shape_fits(noise_shape, x.shape)
        if ops.is_tensor(seed):
            _check_seed_tensor(seed)
        elif not isinstance(seed, keras.random.SeedGenerator):
            seed = validation.check_seed(seed)
        return draw_and_perturb(
            x,
            rate,
            q,
            masks.seed_pair(seed),
            noise_shape=noise_shape,
            epsilon=epsilon,
            stop_gradient=stop_gradient,
        )
    if noise_shape is not None or seed is not None:
        raise ValueError(
            "`mask` must come without `noise_shape` and `seed`, which are for drawing "
            f"one. Received: noise_shape={noise_shape!r}, seed={seed!r}. Leave out "
            "either `mask` or both of them."
        )
    mask = ops.convert_to_tensor(mask)
    _, x = masks.resolve(_check_mask(mask, x), x)
    return perturb(x, mask, 1 - rate, q, epsilon=epsilon, stop_gradient=stop_gradient)


def draw_and_perturb(
    x, rate, q, seed, *, noise_shape, epsilon, stop_gradient, alg="philox"
):
    """`sparseout` on a drawn mask, its arguments already checked.

    Args:
        seed: Integer tensor of shape (2,), from `masks.seed_pair`.
        alg: The generator, see `masks.bernoulli`.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    if isinstance(rate, float) and masks.quantise(rate)[0] == 0:
        return x
    shape, x = masks.resolve(noise_shape, x)
    keep, keep_prob = masks.bernoulli(shape, rate, seed, alg=alg)
    return perturb(x, keep, keep_prob, q, epsilon=epsilon, stop_gradient=stop_gradient)


def draw_multiplier(x, rate, q, seed, *, noise_shape, epsilon, alg="philox"):
    """The n of `draw_and_perturb`, of a shape that broadcasts to `x`, as a constant.

    The product with it is for the caller to take: neither it nor the gradient is
    saturated.
    """
    shape, x = masks.resolve(noise_shape, ops.stop_gradient(x))
    keep, keep_prob = masks.bernoulli(shape, rate, seed, alg=alg)
    return _multiplier(x, keep, keep_prob, q, epsilon, slope=False)


def perturb(x, keep, keep_prob, q, *, epsilon, stop_gradient):
    """x n, for a mask `keep` of which True has the probability `keep_prob`.

    Args:
        x: Floating-point tensor.
        keep: Boolean tensor that broadcasts to `x`.
        keep_prob: A float in [0, 1], or a scalar float32 tensor.
        q: A float >= 0, or a scalar tensor of float32 or float64.

    Returns:
        Tensor of the shape and dtype of `x`, with the gradient that `sparseout`
        documents.
    """
    noise = (keep, keep_prob, q)
    settings = {"epsilon": epsilon, "stop_gradient": stop_gradient}

    # The gradient is spelled out because the product is to be taken, and saturated, in
    # a wide dtype; an automatic one would multiply in float16. It keeps x and a mask of
    # one byte an element, not n: less memory, and no slower.
    @ops.custom_gradient
    def apply(x):
        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            with numerics.unchecked():
                return gradient(upstream, x, *noise, **settings)

        return value(x, *noise, **settings), grad

    with numerics.unchecked():
        return apply(x)


def value(x, keep, keep_prob, q, *, epsilon, stop_gradient):
    """What `perturb` returns, without its gradient."""
    # Held in the value too, for forward-mode derivatives.
    held = ops.stop_gradient(x) if stop_gradient else x
    return _times_n(x, held, keep, keep_prob, q, epsilon, slope=False)


def gradient(upstream, x, keep, keep_prob, q, *, epsilon, stop_gradient):
    """The gradient of `perturb` with respect to `x`."""
    held = ops.stop_gradient(x) if stop_gradient else x
    return _times_n(
        upstream, held, keep, keep_prob, q, epsilon, slope=not stop_gradient
    )


def is_cheap(q):
    """Whether the power with the exponent of `q` comes down to roots and products."""
    return isinstance(q, float) and (q == 2 or (q - 2) / 2 in _POWERS)


def _times_n(v, x, keep, keep_prob, q, epsilon, slope):
    """`v` times the n of `x`, or with `slope` the derivative of x n."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    wide = "float64" if dtype == "float64" else "float32"
    n = _multiplier(ops.cast(x, wide), keep, keep_prob, q, epsilon, slope)
    return _saturate(ops.cast(v, wide), n, dtype)


def _multiplier(x, keep, keep_prob, q, epsilon, slope):
    """n, or with `slope` the derivative of x n with respect to x; finite for finite x.

    Python numbers are constants that the formula is shortened by; tensors are not.
    """
    limit = _largest(x.dtype)
    exponent = (q - 2) / 2
    # At rate 1 nothing is kept, the scale is 0, and with 0 in the place of 1 so is n.
    if isinstance(keep_prob, float):
        one = 1.0 if keep_prob else 0.0
        scale = one / max(keep_prob, _SMALLEST)
    else:
        keep_prob = ops.cast(keep_prob, x.dtype)
        one = ops.cast(keep_prob > 0, x.dtype)
        scale = one / ops.maximum(keep_prob, _SMALLEST)
    kept = ops.cast(keep, x.dtype) * scale
    if isinstance(exponent, float):
        if exponent == 0 or (isinstance(keep_prob, float) and not keep_prob):
            return kept
    else:
        # An infinite one would be NaN times the logarithm of 1.
        exponent = ops.minimum(ops.cast(exponent, x.dtype), limit)
    a = ops.abs(x) + epsilon
    factor = _power(a, exponent)
    # Up to q = 3 the factor is below 1e30, and so is its product with the noise, but on
    # a mask that was given with a rate next to 1, closer than float32 can come.
    may_overflow = (
        not isinstance(exponent, float)
        or exponent > 0.5
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


def _bound(scale, one, limit):
    """Up to where a factor may go: infinity, which times a noise of 0 would be NaN."""
    if isinstance(scale, float):
        return limit if scale == one else math.inf
    return ops.where(scale == one, ops.convert_to_tensor(limit, scale.dtype), math.inf)


def _power(a, exponent):
    if isinstance(exponent, float) and exponent in _POWERS:
        return _POWERS[exponent](a)
    return ops.exp(exponent * ops.log(a))


def _saturate(x, n, dtype):
    """x n in `dtype`, cut to its finite range; an infinite or NaN x stays itself.

    Keeping those matters: a loss-scaling optimizer finds its overflows by them.
    """
    limit = _largest(dtype)
    product = ops.clip(x * n, -limit, limit)
    return ops.cast(ops.where(ops.isfinite(x), product, x), dtype)


def _largest(dtype):
    return float(ml_dtypes.finfo(keras.backend.standardize_dtype(dtype)).max)


def _check_number(name, value, check):
    if not ops.is_tensor(value):
        return check(value)
    if tuple(value.shape) != ():
        raise ValueError(
            f"`{name}`, where it is a tensor, must be a scalar. Received: {name} of "
            f"shape {tuple(value.shape)}. Give one number for all elements."
        )
    return value


def _check_seed_tensor(seed):
    dtype = keras.backend.standardize_dtype(seed.dtype)
    if "int" not in dtype or tuple(seed.shape) != (2,):
        raise ValueError(
            "`seed`, where it is a tensor, must be of integers and of shape (2,). "
            f"Received: seed of dtype {dtype} and shape {tuple(seed.shape)}. Make one "
            "with keras_sparseout.masks.seed_pair."
        )


def _check_mask(mask, x):
    """Returns the shape of `mask`, as long as that of `x`."""
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if dtype != "bool":
        raise ValueError(
            "`mask` must be boolean, True where a unit is kept. Received: "
            f'mask.dtype={dtype}. Convert it with keras.ops.cast(mask, "bool").'
        )
    # From the right, as broadcasting goes; a missing dimension counts as 1.
    shape = (1,) * (len(x.shape) - len(mask.shape)) + tuple(mask.shape)
    if len(shape) != len(x.shape) or any(
        None not in (size, dim) and size not in (1, dim)
        for size, dim in zip(shape, x.shape, strict=True)
    ):
        raise ValueError(
            "`mask` must have a shape that broadcasts to that of `x`. Received: "
            f"mask.shape={tuple(mask.shape)} for x.shape={tuple(x.shape)}. Give one "
            "entry for each dimension, of size 1 where all units share one draw."
        )
    return shape
