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
        "c9d6a960 cb98490f a121ce26 9b8a3735 8b108935 9234487f 006e26d7 3bd17ec0"
    ),
    ((0, 0), 2**40): (
        "994f6224 be490883 718cef5d 98b8018c 286eed64 b99fb244 780e7927 b5600f16"
    ),
    ((1, 0), 0): (
        "8731e9a2 f1a608db dc5b9422 e94db723 449d60cb dc3c5396 159779fe e4524a65"
    ),
    ((1, 0), 2**32 - 2): (
        "c6e6d012 0ccf40f8 cd451e4c 0c9236f2 4900c016 cf10f070 d71e0431 87472c11"
    ),
    ((1, 0), 2**40): (
        "3801d0ad ee32b239 ec2f59b9 8989f8b7 14ec9fc6 eb7cef67 b8f2cf05 f43d1948"
    ),
    ((0, 1), 0): (
        "e4669811 82552262 b3353356 5509d319 f101d576 30074fe2 4f518693 aa5bb1a6"
    ),
    ((0, 1), 2**32 - 2): (
        "6cc04309 f6c0a17c b8383e8e 6c03e1d6 241ecdbe fe80ee26 f111c4c1 74930692"
    ),
    ((0, 1), 2**40): (
        "1871d0db 1cf62f38 6691d6cb 3445f5d9 2a37d542 42e8d52d 8f6449f5 0387dcbd"
    ),
    ((7, 123456789), 0): (
        "7b8b8ee6 5cd9c6ad f6eafd9d 6f8ae0af 41f6caa9 06f577a6 c6030380 3c58ef37"
    ),
    ((7, 123456789), 2**32 - 2): (
        "78a3deea 06c93b96 3ab75974 d3694c25 ad2a2c86 16fb7900 8f517193 c0b705b0"
    ),
    ((7, 123456789), 2**40): (
        "f97ee234 af37249b a35cb09b ae2023fa 71a797bc 18012fa4 74befb89 a89e00d4"
    ),
    ((-1, -2), 0): (
        "3e29d306 af8d939d 18aab97a c3f312ce c47be6fd 913fd790 83507ed1 25d7c2c7"
    ),
    ((-1, -2), 2**32 - 2): (
        "e3f6309c 6b331f56 ada8509f 57fcd9cd f329dc35 26db2f9c 793b59ad 78bf7d4a"
    ),
    ((-1, -2), 2**40): (
        "33c1cf38 26edc13e f9b37fa7 3d5a84a6 3650916f 327c21db 451b358e bbb4d5c6"
    ),
    ((2**63 - 1, -(2**63)), 0): (
        "0759f425 8270477e 86506abd e39d3824 d4af7fc0 4be54acc f533dbcd bb5f205a"
    ),
    ((2**63 - 1, -(2**63)), 2**32 - 2): (
        "5ed3a029 7f837c7c 8ec8bf22 b00fd4e0 23d82b90 0c64b37d ed37f20f ef7d594e"
    ),
    ((2**63 - 1, -(2**63)), 2**40): (
        "6b077028 bda12a1e 0526c687 735dc91d e8043ad0 20238b31 9787bb69 d947079b"
    ),
}
SHAPES = [(), (0, 3), (7,)]
# Within the first block, over an end of a block, behind it, and up to the last number.
OFFSETS = [0, 2**32 - 50, 2**32, 3 * 2**40 - 6, 2**63 - 105]
THRESHOLDS = [0, 1, 2**31, 2**32 - 1, 2**32]
CASES = [
    *((2**31, (3, 5, 7), offset) for offset in OFFSETS),
    *((2**31, shape, OFFSETS[1]) for shape in SHAPES),
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
    key = mix(mix(s0 + gamma) ^ s1)
    key ^= (number // 2**32 * 0xB504F335 % 2**32) << 32
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


@pytest.mark.parametrize(
    ("compiled", "fused"),
    [(False, False), (True, False), (True, True)],
    ids=["plain", "compiled", "fused"],
)
def test_unknown_sizes_and_offsets_give_the_bits_of_numpy(compiled, fused):
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
        seed = tf.constant([7, 1])
        return random.bits_at_least(2**31, shape, seed, offset, at_once=fused)

    shapes, offsets = [(5, 3, 2), (4, 3, 1), (0, 3, 2)], [0, 2**32 - 7, 2**40]
    for shape, offset in itertools.product(shapes, offsets):
        result = like(tf.zeros(shape), tf.constant(offset, tf.int64))
        np.testing.assert_array_equal(result, kept(2**31, shape, (7, 1), offset))


@pytest.mark.parametrize("offset", [2**32 - 3 * 2**18, 2**32 - 2**19 - 3])
def test_chunks_of_an_unknown_size_go_on_in_the_next_block(offset):
    @tf.function(input_signature=[tf.TensorSpec((None,))], autograph=False)
    def like(x):
        shape = (tf.shape(x)[0],)
        return random.bits_at_least(2**31, shape, tf.constant([7, 1]), offset)

    for size in (5, 2**20 + 1):
        result = like(tf.zeros((size,)))
        np.testing.assert_array_equal(result, kept(2**31, (size,), (7, 1), offset))


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
    @tf.function(jit_compile=compiled, autograph=False)
    def draw(rows):
        return masks.bernoulli_rows(
            masks.Rows(rows, (50, 6)), 0.3, tf.constant([9, 2])
        )[0]

    whole = masks.bernoulli((50, 6), 0.3, tf.constant([9, 2]))[0].numpy()
    for rows in (7, [3, 0, 3], [[1, 49], [0, 7]], np.zeros((0,))):
        index = np.array(rows, np.int32)
        result = draw(tf.constant(index))
        assert result.shape == (*index.shape, 6)
        np.testing.assert_array_equal(result, whole[index])


def test_rows_of_more_than_2_32_elements():
    # The third of these rows lies in two blocks.
    columns, rows = 3, np.array([0, 10, 2**32 // 3, 2**32 // 3 + 1, 2**31 - 1])
    drawn, _ = masks.bernoulli_rows(
        masks.Rows(rows, (2**31, columns)), 0.5, masks.seed_pair(1)
    )
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
