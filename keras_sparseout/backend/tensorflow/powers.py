"""Powers for compiled functions, which are limited by arithmetic and not by memory."""

import tensorflow as tf

from keras_sparseout.utils.types import Tensor

# Minimax polynomials, the highest power first.
# log2(1 + f) / f for 1 + f from sqrt(1/2) to sqrt(2). Error of the logarithm: 3.3e-7.
_LOG2 = (
    *(0.17063434422016144, -0.27269789576530457, 0.29726260900497437),
    *(-0.3589618504047394, 0.48046502470970154, -0.7213758826255798),
    1.442699670791626,
)
# (2^r - 1) / r for |r| up to 1/2. Error of 2^r: 1.4e-7.
_EXP2 = (
    *(0.001326472731307149, 0.009671512991189957, 0.05550733581185341),
    *(0.24022242426872253, 0.6931470036506653),
)
_SQRT_HALF_BITS = 0x3F3504F3
_MANTISSA_BITS = 23


def fused_power(a: Tensor, exponent: float | Tensor) -> Tensor:
    """a^exponent in one pass of a compiled function, for `a` from 1e-30.

    In float32 it is 2^(exponent log2(a)): the logarithm from the bits of `a`, the power
    of two from the bits of the result, and a polynomial for the rest of both. It is as
    exact as exp(exponent log(a)), and takes two thirds of the time. Without a compiler
    each of its 30 operations would be a pass over all elements.

    Args:
        a: Floating-point tensor.
        exponent: A float, or a scalar tensor of the dtype of `a`.

    Returns:
        Tensor of the shape and dtype of `a`: infinity above its range, and at least
        1e-38. In float32 infinity counts as 2^128, and NaN as a number near it.
    """
    if a.dtype != tf.float32:
        return tf.exp(exponent * tf.math.log(a))

    # In this graph, where gradients of any order find them.
    a, exponent = tf.identity(a), tf.cast(exponent, a.dtype)

    # Bits have no gradient of their own.
    @tf.custom_gradient
    def power(a):
        result = _exp2(exponent * _log2(a))
        return (
            result,
            lambda upstream: upstream * exponent * fused_power(a, exponent - 1),
        )

    return power(a)


def _log2(a):
    bits = tf.bitcast(a, tf.int32)
    whole = tf.bitwise.right_shift(bits - _SQRT_HALF_BITS, _MANTISSA_BITS)
    f = tf.bitcast(bits - tf.bitwise.left_shift(whole, _MANTISSA_BITS), tf.float32) - 1
    return _polynomial(f, _LOG2) * f + tf.cast(whole, tf.float32)


def _exp2(t):
    # 128 gives the bits of infinity, and -126 those of the smallest normal number.
    t = tf.clip_by_value(t, -126.0, 128.0)
    whole = tf.round(t)
    r = t - whole
    bits = tf.bitcast(_polynomial(r, _EXP2) * r + 1, tf.int32)
    shifted = tf.bitwise.left_shift(tf.cast(whole, tf.int32), _MANTISSA_BITS)
    return tf.bitcast(bits + shifted, tf.float32)


def _polynomial(x, coefficients):
    result, *rest = coefficients
    for coefficient in rest:
        result = result * x + coefficient
    return result
