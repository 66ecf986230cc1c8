"""`sparsify` within a budget of multiply-accumulates."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from sparsified import gated, normal, run, thresholds

from keras_sparseout import activation_sparsity, sparsify
from keras_sparseout.models.thresholds import macs_budget
from keras_sparseout.models.thresholds.macs_budget import Costs

X, NEW = normal(256, 16), normal(256, 16, seed=1)


def uneven():
    """A model whose layers differ: one is wide, one hardly matters, one is a ReLU."""
    inputs = keras.Input((16,))
    wide = kl.Dense(256, "gelu", name="wide")(inputs)
    x = kl.Dense(64, "relu", name="rectified")(wide)
    side = kl.Dense(64, "tanh", name="side")(wide)
    side = kl.Dense(8, name="end")(kl.Rescaling(0.01, name="small")(side))
    return keras.Model(inputs, kl.Dense(8, name="main")(x) + side)


def test_the_budget_is_kept_and_the_outputs_change_less_than_with_one_quantile():
    model = uneven()
    sparse, table = sparsify(model, X, budget=0.5, return_table=True, verbose=0)
    share = table.effective_macs / table.macs
    assert 0.49 <= share <= 0.5
    # On unseen data too: 256 samples of some hundred activations.
    for x, near in ((X, 1e-4), (NEW, 0.01)):
        # One row takes less time to trace; the MACs are those of all layers.
        counted = activation_sparsity(sparse, x, layers="main")
        measured = counted.effective_macs / counted.macs
        assert measured == pytest.approx(share, abs=near)
    # Of 37,888 products 4,096 stay: this leaves a few more than half.
    alike, other = sparsify(model, X, 0.555, return_table=True, verbose=0)
    assert other.effective_macs > table.effective_macs
    plain = run(model, NEW)
    mine, others = (np.mean((run(m, NEW) - plain) ** 2) for m in (sparse, alike))
    assert mine < 0.7 * others
    by_name = {row["layer"]: row["zeros_after"] for row in table.rows}
    assert by_name["end"] > by_name["main"]


def test_a_budget_that_needs_nothing_changes_nothing():
    model = gated(16)
    model.get_layer("second").activation = keras.activations.relu
    sparse, table = sparsify(model, X, budget=1, return_table=True, verbose=0)
    assert thresholds(sparse) == {}
    assert sparse is not model
    assert [row["target"] for row in table.rows] == [None] * 3
    assert table.change == 0
    assert table.effective_macs == table.effective_macs_before
    assert "Left as they were by the budget: head, second, third." in table.notes
    np.testing.assert_array_equal(run(sparse, X), run(model, X))


def test_a_budget_below_what_is_reachable_says_the_least():
    # Of 16 * 16 + 16 * 16 + 16 * 16 + 16 * 3 products the first 256 stay.
    least = (256 + 0.01 * 560) / 816
    with pytest.raises(
        ValueError, match=r"here 0\.3(19|2\d)\. Received: budget=0\.3\."
    ):
        sparsify(gated(16), X[:64], budget=0.3, verbose=0)
    assert 0.319 <= least <= 0.329
    sparse, table = sparsify(
        gated(16), X[:64], budget=0.3, layers="dense", return_table=True, verbose=0
    )
    assert 0.29 <= table.effective_macs / table.macs <= 0.3
    assert "first_threshold" in thresholds(sparse)


def costs(errors, effective=(100.0, 100.0), natural=(0.0, 0.0), fixed=0.0):
    macs = sum(effective) / (1 - fixed)
    errors = np.array(errors, float)
    return Costs(np.array(natural), np.array(effective), fixed, macs, errors)


def kept(targets, natural=(0.0, 0.0)):
    """The share of the activations that are not zero by nature that stay."""
    return [(1 - t) / (1 - z) for t, z in zip(targets, natural, strict=True)]


GRID = np.array(macs_budget._GRID)


def test_equal_places_get_equal_targets():
    targets = macs_budget._targets(costs([(1 - GRID) ** 2] * 2), 0.5)
    # Places take turns along edges of the hull, at most a two hundredth apart.
    np.testing.assert_allclose(kept(targets), [0.5, 0.5], atol=0.011)
    assert sum(kept(targets)) == pytest.approx(1, abs=1e-3)


def test_the_zeros_go_where_the_error_per_mac_rises_least():
    # d error / d MACs: 2 (1 - k) and 6 (1 - k), so 1 - k is as 3 to 1.
    targets = macs_budget._targets(costs([(1 - GRID) ** 2, 3 * (1 - GRID) ** 2]), 0.6)
    np.testing.assert_allclose(kept(targets), [0.4, 0.8], atol=0.02)
    # Three times the MACs for three times the error: as good a deal.
    targets = macs_budget._targets(
        costs([(1 - GRID) ** 2, 3 * (1 - GRID) ** 2], effective=(100.0, 300.0)), 0.6
    )
    np.testing.assert_allclose(kept(targets), [0.6, 0.6], atol=0.02)


def test_zeros_by_nature_and_fixed_macs_are_taken_into_account():
    natural = (0.5, 0.0)
    targets = macs_budget._targets(
        costs([(1 - GRID) ** 2] * 2, natural=natural, fixed=0.5), 0.75
    )
    np.testing.assert_allclose(kept(targets, natural), [0.5, 0.5], atol=0.011)
    assert targets[0] == pytest.approx(0.75, abs=0.01)
    # No MACs come after the second: it stays as it is.
    targets = macs_budget._targets(
        costs([(1 - GRID) ** 2] * 2, effective=(100.0, 0.0)), 0.5
    )
    assert kept(targets) == pytest.approx([0.5, 1], abs=1e-3)


def test_an_error_that_falls_counts_as_one_that_stays():
    falling = np.where(GRID < 0.5, 0.1, 1.0)
    edges = macs_budget._hull(falling, 100.0)
    slopes = [slope for slope, _, _ in edges]
    assert slopes == sorted(slopes)
    assert edges[-1][1] == pytest.approx(GRID[-1])
    assert sum(saved for _, _, saved in edges) == pytest.approx(99)


@pytest.mark.parametrize(("places", "samples"), [(1, 512), (13, 252), (200, 32)])
def test_many_places_are_measured_on_fewer_samples(places, samples):
    assert macs_budget.wanted_samples(places) == samples
