"""Counts of magnitudes, and the quantiles that thresholds are made of."""

import keras
import numpy as np
import pytest
from keras import ops
from sparsified import normal

from keras_sparseout.models.thresholds import magnitudes


def threshold(x, target, mask=None):
    """The threshold of all of `x`."""
    bins = magnitudes.bins_for(1)
    counts = magnitudes.count(ops.convert_to_tensor(x), mask, bins)
    found = magnitudes.quantile(counts, target, bins)
    cut, by_nature = magnitudes.share(counts, found, bins)
    assert by_nature == pytest.approx(np.mean(x == 0)) or mask is not None
    return float(found[0]), cut


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("target", [0.01, 0.5, 0.9, 0.999])
def test_the_threshold_is_the_quantile(scale, target):
    x = scale * normal(100, 500)
    t, cut = threshold(x, target)
    # A bin is 1/512 wide; x pdf(x) of a normal distribution is at most .49.
    assert np.mean(np.abs(x) <= t) == pytest.approx(target, abs=0.001)
    assert cut == pytest.approx(np.mean(np.abs(x) <= t))


def test_zeros_by_nature_need_no_threshold():
    x = np.maximum(normal(100, 500), 0)
    assert threshold(x, 0.3)[0] == 0
    assert threshold(x, 0.0)[0] == 0
    t, cut = threshold(x, 0.6)
    assert t > 0
    assert cut == pytest.approx(0.6, abs=0.001)


def test_equal_magnitudes_are_kept_and_not_all_cut():
    x = np.clip(normal(100, 500), -0.5, 0.5)  # .62 of them are .5.
    t, cut = threshold(x, 0.7)
    assert cut == np.mean(np.abs(x) < 0.5)
    assert np.mean(np.abs(x) <= t) == cut
    x = np.ones((10, 10), "float32")
    assert threshold(x, 0.99)[0] == 0
    assert threshold(np.zeros((10, 10), "float32"), 0.5)[0] == 0


def test_the_threshold_is_in_the_middle_of_a_gap():
    x = np.array([[1.0, 1, 1, 4, 4, 4]], "float32")
    t, cut = threshold(x, 0.5)
    assert 1.5 < t < 3.5
    assert cut == 0.5


def test_a_share_a_little_above_the_target_is_nearer_than_one_far_below():
    x = np.repeat(np.array([1.0, 2.0, 3.0], "float32"), [300, 302, 398])[None]
    assert threshold(x, 0.6)[1] == pytest.approx(0.602)
    assert threshold(x, 0.58)[1] == pytest.approx(0.3)


def test_each_unit_has_its_own():
    x = normal(4000, 3) * np.array([1e-3, 1.0, 50.0], "float32")
    bins = magnitudes.bins_for(3)
    counts = magnitudes.count(ops.convert_to_tensor(x), None, bins)
    t = ops.convert_to_numpy(magnitudes.quantile(counts, 0.8, bins))
    np.testing.assert_allclose(np.mean(np.abs(x) <= t, axis=0), 0.8, atol=0.002)


@pytest.mark.parametrize("units", [1, 64, 1000, 20000])
def test_counts_of_many_units_do_not_grow_for_ever(units):
    bins = magnitudes.bins_for(units)
    assert units * bins.number <= max(2**23, units * 2**11)


def test_padding_does_not_count():
    x = normal(100, 50)
    mask = np.arange(50) < 25
    bins = magnitudes.bins_for(1)
    all_counts = magnitudes.count(
        ops.convert_to_tensor(x), ops.convert_to_tensor(mask[None]), bins
    )
    half = magnitudes.count(ops.convert_to_tensor(x[:, :25]), None, bins)
    np.testing.assert_array_equal(all_counts, half)


@pytest.mark.onednn
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("units", [1, 2])
def test_what_is_not_finite_is_noticed(value, units):
    x = normal(5, 2)
    bins = magnitudes.bins_for(units)
    assert not magnitudes.has_invalid(magnitudes.count(x, None, bins))
    x[3, 1] = value
    assert magnitudes.has_invalid(
        magnitudes.count(ops.convert_to_tensor(x), None, bins)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rounding_never_cuts_the_next_number(dtype):
    x = ops.cast(ops.convert_to_tensor(normal(2000) ** 3), dtype)
    numbers = np.unique(np.abs(ops.convert_to_numpy(ops.cast(x, "float32"))))
    between = (numbers[1:] + numbers[:-1]) / 2
    for exact in (between, numbers[1:] * (1 - 2**-20)):
        t = magnitudes.rounded_down(ops.convert_to_tensor(exact), dtype)
        np.testing.assert_array_equal(t, ops.cast(ops.cast(t, dtype), "float32"))
        assert np.all(ops.convert_to_numpy(t) <= exact)
        assert np.all(ops.convert_to_numpy(t) < numbers[1:])
    t = magnitudes.rounded_down(ops.convert_to_tensor(numbers), dtype)
    np.testing.assert_array_equal(t, numbers)
    assert keras.backend.standardize_dtype(t.dtype) == "float32"


def test_the_zeros_of_many_units_together_are_on_target():
    groups = 4096
    bins = magnitudes.bins_for(groups)
    # The distributions of the units differ, so that bins end elsewhere.
    scales = np.linspace(1, 2, groups)
    x = (np.random.default_rng(0).normal(size=(200, groups)) * scales).astype("float32")
    counts = magnitudes.count(ops.convert_to_tensor(x), None, bins)
    t = ops.convert_to_numpy(magnitudes.quantile(counts, 0.7, bins))
    zeros = np.mean(np.abs(x) <= t, axis=0)
    assert np.mean(zeros) == pytest.approx(0.7, abs=0.002)
    assert np.std(zeros) < 0.03
