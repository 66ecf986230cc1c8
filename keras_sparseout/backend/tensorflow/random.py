"""Random bits from a seed and the numbers of elements, as `utils.counter_hash` defines.

A compiled function computes a mask again where it needs it again. That takes no longer
than to read a stored one.
"""

import functools
import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_sparseout.backend.tensorflow.compiling import on_gpu
from keras_sparseout.utils import counter_hash
from keras_sparseout.utils.types import Tensor

_LEVELS = counter_hash.LEVELS
# Without a compiler each operation is a pass over the elements. This many fit into the
# cache, and memory for them is not fetched from the system each time.
_CHUNK = 2**18
_xor, _shift_right = tf.bitwise.bitwise_xor, tf.bitwise.right_shift


def bits_at_least(
    threshold: int | Tensor,
    shape: Sequence[int | Tensor],
    seed: Tensor,
    offset: int | Tensor = 0,
    *,
    at_once: bool = False,
    is_one_block: bool = False,
) -> Tensor:
    """Returns where the 32 random bits of an element are at least a threshold.

    Args:
        threshold: An int or a scalar int64 tensor, from 0 to 2^32.
        shape: Ints, and scalar integer tensors for sizes that are not known.
        seed: Integer tensor of shape (2,).
        offset: Number of the first element, an int or a scalar tensor.
        at_once: Whether a compiled function makes one loop of all operations, or the
            elements are few. Otherwise many elements are drawn in chunks.
        is_one_block: Whether all numbers of elements are known to be below 2^32, which
            saves passes. Where `shape` and `offset` tell, it need not be said.

    Returns:
        Boolean tensor of `shape`.
    """
    rows, columns = _rows_and_columns(shape)
    is_known = _are_ints([*shape, offset])
    is_one_block |= is_known and math.prod(shape) + offset <= _LEVELS
    # Blocks end where chunks do.
    is_even = isinstance(offset, int) and offset % _CHUNK == 0
    offset, rows = tf.cast(offset, tf.int64), tf.cast(rows, tf.int64)
    size = rows * columns
    # Sizes in tensors of several types make no shape.
    shape = [n if isinstance(n, int) else tf.cast(n, tf.int64) for n in shape]

    def whole(is_one_block=is_one_block):
        starts = tf.range(rows) * columns + offset
        bits = _bits_of_rows(starts, columns, seed, is_one_block)
        return tf.reshape(_at_least(bits, threshold), shape)

    def chunk(start):
        bits = _bits_of_rows(start[None], _CHUNK, seed, is_one_block, is_even)
        return _at_least(bits, threshold)

    def in_chunks():
        # At least one, since XLA compiles no loop over none.
        starts = tf.range(0, tf.maximum(size, 1), _CHUNK) + offset
        kept = tf.map_fn(chunk, starts, fn_output_signature=tf.bool)
        return tf.reshape(tf.reshape(kept, [-1])[:size], shape)

    if at_once or on_gpu() or (is_known and math.prod(shape) <= _CHUNK):
        return whole()
    # As many as that are in one block, from an early number on.
    is_early = isinstance(offset, int) and offset + _CHUNK <= _LEVELS
    one_chunk = functools.partial(whole, is_one_block or is_early)
    return tf.cond(size <= _CHUNK, one_chunk, in_chunks)


def bits_of_rows_at_least(
    threshold: int | Tensor, rows: Tensor, shape: tuple[int, int], seed: Tensor
) -> Tensor:
    """Returns some rows of what `bits_at_least` returns.

    Args:
        threshold: As in `bits_at_least`.
        rows: Integer tensor of any shape: which rows.
        shape: The shape of the whole.
        seed: As in `bits_at_least`.

    Returns:
        Boolean tensor of the shape of `rows`, with the columns behind it.
    """
    columns = shape[1]
    starts = tf.reshape(tf.cast(rows, tf.int64), [-1]) * columns
    bits = _bits_of_rows(starts, columns, seed, math.prod(shape) <= _LEVELS)
    kept = _at_least(bits, threshold)
    return tf.reshape(kept, [*keras.ops.shape(rows), columns])


