"""Random bits from a seed. All that depends on the generator is in this file."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import tensorflow as tf

from keras_sparseout.utils.types import Tensor

# "threefry" exists only inside of XLA, where it is the faster one. The two give
# different bits for one seed. TensorFlow's "auto_select" is over 100 times slower under
# XLA on CPU.
Generator: TypeAlias = Literal["philox", "threefry"]


def compiled_generator() -> Generator:
    """Returns the fastest generator inside of a compiled function."""
    # XLA alone has Threefry on every device, and `tf.config.run_functions_eagerly`
    # makes TensorFlow run these functions without it.
    return "philox" if tf.executing_eagerly() else "threefry"


def bits_at_least(
    threshold: int | Tensor,
    shape: Sequence[int | Tensor],
    seed: Tensor,
    generator: Generator,
) -> Tensor:
    """Draws 16 random bits an element, and compares them as integers.

    Args:
        threshold: An int or a scalar integer tensor, from 0 to 65536.
        shape: Ints, and scalar integer tensors for sizes that are not known.
        seed: Integer tensor of shape (2,). Equal seeds give equal bits.
        generator: Where the bits come from.

    Returns:
        Boolean tensor of `shape`, True where the bits are at least `threshold`.
    """
    samples, *rest = shape or (1,)
    words = tf.random.stateless_uniform(
        [(samples + 1) // 2, *rest],
        seed,
        minval=None,
        maxval=None,
        dtype=tf.uint32,
        alg=generator,
    )
    # The halves of a word go to samples half a batch apart, each compared before they
    # are joined. A bitcast would put them side by side, which XLA does not vectorise,
    # and the whole call would take up to 1.4 times as long.
    low = tf.bitwise.bitwise_and(words, 2**16 - 1)
    high = tf.bitwise.right_shift(words, 16)
    threshold = tf.cast(threshold, tf.uint32)
    drawn = tf.concat([low >= threshold, high >= threshold], 0)
    if not shape:
        return drawn[0]
    if not isinstance(samples, int) or samples % 2:
        drawn = drawn[:samples]
    return drawn


def fold_in_replica(seed: Tensor) -> Tensor:
    """Returns the seed of this replica under `tf.distribute`, else `seed` itself.

    The replica's number is folded in by hashing. If it were added, replica 1 would
    repeat at step t what replica 0 draws at step t + 1, since the state of a
    `SeedGenerator` steps by one too.

    Args:
        seed: int64 tensor of shape (2,).
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return seed
    replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
    return tf.random.experimental.stateless_fold_in(seed, replica, alg="philox")
