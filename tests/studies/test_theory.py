"""The study of the theorem: its sums over masks, its fits, its tables."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.image import imread

from studies import theory
from studies.parts.theory.mask_enumeration import (
    FAMILIES,
    added_gradients,
    added_loss,
    formula,
    gradients,
    pulls,
)

SMALL = {"features": 3, "samples": 2, "seed": 1}
PARTITION = {
    "Gaussian": lambda theta: theta**2 / 2,
    "logistic": lambda theta: np.log1p(np.exp(theta)),
    "Poisson": np.exp,
}

# The derivatives of these.
MEAN = {
    "Gaussian": lambda theta: theta,
    "logistic": lambda theta: 1 / (1 + np.exp(-theta)),
    "Poisson": np.exp,
}


@pytest.fixture(scope="module")
def done():
    return {settings: theory.run(settings) for settings in theory.tiny()}


def mean_loss(family, a, w, target, rate, q):
    """The mean loss of one sample, mask by mask, by the equation of the method."""
    mean = 0.0
    for keep in itertools.product((0, 1), repeat=len(a)):
        keep = np.array(keep)
        chance = np.prod(np.where(keep, 1 - rate, rate))
        xi = keep / (1 - rate) - 1
        theta = (a + np.sign(a) * np.abs(a) ** (q / 2) * xi) @ w + theory.INTERCEPT
        mean += chance * (PARTITION[family](theta) - target * theta)
    return mean


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mean_over_masks_is_that_of_the_equation(family):
    models = theory.draw_models(theory.Settings(family, **SMALL))
    [a], [w], [targets] = models.activations, models.weights, models.targets
    assert a.min() < 0 < a.max()
    for rate, q in ((0.3, 1.0), (0.5, 3.0)):
        want = sum(
            mean_loss(family, x, w, t, rate, q) - mean_loss(family, x, w, t, 0, q)
            for x, t in zip(a, targets, strict=True)
        )
        np.testing.assert_allclose(added_loss(models, rate, q), want, rtol=1e-9)


def changes(function, models, part, step=1e-6):
    """The derivatives of a function by each number of a part of one model."""
    value = getattr(models, part)
    found = np.empty(value.shape)
    for index in np.ndindex(value.shape):
        by = np.zeros(value.shape)
        by[index] = step
        ahead = function(models._replace(**{part: value + by}))
        behind = function(models._replace(**{part: value - by}))
        found[index] = (ahead - behind)[0] / (2 * step)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_derivatives_unless_the_multiplier_is_held(family):
    models = theory.draw_models(theory.Settings(family, **SMALL))
    rate, q = 0.3, 1.5
    to_a = changes(lambda m: added_loss(m, rate, q), models, "activations")
    to_w = changes(lambda m: added_loss(m, rate, q), models, "weights")
    for held in (False, True):
        by_a, by_w = added_gradients(models, rate, q, held=held)
        np.testing.assert_allclose(by_w, to_w, rtol=1e-6, atol=1e-8)
        assert np.allclose(by_a, to_a, rtol=1e-6, atol=1e-8) is not held
        # Without noise.
        residual = MEAN[family](models.theta) - models.targets
        whole_a, whole_w = gradients(models, rate, q, held=held)
        want = residual[..., None] * models.weights
        np.testing.assert_allclose(whole_a - by_a, want)
        want = np.sum(residual[..., None] * models.activations, axis=1)
        np.testing.assert_allclose(whole_w - by_w, want)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_are_the_gradients_of_the_formula(family):
    models = theory.draw_models(theory.Settings(family, **SMALL))
    rate, q = 0.3, 3.0
    parts = pulls(models, rate, q)
    to_a = changes(lambda m: formula(m, rate, q), models, "activations")
    to_w = changes(lambda m: formula(m, rate, q), models, "weights")
    want = q / 2 * parts.shrinking + parts.tilting
    np.testing.assert_allclose(want, to_a, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(parts.weights, to_w, rtol=1e-6, atol=1e-8)


def test_the_study_has_what_is_asked():
    settings = theory.runs({})
    assert {s.family for s in settings} == {*FAMILIES}
    assert len({s.seed for s in settings}) == theory.SEEDS
    assert all(len(s.qs) >= 5 and len(s.rates) >= 3 for s in settings)
    assert all(2 in s.qs and min(s.qs) < 1 and max(s.qs) > 2 for s in settings)
    for each in settings:
        a = theory.draw_models(each).activations
        assert a.min() < 0 < a.max()
        assert np.abs(a).min() >= theory.SMALLEST


def test_a_gaussian_run_agrees_with_theory(done):
    figures = next(f for s, f in done.items() if s.family == "Gaussian")
    for at in figures["noise"]:
        q = at["q"]
        assert at["order"] is None
        for loss in at["loss"]:
            assert abs(loss["added"] - loss["formula"]) < 1e-12
        whole = at["gradients"][0]
        assert whole["held"] == pytest.approx(1)
        assert whole["through"] == pytest.approx(q / 2)
        assert max(whole["held_misfit"], whole["through_misfit"]) < 1e-9
        assert at["turn"]["held"] == pytest.approx(2 - q, abs=1e-5)
        assert at["turn"]["through"] == pytest.approx(0, abs=1e-5)
        assert at["asymmetry"]["through"] < 1e-8
        assert (at["asymmetry"]["held"] > 0.01) is (q != 2)
    for at in figures["features"]:
        assert at["ridge_gradient"] < 1e-12
        assert at["doubled"] == pytest.approx(2 ** (at["q"] - 2))
        # Each feature keeps its mean square, which is the penalty at q = 2.
        assert (at["removed"] == pytest.approx(1)) is (at["q"] == 2)


def test_errors_fall_with_the_weights_but_not_with_the_rate(done):
    figures = next(f for s, f in done.items() if s.family == "Poisson")
    for at in figures["noise"]:
        # At p = 1/2 the noise is symmetric, and there is no third order.
        want = 4 if at["rate"] == 0.5 else 3
        assert at["order"] == pytest.approx(want, abs=0.1)
    for at in figures["falling_rate"]:
        assert at["order"] == pytest.approx(1, abs=0.05)


def test_an_order_is_the_slope_at_the_end():
    sizes = (1.0, 0.5, 0.25, 0.125)
    errors = [9.0, *(2 * size**3 for size in sizes[1:])]
    assert theory.order(sizes, errors) == pytest.approx(3)
    assert theory.order(sizes, [1e-14, 0.0, 1e-15, 1e-15]) is None


def test_the_report_is_the_same_whatever_comes_first(done, tmp_path):
    kept = {s: json.loads(json.dumps(done[s])) for s in reversed(done)}
    text = theory.tables(done)
    assert theory.tables(kept) == text
    assert "| Gaussian | 0.5 | 1.00 | 1.000 |" in text
    assert "| 3 | 1.5 | 1.500 | 1.000 | 1.000 | 1.000 |" in text
    # No run of this family.
    assert "| logistic | 0.5 | - | - | - | - |" in text
    assert text.count("| met |") == 2
    theory.draw(kept, tmp_path)
    assert imread(tmp_path / "theory.png").shape[1] > 900


def test_a_report_says_what_theory_does_not_explain(done):
    wrong = json.loads(json.dumps([*done.values()]))
    wrong[0]["noise"][0]["gradients"][-1]["held"] = 1.02
    wrong[0]["noise"][0]["loss"][0]["added"] += 1e-5
    text = theory.tables(dict(zip(done, wrong, strict=True)))
    assert text.count("| **not met** |") == 2
    poisson = {s: figures for s, figures in done.items() if s.family == "Poisson"}
    assert "formula differ | - | 1e-06 | - |" in theory.tables(poisson)
    theory_without = {s: f for s, f in done.items() if s.family != "Poisson"}
    assert "| Poisson | - | - | - | - | - |" in theory.tables(theory_without)