def seed_of_replica(seed: Tensor) -> Tensor:
    """Returns a seed as int64, under `tf.distribute` a different one on each replica.

    The replica's number is folded in by hashing. If it were added, replica 1 would
    repeat at step t what replica 0 draws at step t + 1, since the state of a
    `SeedGenerator` steps by one too.

    Args:
        seed: Integer tensor of shape (2,).
    """
    # int64: with 32 bits two of 200,000 steps collide more often than not.
    seed = tf.cast(seed, tf.int64)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return seed
    replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
    return tf.random.experimental.stateless_fold_in(seed, replica, alg="philox")


def _are_ints(sizes):
    return all(isinstance(size, int) for size in sizes)


def _rows_and_columns(shape):
    """Returns the sizes of a matrix with the elements of `shape`, in their order."""
    if not shape:
        return 1, 1
    if len(shape) == 1:
        size = shape[0]
        return 1, size if isinstance(size, int) else tf.cast(size, tf.int64)
    first, *rest = shape
    # A row of at most 2^32 columns reaches into two blocks at most, which is faster.
    while _are_ints(rest) and math.prod(rest) > _LEVELS:
        first, rest = first * rest[0], rest[1:]
    if _are_ints(rest):
        return first, math.prod(rest)
    return first, math.prod(tf.cast(size, tf.int64) for size in rest)


def _bits_of_rows(starts, columns, seed, is_one_block, is_even=False):
    """Returns the bits of rows of elements with consecutive numbers.

    Args:
        starts: int64 vector, the number of the first element of each row.
        columns: Length of the rows.
        seed: Integer tensor of shape (2,).
        is_one_block: Whether all numbers are known to be below 2^32.
        is_even: Whether no row reaches into another block than it starts in.
    """
    k0, k1 = _keys(seed)
    weyl = tf.constant(counter_hash.WEYL, tf.uint32)
    numbers = tf.range(tf.cast(columns, tf.int64))[None]
    column = tf.cast(numbers, tf.uint32)
    first = tf.cast(starts, tf.uint32)[:, None]
    # Multiplied before they are added: one pass over all elements, not three.
    h = (first + k0) * weyl + column * weyl
    if not is_one_block:
        block = tf.cast(_shift_right(starts, 32), tf.uint32)[:, None]
        if not (isinstance(columns, int) and columns <= _LEVELS):
            block += tf.cast(_shift_right(numbers, 32), tf.uint32)
        step = tf.constant(counter_hash.BLOCK_STEP, tf.uint32)
        key = block * step
        if not is_even:
            key = tf.where(first + column < first, (block + 1) * step, key)
        k1 = _xor(k1, key)
    for number, (shift, multiplier) in enumerate(counter_hash.ROUNDS):
        h = _xor(h, _shift_right(h, shift))
        if number == 0:
            h = _xor(h, k1)
        h *= tf.constant(multiplier, tf.uint32)
    return h


def _keys(seed):
    s0, s1 = tf.unstack(tf.cast(seed, tf.uint64))
    key = _mix(_xor(_mix(s0 + tf.constant(counter_hash.GAMMA, tf.uint64)), s1))
    return tf.cast(key, tf.uint32), tf.cast(_shift_right(key, 32), tf.uint32)


def _mix(z):
    for shift, multiplier in counter_hash.MIX_ROUNDS:
        z = _xor(z, _shift_right(z, shift)) * tf.constant(multiplier, tf.uint64)
    return _xor(z, _shift_right(z, counter_hash.MIX_LAST_SHIFT))


def _at_least(bits, threshold):
    if isinstance(threshold, int):
        # 2^32 does not fit uint32.
        if threshold == _LEVELS:
            return tf.zeros_like(bits, tf.bool)
        return bits >= tf.constant(threshold, tf.uint32)
    kept = bits >= tf.cast(tf.minimum(threshold, _LEVELS - 1), tf.uint32)
    return kept & (threshold < _LEVELS)
