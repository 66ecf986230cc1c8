"""The bits of masks: golden values, and NumPy beside plain and compiled TensorFlow."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.backend import random
from keras_sparseout.ops import masks
from keras_sparseout.utils import counter_hash

# Changed values change every user's masks: that needs a new version, and a word in
# the changelog.
GOLDEN = {
    ((0, 0), 0): (
        "47a782d5 65b1acc8 5936e50d 427bb8e5 e9a44832 4925e5b2 0beb8160 065ffb8b"
    ),
    ((0, 0), 2**32 - 2): (
        "c9d6a960 cb98490f 9388efe3 cff1c60b 8266b804 18578115 f1b92afe df7ecc86"
    ),
    ((0, 0), 2**40): (
        "d17775f6 392b34c3 40385401 8941475e 5e75ad52 de311e50 686a0f9b 09a39e03"
    ),
    ((1, 0), 0): (
        "8731e9a2 f1a608db dc5b9422 e94db723 449d60cb dc3c5396 159779fe e4524a65"
    ),
    ((1, 0), 2**32 - 2): (
        "c6e6d012 0ccf40f8 bfb60cad dbf31e31 5f4107a7 785f89b9 de8bc59a f7a7d3cf"
    ),
    ((1, 0), 2**40): (
        "48bccd20 68ec5797 79f346e0 4cedd78e 59be46fb d96482de d9252424 e7d351c2"
    ),
    ((0, 1), 0): (
        "e4669811 82552262 b3353356 5509d319 f101d576 30074fe2 4f518693 aa5bb1a6"
    ),
    ((0, 1), 2**32 - 2): (
        "6cc04309 f6c0a17c c951089d 972d3594 2710103e a0708fed 8ca74c1b 75080473"
    ),
    ((0, 1), 2**40): (
        "542910dc d4a7b705 53634448 ee514830 79b61724 bb92941e c8c31bab 87922f78"
    ),
    ((7, 123456789), 0): (
        "7b8b8ee6 5cd9c6ad f6eafd9d 6f8ae0af 41f6caa9 06f577a6 c6030380 3c58ef37"
    ),
    ((7, 123456789), 2**32 - 2): (
        "78a3deea 06c93b96 48df3df6 1d7ca142 44aba826 3120fc01 c8699b96 c33f70bd"
    ),
    ((7, 123456789), 2**40): (
        "2d45e990 0d801e5b 3d33d61e 8510eb4c c1251188 dee74ca9 a5db5752 ac8f149d"
    ),
    ((-1, -2), 0): (
        "3e29d306 af8d939d 18aab97a c3f312ce c47be6fd 913fd790 83507ed1 25d7c2c7"
    ),
    ((-1, -2), 2**32 - 2): (
        "e3f6309c 6b331f56 743c3f5f 39a3934c c4ac2330 bca658b4 0e317015 c809e73e"
    ),
    ((-1, -2), 2**40): (
        "e3210924 f286691b b824f238 644e2e78 5ee31e97 6fcd0c82 cf6512c8 a62cb5f1"
    ),
    ((2**63 - 1, -(2**63)), 0): (
        "0759f425 8270477e 86506abd e39d3824 d4af7fc0 4be54acc f533dbcd bb5f205a"
    ),
    ((2**63 - 1, -(2**63)), 2**32 - 2): (
        "5ed3a029 7f837c7c 9edde001 eb48e7f7 a0450be2 8b6a41a1 5a2c7e8f f608f17c"
    ),
    ((2**63 - 1, -(2**63)), 2**40): (
        "6309d2be 3dffba38 a969dfce 089270cc fed213a5 aade47a7 d0c9ef80 ea97062b"
    ),
}
SHAPES = [(), (0, 3), (7,), (3, 5, 7)]
# Within the first block, over an end of a block, behind it, and up to the last number.
OFFSETS = [0, 2**32 - 50, 2**32, 3 * 2**40 - 6, 2**63 - 105]
THRESHOLDS = [0, 1, 2**31, 2**32 - 1, 2**32]
CASES = [
    *((2**31, shape, offset) for shape in SHAPES for offset in OFFSETS),
    *((threshold, (3, 5, 7), 2**32 - 50) for threshold in THRESHOLDS),
]


def mix(z):
    z %= 2**64
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ z >> shift) * multiplier % 2**64
    return z ^ z >> 31


def word(seed, number):
    """The bits of one element, by Python's integers as the definition says."""
    s0, s1 = (part % 2**64 for part in seed)
    gamma = 0x9E3779B97F4A7C15
    key = mix((mix(s0 + gamma) ^ s1) + number // 2**32 * gamma)
    h = (number + key) * 0x9E3779B1 % 2**32
    h = (h ^ h >> 17 ^ key >> 32) * 0xED5AD4BB % 2**32
    h = (h ^ h >> 11) * 0xAC4C1B51 % 2**32
    return (h ^ h >> 15) * 0x31848BAB % 2**32


def kept(threshold, shape, seed, offset):
    return counter_hash.bits(shape, seed, offset) >= threshold


@pytest.mark.parametrize(("seed", "offset"), GOLDEN)
def test_golden_masks(seed, offset):
    expected = [int(part, 16) for part in GOLDEN[seed, offset].split()]
    bits = counter_hash.bits((8,), seed, offset)
    assert bits.dtype == np.uint32
    assert bits.tolist() == expected
    assert [word(seed, offset + i) for i in range(8)] == expected


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_tensors_have_the_bits_of_numpy(compiled):
    # All in one function, which XLA compiles sooner than several.
    @tf.function(jit_compile=compiled, autograph=False)
    def draw_all(seed):
        return [random.bits_at_least(t, shape, seed, o) for t, shape, o in CASES]

    for seed in ((0, 0), (-5, 2**40), (2**63 - 1, -(2**63))):
        results = draw_all(tf.constant(seed, tf.int64))
        for result, (threshold, shape, offset) in zip(results, CASES, strict=True):
            assert result.dtype == bool
            assert result.shape == shape
            expected = kept(threshold, shape, seed, offset)
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_each_of_the_32_bits_is_that_of_numpy(compiled):
    seed, shape, offset = (3, 4), (2, 6), 2**32 - 8

    @tf.function(jit_compile=compiled, autograph=False)
    def draw(threshold, offset):
        return random.bits_at_least(threshold, shape, tf.constant(seed), offset)

    bits = counter_hash.bits(shape, seed, offset)
    for threshold in itertools.chain(bits.ravel().tolist(), THRESHOLDS):
        # An element is kept at its own bits, and dropped one above.
        for t in (threshold, min(threshold + 1, 2**32)):
            result = draw(tf.constant(t, tf.int64), tf.constant(offset, tf.int64))
            np.testing.assert_array_equal(result, bits >= t)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_unknown_sizes_and_offsets_give_the_bits_of_numpy(compiled):
    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 3, None)),
            tf.TensorSpec((), tf.int64),
        ],
        jit_compile=compiled,
        autograph=False,
    )
    def like(x, offset):
        sizes = tf.unstack(tf.shape(x))
        shape = (sizes[0], 3, sizes[2])
        return random.bits_at_least(2**31, shape, tf.constant([7, 1]), offset)

    shapes, offsets = [(5, 3, 2), (4, 3, 1), (0, 3, 2)], [0, 2**32 - 7, 2**40]
    for shape, offset in itertools.product(shapes, offsets):
        result = like(tf.zeros(shape), tf.constant(offset, tf.int64))
        np.testing.assert_array_equal(result, kept(2**31, shape, (7, 1), offset))


