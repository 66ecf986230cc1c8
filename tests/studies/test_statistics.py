"""Intervals and tests over seeds, beside SciPy and values worked by hand."""

import numpy as np
import pytest
from scipy import stats

from studies.statistics import holm, interval, paired
from studies.tables import cell, markdown


def test_an_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(3.0, 2.0, (4000, 5))
    intervals = [interval(sample) for sample in samples]
    covers = np.mean([each.low <= 3 <= each.high for each in intervals])
    # Four standard deviations of a share of 4,000.
    assert abs(covers - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)
    wanted = stats.t.interval(0.95, 4, samples[0].mean(), stats.sem(samples[0]))
    assert intervals[0][1:] == pytest.approx(wanted)
    assert intervals[0].half == pytest.approx((wanted[1] - wanted[0]) / 2)


def test_a_paired_difference_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(1)
    baseline = rng.normal(size=10)
    values = baseline + rng.normal(0.5, 1, size=10)
    difference = paired(values, baseline)
    wanted = stats.ttest_rel(values, baseline)
    assert difference.p == pytest.approx(wanted.pvalue)
    assert difference[1:3] == pytest.approx(tuple(wanted.confidence_interval()))
    assert difference.n == 10
    differences = values - baseline
    assert difference.standardized == pytest.approx(
        differences.mean() / differences.std(ddof=1)
    )


def test_one_value_has_no_interval():
    assert interval([2.0])[0] == 2
    assert np.isnan(interval([2.0])[1:]).all()
    one = paired([2.0], [1.5])
    assert (one.mean, one.n) == (0.5, 1)
    assert np.isnan([one.low, one.high, one.p, one.standardized]).all()


def test_no_value_has_no_mean():
    assert np.isnan(interval([])).all()
    none = paired([], [])
    assert none.n == 0
    assert np.isnan([none.mean, none.low, none.high, none.p, none.standardized]).all()


def test_pairs_are_of_the_same_seeds():
    # NumPy would repeat the one baseline.
    with pytest.raises(ValueError, match=r"Received: 3 values and 1 baselines\. Leave"):
        paired([1.0, 2.0, 3.0], [1.0])


def test_differences_without_spread():
    same, moved = paired([1, 2], [1, 2]), paired([2, 3], [1, 2])
    assert (same.mean, same.p) == (0, 1)
    assert (moved.mean, moved.p, moved.standardized) == (1, 0, np.inf)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    corrected = holm([0.04, float("nan"), 0.01])
    assert corrected[0] == pytest.approx(0.04)
    assert corrected[2] == pytest.approx(0.02)
    assert np.isnan(corrected[1])


def test_tables():
    assert cell(0.12345, 0.01) == "0.123 ± 0.010"
    assert cell(0.12345, float("nan"), 2) == "0.12"
    assert cell(None) == cell(float("nan")) == "-"
    assert markdown(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |\n"
