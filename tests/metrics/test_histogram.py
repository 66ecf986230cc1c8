"""The histogram of activations: its counts, and what is read from them."""

import keras
import numpy as np
import pytest

from keras_sparseout import metrics

EDGES = 2.0 ** np.linspace(-24, 16, 40 * 64 + 1)
RATIO = 2 ** (1 / 64)
NAN = float("nan")


def histogram_of(x, **options):
    metric = metrics.ActivationHistogram(**options)
    metric.update_state(np.reshape(x, (-1, 1)))
    return metric


def data(kind):
    random = np.random.default_rng(0)
    normal = random.normal(size=20_000)
    return {
        "Gaussian": normal,
        "half-rectified": np.maximum(normal, 0),
        "exponential": random.exponential(size=20_000),
        "constant": np.full(1000, RATIO**0.5),
        "constant on an edge": np.full(1000, 1.0),
        "two points": np.repeat([0.3, -20.0], [900, 100]),
        # Without a variance: the largest has much of the sum.
        "heavy tail": np.minimum(random.pareto(1.1, size=20_000), 60_000),
        "1 of 1000": np.repeat([0.0, 3.0], [999, 1]),
        "all of it in one bin, at its edges": np.repeat([1.0001, 1.0108], 500),
        "small": 1e-5 * normal,
    }[kind]