@pytest.mark.parametrize("start", [0, 2**32 - 40])
def test_parts_by_their_offsets_are_the_whole(start):
    seed, shape = masks.seed_pair(5), (6, 4, 5)
    whole = masks.bernoulli(shape, 0.4, seed, offset=start)[0].numpy()
    for size in (1, 2, 4):
        parts = []
        for row in range(0, 6, size):
            part = whole[row : row + size]
            offset = start + row * math.prod(shape[1:])
            parts.append(masks.bernoulli(part.shape, 0.4, seed, offset=offset)[0])
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    flat = [
        bool(masks.bernoulli((), 0.4, seed, offset=start + i)[0]) for i in range(120)
    ]
    np.testing.assert_array_equal(flat, whole.ravel())


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_rows_are_those_of_the_whole(compiled):
    @tf.function(jit_compile=compiled, autograph=False, reduce_retracing=True)
    def draw(rows):
        return masks.bernoulli_rows(rows, (50, 6), 0.3, tf.constant([9, 2]))[0]

    whole = masks.bernoulli((50, 6), 0.3, tf.constant([9, 2]))[0].numpy()
    for rows in (7, [3, 0, 3], [[1, 49], [0, 7]], np.zeros((0,))):
        index = np.array(rows, np.int32)
        result = draw(tf.constant(index))
        assert result.shape == (*index.shape, 6)
        np.testing.assert_array_equal(result, whole[index])


def test_rows_of_more_than_2_32_elements():
    # The third of these rows lies in two blocks.
    columns, rows = 3, np.array([0, 10, 2**32 // 3, 2**32 // 3 + 1, 2**31 - 1])
    drawn, _ = masks.bernoulli_rows(rows, (2**31, columns), 0.5, masks.seed_pair(1))
    for result, row in zip(drawn, rows.tolist(), strict=True):
        expected = kept(2**31, (columns,), (1, 0), row * columns)
        np.testing.assert_array_equal(result, expected)


def test_masks_of_an_integer_tensor_of_32_bits_and_of_64_are_equal():
    pair = np.array([-3, 2**31 - 1])
    narrow, wide = (
        masks.bernoulli((100,), 0.5, tf.constant(pair, dtype))[0].numpy()
        for dtype in (tf.int32, tf.int64)
    )
    np.testing.assert_array_equal(narrow, wide)
    np.testing.assert_array_equal(wide, kept(2**31, (100,), pair, 0))
