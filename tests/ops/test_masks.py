"""Bernoulli masks: their shapes, frequencies and seeds, also on several replicas."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.ops import masks

N = 10**6
RATES = (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)

generators = pytest.mark.parametrize("alg", ["philox", "threefry"])


def draw(shape, rate, pair, alg="philox", compiled=None):
    # ThreeFry exists only under XLA; compiled Philox has a test of its own.
    compiled = alg == "threefry" if compiled is None else compiled
    call = compiled_bernoulli if compiled else masks.bernoulli
    keep, keep_prob = call(shape, rate, pair, alg=alg)
    return keep.numpy(), float(keep_prob)


@tf.function(jit_compile=True, autograph=False)
def compiled_bernoulli(shape, rate, pair, alg):
    return masks.bernoulli(shape, rate, pair, alg=alg)


def correlation(a, b, keep_prob):
    covariance = np.mean((a - keep_prob) * (b - keep_prob))
    return covariance / (keep_prob * (1 - keep_prob))


@generators
def test_mask_is_boolean_and_of_the_shape_asked_for(alg):
    shapes = [(), (1,), (0,), (0, 3), (7,), (8,), (3, 5, 7)]

    # All in one function, which XLA compiles sooner than several.
    @tf.function(jit_compile=alg == "threefry", autograph=False)
    def draw_all(pair):
        return [masks.bernoulli(shape, 0.5, pair, alg=alg)[0] for shape in shapes]

    for keep, shape in zip(draw_all(masks.seed_pair(1)), shapes, strict=True):
        assert keep.dtype == bool
        assert keep.shape == shape


@generators
def test_unknown_sizes_give_the_mask_of_the_known_ones(alg):
    @tf.function(
        input_signature=[tf.TensorSpec((None, 3))],
        jit_compile=alg == "threefry",
        autograph=False,
    )
    def like(x):
        return masks.bernoulli(keras.ops.shape(x), 0.5, masks.seed_pair(1), alg=alg)[0]

    for batch in (5, 4, 0):
        expected, _ = draw((batch, 3), 0.5, masks.seed_pair(1), alg)
        np.testing.assert_array_equal(like(tf.zeros((batch, 3))), expected)


@pytest.mark.onednn
def test_compiled_philox_draws_the_plain_mask():
    pair = masks.seed_pair(4)
    plain, _ = draw((1001,), 0.3, pair)
    compiled, _ = draw((1001,), 0.3, pair, compiled=True)
    np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize(
    ("rate", "alg"),
    [*itertools.product(RATES, ["philox"]), (0.3, "threefry"), (1.0, "threefry")],
)
def test_keep_prob_is_exact_and_is_the_frequency_of_true(rate, alg):
    keep, keep_prob = draw((N,), rate, masks.seed_pair(11), alg)
    assert keep_prob == 1 - round(65536 * rate) / 65536
    assert abs(keep_prob - (1 - rate)) <= 2**-17
    # Each half comes from other bits of the words; at 0 and 1 this is exact.
    for half in np.split(keep, 2):
        error = np.sqrt(keep_prob * (1 - keep_prob) / half.size)
        assert abs(half.mean() - keep_prob) <= 5 * error


@pytest.mark.parametrize("level", [1, 65535])
def test_outermost_levels_are_drawn_as_often_as_they_should(level):
    n, rare = 2**23, 1 / 65536
    keep, keep_prob = draw((n,), level / 65536, masks.seed_pair(2))
    assert keep_prob == 1 - level / 65536
    times = np.sum(keep if level > 1 else ~keep)
    assert abs(times - n * rare) <= 5 * np.sqrt(n * rare)


@pytest.mark.parametrize(
    ("rate", "alg"),
    [*itertools.product(RATES, ["philox"]), (0.3, "threefry"), (1.0, "threefry")],
)
def test_rate_in_a_tensor_gives_the_same_mask_and_keep_prob(rate, alg):
    pair = masks.seed_pair(6)
    keep, keep_prob = draw((100_001,), rate, pair, alg)
    tensor = tf.constant(rate, tf.float32)
    keep_of_tensor, keep_prob_of_tensor = draw((100_001,), tensor, pair, alg)
    np.testing.assert_array_equal(keep_of_tensor, keep)
    assert keep_prob_of_tensor == keep_prob


@generators
def test_equal_seeds_give_equal_masks_and_others_do_not(alg):
    first, again, other = (
        draw((1000,), 0.5, masks.seed_pair(seed), alg)[0] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(again, first)
    assert np.any(other != first)


@generators
@pytest.mark.parametrize("rate", [0.1])
def test_elements_steps_and_seeds_are_uncorrelated(rate, alg):
    tolerance = 5 / np.sqrt(N)
    here, keep_prob = draw((N,), rate, tf.constant([8, 0]), alg)
    for lag in (1, 2, N // 4, N // 2):
        assert abs(correlation(here, np.roll(here, lag), keep_prob)) < tolerance, lag
    for pair in ([8, 1], [8, 2], [9, 0], [-8, 0]):
        other, _ = draw((N,), rate, tf.constant(pair), alg)
        assert abs(correlation(here, other, keep_prob)) < tolerance, pair


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