KINDS = (
    "Gaussian",
    "half-rectified",
    "exponential",
    "constant",
    "constant on an edge",
    "two points",
    "heavy tail",
    "1 of 1000",
    "all of it in one bin, at its edges",
    "small",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bins_per_octave", [8, 64])
def test_gini_is_within_its_bound(kind, bins_per_octave):
    x = data(kind)
    root = 2 ** (1 / bins_per_octave / 2)
    bound = (root - 1) / (root + 1) / 2
    assert bins_per_octave < 64 or bound < 0.0014
    metric = histogram_of(x, bins_per_octave=bins_per_octave)
    assert abs(metric.gini() - metrics.gini(x)) < bound * 1.001
    assert metric.gini() == float(metric.result())


def test_gini_is_exact_where_bins_leave_no_doubt():
    x = np.repeat([0.0, 0.25, 1.0, -8.0], [3, 10, 5, 2])
    np.testing.assert_allclose(histogram_of(x).gini(), metrics.gini(x), rtol=1e-12)


def test_counts_are_those_of_numpy():
    x = data("Gaussian").astype("float32")
    x[:50] = 0
    metric = histogram_of(x)
    edges, counts = metric.histogram()
    np.testing.assert_array_equal(edges, np.concatenate([-EDGES[::-1], EDGES]))
    # float32 can't tell which side of an edge some fall on.
    expected = np.histogram(x, edges)[0]
    assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 2
    assert counts.sum() == x.size
    assert counts[40 * 64] == 50


@pytest.mark.parametrize(
    ("x", "place"),
    [
        (1e-30, 40 * 64),
        (-1e-30, 40 * 64),
        (0.0, 40 * 64),
        (-0.0, 40 * 64),
        (1.5 * 2**-24, 40 * 64 + 1 + int(64 * np.log2(1.5))),
        (-1.5 * 2**-24, 40 * 64 - 1 - int(64 * np.log2(1.5))),
        (1e30, -1),
        (float("inf"), -1),
        (-1e30, 0),
        (-float("inf"), 0),
    ],
)
def test_what_is_off_the_range_goes_to_zeros_or_to_the_last_bin(x, place):
    _, counts = histogram_of(np.float32(x)).histogram()
    assert counts.sum() == counts[place] == 1


def test_nan_is_counted_apart():
    metric = histogram_of([NAN, 1.0, -2.0, 0.0])
    _, counts = metric.histogram()
    assert counts.sum() == 3
    assert metric.variables[0][-1] == 1
    assert not any(np.isnan(v).any() for v in metric.variables)
    assert np.isnan(metric.gini())
    assert np.isnan(metric.quantile(0.5))
    assert metric.buckets()[:, 2].sum() == 3


def test_no_activations_and_zeros_alone():
    empty = metrics.ActivationHistogram()
    assert np.isnan(empty.gini())
    assert np.isnan(empty.quantile(0.5))
    assert empty.buckets().shape == (0, 3)
    zeros = histogram_of(np.zeros(5))
    assert np.isnan(zeros.gini())
    assert zeros.quantile(1) == 0
    np.testing.assert_allclose(zeros.buckets(), [[-(2**-24), 2**-24, 5]])


@pytest.mark.parametrize("kind", KINDS)
def test_quantiles_are_within_a_bin(kind):
    x = np.abs(data(kind))
    metric = histogram_of(x)
    for p in (0, 0.01, 0.25, 0.5, 0.9, 0.999, 1):
        expected = np.quantile(x, p, method="inverted_cdf")
        # And a little for what float32 does at the edges.
        factor = RATIO * 1.0001
        expected = 0 if expected < EDGES[0] else expected
        assert expected / factor <= metric.quantile(p) <= expected * factor


def test_weights_and_totals_kept_elsewhere():
    x = data("exponential")[:900].reshape(3, 300)
    metric = metrics.ActivationHistogram()
    sums = [part.numpy() for part in metric.sums(x, np.array([1, 0, 2]))]
    weighted = np.concatenate([x[0], x[2], x[2]])
    expected = histogram_of(weighted)
    assert metric.gini(totals=sums) == pytest.approx(expected.gini(), rel=1e-12)
    assert metric.quantile(0.3, totals=sums) == pytest.approx(expected.quantile(0.3))
    for read in ("histogram", "buckets"):
        for part, other in zip(
            getattr(metric, read)(totals=sums), getattr(expected, read)(), strict=True
        ):
            np.testing.assert_array_equal(part, other)
    assert not metric.histogram()[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_buckets_cover_all_without_a_gap(kind):
    x = data(kind)
    metric = histogram_of(x)
    edges, counts = metric.histogram()
    for most in (3, 10, 64, 100_000):
        buckets = metric.buckets(most)
        left, right, count = buckets.T
        assert buckets.dtype == "float64"
        assert 1 <= len(buckets) <= most
        np.testing.assert_array_equal(left[1:], right[:-1])
        assert (left < right).all()
        assert count.sum() == x.size
        # Ends in use, up to the width of a bin.
        assert count[0] > 0
        assert count[-1] > 0
        inside = np.searchsorted(edges[:-1], left)
        np.testing.assert_array_equal(count, np.add.reduceat(counts, inside))


def test_zeros_have_a_bucket_of_their_own_and_the_others_are_even():
    x = data("half-rectified")
    left, right, count = histogram_of(x).buckets(30).T
    np.testing.assert_allclose([left[0], right[0]], [-(2**-24), 2**-24])
    assert count[0] == np.sum(x == 0)
    width = x.max() / 27
    np.testing.assert_allclose(np.diff(right[1:]), width, rtol=0.6)
    np.testing.assert_allclose(np.diff(right[1:]).mean(), width, rtol=0.05)


def test_other_bins():
    options = {"smallest_exponent": -2, "largest_exponent": 1, "bins_per_octave": 1}
    metric = histogram_of([0.1, 0.3, -0.6, 1.2, 5.0], **options)
    edges, counts = metric.histogram()
    np.testing.assert_array_equal(edges, [-2, -1, -0.5, -0.25, 0.25, 0.5, 1, 2])
    np.testing.assert_array_equal(counts, [0, 1, 0, 1, 1, 0, 2])
    assert metric.shapes(None) == ((8,), (8,))
    widest = histogram_of(
        np.float32([1e-37, 1e38]), smallest_exponent=-126, largest_exponent=127
    )
    np.testing.assert_allclose(widest.gini(), 0.5, atol=0.0014)
    copy = metrics.ActivationHistogram.from_config(metric.get_config())
    assert {k: copy.get_config()[k] for k in options} == options


def test_the_state_does_not_grow_with_the_units():
    metric = metrics.ActivationHistogram()
    assert metric.shapes(1) == metric.shapes(1000) == ((5122,), (5122,))
    assert sum(v.numpy().nbytes for v in metric.variables) == 81_952


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: metrics.ActivationHistogram(smallest_exponent=16),
            ["`smallest_exponent`", "smallest_exponent=16, largest_exponent=16"],
        ),
        (
            lambda: metrics.ActivationHistogram(smallest_exponent=-127),
            ["`smallest_exponent`", "smallest_exponent=-127"],
        ),
        (
            lambda: metrics.ActivationHistogram(largest_exponent=128),
            ["`largest_exponent`", "largest_exponent=128"],
        ),
        (
            lambda: metrics.ActivationHistogram(largest_exponent=1.5),
            ["`largest_exponent`", "largest_exponent=1.5"],
        ),
        (
            lambda: metrics.ActivationHistogram(bins_per_octave=0),
            ["`bins_per_octave`", "Received: bins_per_octave=0"],
        ),
        (lambda: histogram_of(1.0).quantile(1.1), ["`p`", "Received: p=1.1"]),
        (lambda: histogram_of(1.0).quantile(NAN), ["`p`", "Received: p=nan"]),
        (lambda: histogram_of(1.0).buckets(2), ["`most`", "Received: most=2"]),
        (lambda: histogram_of(1.0).buckets(9.5), ["`most`", "Received: most=9.5"]),
    ],
)
def test_bad_arguments_say_what_to_do(call, says):
    with pytest.raises(ValueError, match=r"Leave|Give") as error:
        call()
    for words in says:
        assert words in str(error.value)


def test_float16_activations_are_binned_in_float32():
    x = data("half-rectified").astype("float16").reshape(-1, 10)
    metric, wide = metrics.ActivationHistogram(), metrics.ActivationHistogram()
    metric.update_state(keras.ops.convert_to_tensor(x))
    wide.update_state(x.astype("float32"))
    for variable, other in zip(metric.variables, wide.variables, strict=True):
        np.testing.assert_array_equal(variable, other)
