"""Masks are as random as independent draws: moments, runs, correlations of all kinds.

About 10^7 draws. `benchmarks/NOTES.md` has longer tests, which ran once.
"""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.ops import masks
from keras_sparseout.utils import counter_hash

RATES = (0.1, 0.5, 0.9)


def draw(shape, rate, pair, offset=0):
    keep, keep_prob = masks.bernoulli(shape, rate, tf.constant(pair, tf.int64), offset)
    return keep.numpy(), keep_prob


def covariance(a, b, keep):
    """The sum of (a - keep)(b - keep), from what can be counted."""
    kept = np.count_nonzero(a) + np.count_nonzero(b)
    return np.count_nonzero(a & b) - keep * kept + a.size * keep**2


def correlation(pairs, keep):
    """The z-score of the correlation over all pairs of masks."""
    pairs = list(pairs)
    n = sum(a.size for a, _ in pairs)
    total = sum(covariance(a, b, keep) for a, b in pairs)
    return total / (math.sqrt(n) * keep * (1 - keep))


def variance(counts, n, keep):
    """The z-score of the variance of how many of n elements are kept."""
    var = keep * (1 - keep)
    squares = np.sum((counts - n * keep) ** 2) / (n * var)
    return (squares - counts.size) / math.sqrt(
        counts.size * (2 + (1 - 6 * var) / (n * var))
    )


