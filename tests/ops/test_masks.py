"""Bernoulli masks: their shapes, rates and seeds, also on several replicas."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.backend import random
from keras_sparseout.ops import masks
from keras_sparseout.utils import counter_hash

N = 10**6
RATES = (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)

both_ways = pytest.mark.parametrize("compiled", [False, True], ids=["plain", "xla"])


def draw(shape, rate, pair, offset=0):
    keep, keep_prob = masks.bernoulli(shape, rate, pair, offset)
    return keep.numpy(), float(keep_prob)


def correlation(a, b, keep_prob):
    covariance = np.mean((a - keep_prob) * (b - keep_prob))
    return covariance / (keep_prob * (1 - keep_prob))


@both_ways
def test_mask_is_boolean_and_of_the_shape_asked_for(compiled):
    shapes = [(), (1,), (0,), (0, 3), (7,), (8,), (3, 5, 7)]

    # All in one function, which XLA compiles sooner than several.
    @tf.function(jit_compile=compiled, autograph=False)
    def draw_all(pair):
        return [masks.bernoulli(shape, 0.5, pair)[0] for shape in shapes]

    for keep, shape in zip(draw_all(masks.seed_pair(1)), shapes, strict=True):
        assert keep.dtype == bool
        assert keep.shape == shape


@both_ways
def test_unknown_sizes_give_the_mask_of_the_known_ones(compiled):
    @tf.function(
        input_signature=[tf.TensorSpec((None, 3))],
        jit_compile=compiled,
        autograph=False,
    )
    def like(x):
        return masks.bernoulli(keras.ops.shape(x), 0.5, masks.seed_pair(1))[0]

    for batch in (5, 4, 0):
        expected, _ = draw((batch, 3), 0.5, masks.seed_pair(1))
        np.testing.assert_array_equal(like(tf.zeros((batch, 3))), expected)


@pytest.mark.parametrize("rate", RATES)
def test_keep_prob_is_exact_and_is_the_frequency_of_true(rate):
    keep, keep_prob = draw((N,), rate, masks.seed_pair(11))
    assert keep_prob == 1 - round(2**32 * rate) / 2**32
    assert abs(keep_prob - (1 - rate)) <= 2**-33
    # At 0 and 1 this is exact.
    for half in np.split(keep, 2):
        error = np.sqrt(keep_prob * (1 - keep_prob) / half.size)
        assert abs(half.mean() - keep_prob) <= 5 * error


@pytest.mark.parametrize("rate", [2**-16, 1 - 2**-16])
def test_rare_elements_are_drawn_as_often_as_they_should(rate):
    n, rare = 2**23, 2**-16
    keep, keep_prob = draw((n,), rate, masks.seed_pair(2))
    assert keep_prob == 1 - rate
    times = np.sum(~keep if rate == rare else keep)
    assert abs(times - n * rare) <= 5 * np.sqrt(n * rare)


def number_of(bits, seed):
    """Which element of a mask has these bits: the hash backwards."""

    def unshift(h, shift):
        x = h
        for _ in range(32 // shift):
            x = h ^ x >> shift
        return x

    k0, k1 = (int(key[0]) for key in counter_hash.keys(seed))
    for key, (shift, multiplier) in zip(
        (0, 0, k1), reversed(counter_hash.ROUNDS), strict=True
    ):
        bits = unshift(bits * pow(multiplier, -1, 2**32) % 2**32 ^ key, shift)
    return (bits * pow(counter_hash.WEYL, -1, 2**32) - k0) % 2**32


@pytest.mark.parametrize("in_tensor", [False, True], ids=["number", "tensor"])
def test_rates_are_exact_to_one_of_2_32_levels(in_tensor):
    def kept(rate, bits):
        number = number_of(bits, (5, 0))
        assert counter_hash.bits((), (5, 0), number) == bits
        rate = tf.constant(rate, tf.float32) if in_tensor else rate
        return bool(draw((), rate, masks.seed_pair(5), number)[0])

    for level in (1, 3, 2**20 + 1, 2**31 - 2**7, 2**31, 2**32 - 2**8):
        assert not kept(level / 2**32, level - 1)
        assert kept(level / 2**32, level)
    assert kept(0.0, 0)
    assert not kept(1.0, 2**32 - 1)
    if not in_tensor:  # float32 has no number between this and 1.
        assert kept(1 - 2**-32, 2**32 - 1)
        assert not kept(1 - 2**-32, 2**32 - 2)


@both_ways
def test_rate_in_a_tensor_gives_the_mask_and_keep_prob_of_the_number(compiled):
    @tf.function(jit_compile=compiled, autograph=False)
    def draw_tensor(rate):
        return masks.bernoulli((100_001,), rate, masks.seed_pair(6))

    for rate in (*RATES, 2**-32, 1 - 2**-24):
        tensor = tf.constant(rate, tf.float32)
        keep_of_tensor, keep_prob_of_tensor = draw_tensor(tensor)
        keep, keep_prob = draw((100_001,), float(tensor), masks.seed_pair(6))
        np.testing.assert_array_equal(keep_of_tensor, keep)
        assert keep_prob_of_tensor.dtype == tf.float32
        assert keep_prob_of_tensor == np.float32(keep_prob)
        # Exactly all or none.
        assert rate not in (0, 1) or keep.mean() == 1 - rate


def test_equal_seeds_give_equal_masks_and_others_do_not():
    first, again, other = (
        draw((1000,), 0.5, masks.seed_pair(seed))[0] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(again, first)
    assert np.any(other != first)


@pytest.mark.parametrize(
    ("seed", "pair"),
    [
        (7, [7, 0]),
        (-(2**63), [-(2**63), 0]),
        (np.int64(7), [7, 0]),
        (tf.constant([5, 6]), [5, 6]),
    ],
    ids=["int", "smallest", "numpy", "tensor"],
)
def test_seed_pair_of_a_constant(seed, pair):
    result = masks.seed_pair(seed)
    assert result.dtype == tf.int64
    np.testing.assert_array_equal(result, pair)


def test_seed_pair_steps_a_generator_on():
    generator, twin = (keras.random.SeedGenerator(3) for _ in range(2))
    pairs = [masks.seed_pair(generator).numpy().tolist() for _ in range(5)]
    assert len(set(map(tuple, pairs))) == 5
    assert pairs == [twin.next().numpy().tolist() for _ in range(5)]
    np.testing.assert_array_equal(generator.state, twin.state)


@pytest.mark.parametrize("traced", [False, True])
def test_seed_pair_of_none_is_new_each_time_and_follows_the_global_seed(traced):
    def three():
        keras.utils.set_random_seed(12)
        # Traced again, since setting the seed replaces Keras' generator.
        call = tf.function(lambda: masks.seed_pair()) if traced else masks.seed_pair
        return [tuple(call().numpy().tolist()) for _ in range(3)]

    first = three()
    assert len(set(first)) == 3
    assert three() == first


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def on_replicas(strategy, call):
    """What `call` returns, as one list of numpy arrays a replica."""
    results = tf.nest.map_structure(
        strategy.experimental_local_results,
        strategy.run(call),
        expand_composites=False,
    )
    return [[np.asarray(values[replica]) for values in results] for replica in (0, 1)]


def test_no_replica_repeats_what_any_replica_draws_at_any_step(strategy):
    with strategy.scope():
        generator = keras.random.SeedGenerator(5)

    @tf.function(autograph=False)
    def step():
        pair = masks.seed_pair(generator)
        return pair, masks.bernoulli((N // 20,), 0.5, pair)[0]

    drawn = [on_replicas(strategy, step) for _ in range(20)]
    pairs = [tuple(pair) for replicas in drawn for pair, _ in replicas]
    assert len(set(pairs)) == 40
    keeps = [keep for replicas in drawn for _, keep in replicas]
    tolerance = 5 / np.sqrt(N // 20)
    for a, b in itertools.combinations(keeps, 2):
        assert abs(correlation(a, b, 0.5)) < tolerance


def test_folded_seeds_do_not_collide_over_200_000_steps(strategy):
    steps = 200_000

    # Compiled, since the public function takes one seed at a time.
    @tf.function(jit_compile=True, autograph=False)
    def all_steps():
        counter = tf.range(steps, dtype=tf.int64)
        pairs = tf.stack([tf.fill([steps], tf.constant(5, tf.int64)), counter], 1)
        # The loop crashes if the type of the result is not the type of `pairs`.
        folded = tf.map_fn(lambda pair: tf.cast(masks.seed_pair(pair), tf.int64), pairs)
        return (folded,)

    pairs = np.concatenate([pairs for (pairs,) in on_replicas(strategy, all_steps)])
    assert pairs.shape == (2 * steps, 2)
    assert len(np.unique(pairs, axis=0)) == 2 * steps


def test_another_backend_is_refused_with_the_remedy(monkeypatch):
    pair = masks.seed_pair(1)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for call in (lambda: masks.seed_pair(1), lambda: masks.bernoulli((2,), 0.5, pair)):
        with pytest.raises(RuntimeError) as caught:
            call()
        for part in ("Received: ", "'jax'", "KERAS_BACKEND=tensorflow", "`mask`"):
            assert part in str(caught.value)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), None, "0.5"])
def test_bad_rate_is_refused_with_the_remedy(rate):
    with pytest.raises(ValueError, match="`rate`") as caught:
        masks.bernoulli((2,), rate, masks.seed_pair(1))
    for part in ("between 0 and 1", f"Received: rate={rate!r}", "rate=0.5"):
        assert part in str(caught.value)


@pytest.mark.parametrize("offset", [-1, 2**63, 1.0, None, "0"])
def test_bad_offset_is_refused_with_the_remedy(offset):
    with pytest.raises(ValueError, match="`offset`") as caught:
        masks.bernoulli((2,), 0.5, masks.seed_pair(1), offset)
    received = f"Received: offset={offset!r}"
    for part in ("from 0 to 2^63 - 1", received, "Leave it out for a whole mask"):
        assert part in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
def test_rates_in_tensors_of_every_dtype(dtype):
    for rate in (0, 1):
        pair = masks.seed_pair(1)
        keep, keep_prob = masks.bernoulli((9,), tf.constant(rate, dtype), pair)
        assert keep_prob.numpy() == 1 - rate
        np.testing.assert_array_equal(keep.numpy(), rate == 0)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_sizes_in_tensors_of_both_integer_types(dtype):
    pair = masks.seed_pair(1)
    for shape in ((tf.constant(3, dtype), 4), (tf.constant(3, dtype), tf.constant(4))):
        keep = masks.bernoulli(shape, 0.5, pair)[0].numpy()
        np.testing.assert_array_equal(keep, draw((3, 4), 0.5, pair)[0])


def test_an_offset_in_a_tensor_may_be_as_large_as_an_int():
    pair, offset = masks.seed_pair(1), 2**63 - 30
    in_tensor, _ = draw((30,), 0.5, pair, tf.constant(offset, tf.int64))
    np.testing.assert_array_equal(in_tensor, draw((30,), 0.5, pair, offset)[0])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("rate", tf.constant([0.5, 0.5])),
        ("offset", tf.constant([0, 1])),
        ("offset", tf.constant(1.5)),
        ("seed", 7),
        ("seed", tf.constant([7, 0, 1])),
        ("seed", tf.constant([0.5, 1.0])),
    ],
)
def test_tensors_of_a_wrong_kind_are_refused_with_the_remedy(argument, value):
    arguments = {"rate": 0.5, "seed": masks.seed_pair(1), argument: value}
    with pytest.raises(ValueError, match=f"`{argument}`.* Received: {argument}"):
        masks.bernoulli((2,), **arguments)


def test_a_seed_that_is_no_integer_is_refused():
    for seed in (1.5, [0.5, 0.5]):
        with pytest.raises(ValueError, match=r"must be of integers.*dtype float32"):
            masks.seed_pair(seed)


def test_a_vector_of_more_than_2_32_elements_repeats_none_of_them():
    pair, size = masks.seed_pair(1), 2**32 + 40

    # XLA computes only the elements that are asked for.
    @tf.function(jit_compile=True, autograph=False)
    def last():
        return random.bits_at_least(2**31, (size,), pair, at_once=True)[-30:]

    expected, _ = draw((30,), 0.5, pair, size - 30)
    np.testing.assert_array_equal(last().numpy(), expected)
