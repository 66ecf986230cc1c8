"""The algebra of Sparseout, on a mask that is given or drawn."""

import keras
import ml_dtypes
from keras import ops

from keras_sparseout import masks, validation

# No pow: these exponents (q - 2) / 2 come down to roots and products.
_POWERS = {
    -1.0: lambda a: 1 / a,
    -0.5: ops.rsqrt,
    -0.25: lambda a: ops.rsqrt(ops.sqrt(a)),
    0.25: lambda a: ops.sqrt(ops.sqrt(a)),
    0.5: ops.sqrt,
    1.0: lambda a: a,
}


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
        q: Exponent of the noise's variance, a finite number >= 0, or a scalar float32
            tensor.
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
            broadcast to `x`, `x` is not real floating-point, or `mask` comes together
            with `noise_shape` or `seed`.
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
    x = ops.convert_to_tensor(x)
    validation.check_floating(x.dtype)
    rate = _check_number("rate", rate, validation.check_rate)
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
    return _multiplier(x, keep, keep_prob, (q - 2) / 2, epsilon, slope=False)


def perturb(x, keep, keep_prob, q, *, epsilon, stop_gradient):
    """x n, for a mask `keep` of which True has the probability `keep_prob`.

    Args:
        x: Floating-point tensor.
        keep: Boolean tensor that broadcasts to `x`.
        keep_prob: A float in [0, 1], or a scalar float32 tensor.
        q: A float >= 0, or a scalar float32 tensor.

    Returns:
        Tensor of the shape and dtype of `x`, with the gradient that `sparseout`
        documents.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    wide = "float64" if dtype == "float64" else "float32"
    exponent = _cast_unless_float((q - 2) / 2, wide)
    keep_prob = _cast_unless_float(keep_prob, wide)

    def times_n(v, x, slope=False):
        n = _multiplier(ops.cast(x, wide), keep, keep_prob, exponent, epsilon, slope)
        return _saturate(ops.cast(v, wide), n, dtype)

    # Held in the value too, for forward-mode derivatives.
    def held(x):
        return ops.stop_gradient(x) if stop_gradient else x

    # The gradient is spelled out because the product is to be taken, and saturated, in
    # `wide`; an automatic one would multiply in float16. It keeps x and a mask of one
    # byte an element, not n: less memory, and no slower.
    @ops.custom_gradient
    def apply(x):
        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return times_n(upstream, held(x), slope=not stop_gradient)

        return times_n(x, held(x)), grad

    return apply(x)


def _multiplier(x, keep, keep_prob, exponent, epsilon, slope):
    """n, or with `slope` the derivative of x n with respect to x; finite for finite x.

    Python numbers are constants that the formula is shortened by; tensors are not.
    """
    fixed = isinstance(keep_prob, float) and isinstance(exponent, float)
    limit = _largest(x.dtype)
    if isinstance(keep_prob, float):
        scale = 1 / keep_prob if keep_prob else 0.0
    else:
        # At rate 1 nothing is kept, and 0 * inf would be NaN.
        scale = ops.where(keep_prob > 0, 1 / keep_prob, 0.0)
    kept = ops.cast(keep, x.dtype) * scale
    if fixed and (exponent == 0 or keep_prob == 0):
        return kept
    a = ops.abs(x) + epsilon
    factor = _power(a, exponent)
    # Up to q = 3 the factor is below 1e30, and so is its product with the noise, but on
    # a mask that was given with a rate next to 1.
    may_overflow = not fixed or exponent > 0.5 or keep_prob < 1e-6
    if may_overflow:
        factor = ops.minimum(factor, limit)
    noise = factor * (kept - 1)
    if slope:
        noise = noise * (1 + exponent * (ops.abs(x) / a))
    n = 1 + noise
    if may_overflow:
        n = ops.clip(n, -limit, limit)
    if not isinstance(keep_prob, float):
        n = ops.where(keep_prob > 0, n, 0.0)
    return n


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


def _cast_unless_float(value, dtype):
    return value if isinstance(value, float) else ops.cast(value, dtype)


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