def chi_square(observed, expected):
    """The z-score of Pearson's sum, by Wilson and Hilferty's cube root."""
    freedom = len(expected) - 1
    total = np.sum((observed - expected) ** 2 / expected)
    return ((total / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(
        2 / (9 * freedom)
    )


def check(scores):
    """No z-score is beyond 5, and the sum of their squares is not either."""
    assert {name: z for name, z in scores.items() if not abs(z) < 5} == {}
    squares = sum(z**2 for z in scores.values())
    assert abs(squares - len(scores)) < 5 * math.sqrt(2 * len(scores))


@pytest.mark.parametrize("rate", RATES)
def test_moments_over_elements_and_steps(rate):
    steps, n = 256, 4096
    drawn = [draw((8, 16, 32), rate, (20, step)) for step in range(steps)]
    keep = drawn[0][1]
    keeps = np.stack([mask.ravel() for mask, _ in drawn])
    spread = math.sqrt(n * keep * (1 - keep))
    excess = (keeps.sum(1) - n * keep) / spread
    # The third moment of a normal number has the variance 15.
    third = np.sum(excess**3) - steps * (2 * (1 - keep) - 1) / spread
    scores = {
        "mean": np.sum(excess) / math.sqrt(steps),
        "third moment": third / math.sqrt(15 * steps),
        "variance of a step": variance(keeps.sum(1), n, keep),
        "variance of an element": variance(keeps.sum(0), steps, keep),
        "number kept, next step": np.sum(excess[1:] * excess[:-1])
        / math.sqrt(steps - 1),
    }
    for lag in (1, 2, 3, 4, 8, 16, 64, 128):
        here, there = keeps[lag:], keeps[:-lag]
        scores[f"lag {lag}"] = correlation([(here, there)], keep)
        for a, b, way in ((here, there, "before"), (there, here, "behind")):
            pair = (a[:, 1:], b[:, :-1])
            scores[f"lag {lag}, element {way}"] = correlation([pair], keep)
    check(scores)


@pytest.mark.parametrize("rate", RATES)
def test_runs_have_geometric_lengths(rate):
    mask, keep = draw((2**18,), rate, (21, 0))
    ends = np.flatnonzero(mask[1:] != mask[:-1])
    lengths, kept = np.diff(ends), mask[ends[1:]]
    scores = {}
    for value, stay in ((True, keep), (False, 1 - keep)):
        runs = lengths[kept == value]
        # The last class has all longer runs, at least 50 of them.
        last = max(2, 1 + int(math.log(50 / runs.size) / math.log(stay)))
        shares = [stay**k * (1 - stay) for k in range(last - 1)] + [stay ** (last - 1)]
        observed = np.bincount(np.minimum(runs, last), minlength=last + 1)[1:]
        scores[f"runs of {value}"] = chi_square(observed, runs.size * np.array(shares))
    check(scores)


def test_neighbours_in_space_and_at_distances():
    height, width, channels = shape = (64, 64, 128)
    drawn = [draw(shape, 0.1, (22, step)) for step in range(8)]
    keep, keeps = drawn[0][1], [mask for mask, _ in drawn]
    scores = {}
    steps = [*itertools.product((-1, 0, 1), repeat=3), (2, 0, 0), (0, 2, 0), (0, 0, 2)]
    for step in steps:
        # Of a step and the one back only one.
        if step > (0, 0, 0):
            here, there = zip(*(parts(d) for d in step), strict=True)
            scores[step] = correlation([(m[here], m[there]) for m in keeps], keep)
    row, image = width * channels, height * width * channels
    powers = [2**k for k in range(7, image.bit_length() - 1)]
    for d in (*range(1, 65), *powers, 28, 3 * 32, 56 * 3, 224, 224 * 3, row + channels):
        flat = ((m.ravel()[d:], m.ravel()[:-d]) for m in keeps)
        scores[d] = correlation(flat, keep)
    check(scores)


def parts(d):
    """The two slices of an axis whose elements are d apart."""
    here, there = slice(abs(d), None), slice(None, -abs(d) or None)
    return (here, there) if d >= 0 else (there, here)


def test_layers_replicas_and_blocks():
    n, rate = 2**15, 0.5
    seeds = [(seed, 0) for seed in (0, 1, 2, 3, -1, -2, 2**40, 2**63 - 1, -(2**63))]
    steps = [(0, 1), (0, 2), (1, 1), (0, 2**40), (0, -1)]
    # As `seed_of_replica` makes them, for two steps.
    folded = [
        tf.random.experimental.stateless_fold_in(
            tf.constant([0, step], tf.int64),
            tf.constant(replica, tf.int64),
            alg="philox",
        ).numpy()
        for step in (0, 1)
        for replica in range(4)
    ]
    drawn = {
        str(tuple(pair)): draw((n,), rate, pair) for pair in seeds + steps + folded
    }
    for block in (1, 2, 3, 2**20, 2**31 - 1):
        drawn[f"block {block}"] = draw((n,), rate, (0, 0), block * 2**32)
    keep = rate
    scores = {
        (a, b): correlation([(drawn[a][0], drawn[b][0])], keep)
        for a, b in itertools.combinations(drawn, 2)
    }
    assert len(scores) == 27 * 26 // 2
    check(scores)


def test_seed_pairs_one_bit_apart():
    n, rate = 2**13, 0.5
    pair = np.array([1234, 5678], np.uint64)
    base, keep = draw((n,), rate, pair.view(np.int64))
    scores = {}
    for which, bit in itertools.product((0, 1), range(64)):
        other = pair.copy()
        other[which] ^= np.uint64(1) << np.uint64(bit)
        mask, _ = draw((n,), rate, other.view(np.int64))
        for d in (-1, 0, 1):
            here, there = parts(d)
            scores[which, bit, d] = correlation([(base[here], mask[there])], keep)
    check(scores)


def test_elements_far_apart():
    # After the first multiplication their numbers differ in one bit.
    step = pow(counter_hash.WEYL, -1, 2**32)
    n, scores = 2**14, {}
    base, keep = draw((n,), 0.1, (23, 0))
    for bit in range(32):
        # No mask that reaches into the next block, which has other keys.
        distance = min(step * 2**bit % 2**32, 2**32 - n)
        scores[bit] = correlation([(base, draw((n,), 0.1, (23, 0), distance)[0])], keep)
    check(scores)


def test_keys_one_bit_apart(monkeypatch):
    # Seeds one bit apart do not have such keys: so the keys themselves are set.
    n, keys = 2**11, np.random.default_rng(0).integers(2**64, size=4, dtype=np.uint64)
    threshold, keep = masks.quantise(0.1)

    def kept(key):
        halves = np.array([key], np.uint64).view("<u4")
        monkeypatch.setattr(counter_hash, "keys", lambda seed: halves)
        return counter_hash.bits((n,), (0, 0)) >= threshold

    for bit in range(64):
        flipped = keys ^ (np.uint64(1) << np.uint64(bit))
        pairs = list(zip(map(kept, keys), map(kept, flipped), strict=True))
        found = correlation(pairs, keep) / math.sqrt(n * len(keys))
        # The highest bits have a correlation, see `benchmarks/NOTES.md`.
        known = 0.02 if bit > 60 else 0
        assert abs(found) < known + 5 / math.sqrt(n * len(keys)), bit
