"""Bernoulli masks: 16 random bits an element, different on every replica."""

import numbers

import keras
import tensorflow as tf

_LEVELS = 2**16


def bernoulli(shape, rate, seed, *, alg="philox"):
    """Draws a mask that drops each element with probability `rate`.

    An element is kept where 16 random bits, read as an integer, are at least
    `t = round(rate * 65536)`. So the keep probability that is really drawn is

        keep_prob = 1 - t / 65536

    within 2^-17 of `1 - rate`. Scaling by it, and not by `1 - rate`, keeps the mean of
    a scaled mask at exactly 1.

    Args:
        shape: Tuple of ints and of scalar integer tensors (for sizes that are not
            known while tracing), as `keras.ops.shape` returns it.
        rate: Probability of dropping, in [0, 1]: a number, or a scalar float32 tensor.
        seed: Integer tensor of shape (2,), see `seed_pair`. Equal seeds give equal
            masks.
        alg: Generator, `"philox"` or (inside XLA only, and the faster one there)
            `"threefry"`. The two give different masks for one seed. `"auto_select"` is
            over 100 times slower under XLA on CPU.

    Returns:
        `(keep, keep_prob)`: a boolean tensor of `shape`, True where an element is kept,
        and the probability of True, a float or a scalar float32 tensor as `rate` is.

    Raises:
        RuntimeError: under another Keras backend than TensorFlow.

    Example:

    >>> keep, keep_prob = bernoulli((2, 3), 0.3, seed_pair(7))
    >>> keep.shape.as_list(), keep_prob
    ([2, 3], 0.6999969482421875)
    """
    _check_backend()
    threshold, keep_prob = quantise(rate)
    samples, *rest = shape or (1,)
    words = tf.random.stateless_uniform(
        [(samples + 1) // 2, *rest],
        seed,
        minval=None,
        maxval=None,
        dtype=tf.uint32,
        alg=alg,
    )
    # The halves of a word go to samples half a batch apart, each compared before they
    # are joined. A bitcast would put them side by side, which XLA does not vectorise,
    # and the whole call would take up to 1.4 times as long.
    low = tf.bitwise.bitwise_and(words, _LEVELS - 1)
    high = tf.bitwise.right_shift(words, 16)
    threshold = tf.cast(threshold, tf.uint32)
    keep = tf.concat([low >= threshold, high >= threshold], 0)
    if not shape:
        return keep[0], keep_prob
    if not isinstance(samples, int) or samples % 2:
        keep = keep[:samples]
    return keep, keep_prob


def resolve(noise_shape, x):
    """Returns the shape of a mask of `noise_shape` for `x`, and `x`.

    Args:
        noise_shape: Tuple with one entry for each dimension of `x`: its size, 1, or
            None for its size; or None for the shape of `x`.
        x: Tensor.

    Returns:
        `(shape, x)`, where a size that `noise_shape` gives and that is not known while
        tracing is asserted of `x`: it would be broadcast otherwise.

    Example:

    >>> resolve((None, 1), np.ones((2, 3)))[0]
    (2, 1)
    """
    if noise_shape is None:
        return keras.ops.shape(x), x
    sizes = [
        noise if dim is None and noise != 1 else dim
        for noise, dim in zip(noise_shape, x.shape, strict=True)
    ]
    if sizes != list(x.shape):
        x = tf.ensure_shape(x, sizes)
    shape = tuple(
        dim if noise is None else noise
        for noise, dim in zip(noise_shape, keras.ops.shape(x), strict=True)
    )
    return shape, x


def quantise(rate):
    """Returns `(t, keep_prob)` for `rate`: t = round(65536 rate), 1 - t / 65536.

    Args:
        rate: A number in [0, 1], or a scalar float32 tensor.

    Returns:
        An int and a float, or scalar tensors of int32 and float32.

    Example:

    >>> quantise(0.3)
    (19661, 0.6999969482421875)
    """
    if isinstance(rate, numbers.Real):
        threshold = round(float(rate) * _LEVELS)
        return threshold, (_LEVELS - threshold) / _LEVELS
    # Through int32: 65536 does not fit uint16, and XLA casts to unsigned otherwise.
    threshold = tf.cast(tf.round(rate * _LEVELS), tf.int32)
    return threshold, tf.cast(_LEVELS - threshold, tf.float32) / _LEVELS


def seed_pair(seed=None):
    """Returns the two int64 numbers that a mask is drawn from.

    Under `tf.distribute` the replica's number is folded in by hashing: adding it would
    make replica 1 repeat at step t what replica 0 draws at step t + 1, since the state
    of a `SeedGenerator` steps by one too.

    Args:
        seed: A `keras.random.SeedGenerator` (which steps on), an integer, an integer
            tensor of shape (2,), or None for a new draw from Keras' global generator,
            which `keras.utils.set_random_seed` sets.

    Returns:
        int64 tensor of shape (2,).

    Raises:
        RuntimeError: under another Keras backend than TensorFlow.

    Example:

    >>> seed_pair(7).numpy().tolist()
    [7, 0]
    """
    _check_backend()
    if seed is None:
        pair = keras.random.randint((2,), 0, 2**31 - 1, dtype="int64")
    elif isinstance(seed, keras.random.SeedGenerator):
        pair = seed.next()
    elif isinstance(seed, numbers.Integral):
        pair = tf.constant([int(seed), 0], tf.int64)
    else:
        pair = seed
    # int64: with 32 bits two of 200,000 steps collide more often than not.
    pair = tf.cast(pair, tf.int64)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return pair
    replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
    return tf.random.experimental.stateless_fold_in(pair, replica, alg="philox")


def _check_backend():
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Masks are drawn with TensorFlow. Received: "
            f"keras.backend.backend()={keras.backend.backend()!r}. Set the environment "
            "variable KERAS_BACKEND=tensorflow before Keras is imported, or pass "
            "`mask` to keras_sparseout.ops.sparseout."
        )
