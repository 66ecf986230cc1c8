"""The random bits of all masks, defined in NumPy: a keyed hash of an element's number.

Element i of a mask depends on the seed pair and on i alone. So one seed gives one mask,
on every machine and by every back end, and each part of a mask can be computed alone.
`backend.random` computes the same bits with tensors.

    K      = mix(mix(s0 + G) xor s1)        64 bits; (s0, s1) is the seed pair
    k0, k1 = K mod 2^32, K // 2^32
    b, l   = i // 2^32, i mod 2^32
    h      = (l + k0) W                     from here on with 32 bits
    h      = (h xor (h >> 17) xor k1 xor (b B)) M1
    h      = (h xor (h >> 11)) M2
    h      = (h xor (h >> 15)) M3

`mix` is the last step of the generator SplitMix64. Element i is kept if h is at least
the threshold. `benchmarks/NOTES.md` has the statistical tests. They find no fault in
the four rounds, the multiplication by W being the first. Three rounds leave
correlations of up to .005 between elements that are far apart, two fail in many ways.

Sources: Salmon et al. (2011), "Parallel Random Numbers: As Easy as 1, 2, 3", for
generators that hash a counter; Steele, Lea & Flood (2014), "Fast Splittable
Pseudorandom Number Generators", for `mix`; Wellons (2018), "Prospecting for Hash
Functions", https://nullprogram.com/blog/2018/07/31/, for the constants of the rounds.
"""

from collections.abc import Sequence

import numpy as np

# The step of SplitMix64, 2^64 divided by the golden ratio, and its two multipliers.
GAMMA = 0x9E3779B97F4A7C15
MIX_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
MIX_LAST_SHIFT = 31
# The first multiplier alone is a prime, near 2^32 divided by the golden ratio.
WEYL = 0x9E3779B1
ROUNDS = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))
# What sets blocks of 2^32 elements apart: the square root of 2 in 32 bits, made odd.
BLOCK_STEP = 0xB504F335
# Number of values that the bits can have. At rate 1 all of them are dropped.
LEVELS = 2**32


def bits(shape: Sequence[int], seed: Sequence[int], offset: int = 0) -> np.ndarray:
    """Returns the 32 random bits h of each element.

    Args:
        shape: The shape of the result.
        seed: Two integers from -2^63 to 2^63 - 1.
        offset: Number of the first element, from 0 to 2^63 - 1.

    Returns:
        uint32 array of `shape`.

    Example:

    >>> bits((3,), (7, 0)).tolist()
    [504412137, 19971006, 1567553279]
    >>> bits((2,), (7, 0), offset=1).tolist()
    [19971006, 1567553279]
    """
    numbers = np.arange(np.prod(shape, dtype=np.uint64), dtype=np.uint64)
    numbers += np.uint64(offset)
    k0, k1 = keys(seed)
    block = (numbers >> np.uint64(32)).astype(np.uint32)
    h = (numbers.astype(np.uint32) + k0) * np.uint32(WEYL)
    for number, (shift, multiplier) in enumerate(ROUNDS):
        h ^= h >> np.uint32(shift)
        if number == 0:
            h ^= k1 ^ (block * np.uint32(BLOCK_STEP))
        h *= np.uint32(multiplier)
    return h.reshape(tuple(shape))


def keys(seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the keys k0 and k1, uint32 arrays of one element."""
    s0, s1 = (np.array([number], np.int64).view(np.uint64) for number in seed)
    key = _mix(_mix(s0 + np.uint64(GAMMA)) ^ s1)
    return key.astype(np.uint32), (key >> np.uint64(32)).astype(np.uint32)


def _mix(z):
    for shift, multiplier in MIX_ROUNDS:
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(multiplier)
    return z ^ (z >> np.uint64(MIX_LAST_SHIFT))
