"""The study `sparsity`: its runs, one run, and what follows from made-up figures."""

import dataclasses

import numpy as np
import pytest
import two_classes

from studies import sparsity
from studies.parts.sparsity import findings
from studies.parts.sparsity.curves import (
    DROPOUT,
    Curve,
    at_sparsity,
    curves,
    with_shared,
)

Settings = sparsity.Settings
HELD = Curve("held", 0.5)


@pytest.fixture
def few_images(monkeypatch):
    data = [two_classes.images(*part, size=28) for part in ((0, 192), (1, 64), (2, 96))]
    monkeypatch.setattr(sparsity.fashion_cnn, "load_data", lambda name: (data, 2))


def test_all_runs_are_listed_the_main_curves_first():
    runs = sparsity.runs({})
    assert len(runs) == len(set(runs))
    by_seed = [
        {dataclasses.replace(run, seed=0) for run in runs if run.seed == seed}
        for seed in sparsity.SEEDS
    ]
    assert by_seed[0] == by_seed[1] == by_seed[2]
    for task in ("classifier", "autoencoder"):
        one = {run for run in by_seed[0] if run.task == task}
        plain = {run for run in one if run.activation == "relu" and not run.batch_norm}
        for rate in (0.3, 0.5):
            held = {r.setting for r in plain if (r.method, r.rate) == ("held", rate)}
            assert held == {0.5, 1, 1.5, 2, 2.5, 3, 4}
        for other in ({"activation": "tanh"}, {"batch_norm": True}):
            wanted = {
                Settings(task=task, setting=q, rate=0.5, **other) for q in (1, 2, 3)
            }
            assert wanted <= one
        for method, qs in (("through", {1, 3}), ("fraction", {1, 1.5, 2, 3})):
            assert {run.setting for run in plain if run.method == method} == qs
        assert Settings(task=task, method="nothing", setting=0, rate=0) in plain
        for method in ("l1", "hoyer_square", "threshold", "top_k"):
            assert len({r.setting for r in plain if r.method == method}) >= 4
    first = [run for run in runs[: len(runs) // 3] if run.task == "classifier"]
    assert {run.method for run in first if run.rate in (0, 0.5)} == {
        "held",
        "nothing",
        "l1",
        "hoyer_square",
        "threshold",
        "top_k",
    }
    # All seeds of a setting stand together.
    assert [run.seed for run in runs[:6]] == [0, 1, 2, 0, 1, 2]


def test_a_run_of_the_classifier_has_all_figures(few_images):
    settings = Settings(method="threshold", setting=0.8, epochs=2)
    figures = sparsity.run(settings)
    assert set(figures) == {
        "loss",
        "hoyer",
        "zeros",
        "dead",
        "rms",
        "needless",
        "needless_whole",
        "accuracy",
    }
    assert figures["accuracy"] > 0.9
    assert figures["zeros"] == pytest.approx(0.8, abs=0.1)
    # Each unit is read equally often.
    assert figures["needless"] == pytest.approx(figures["zeros"], abs=1e-6)
    # No pixel is 0.
    needless = figures["zeros"] * 256 * 10 / (784 * 256 + 256 * 10)
    assert figures["needless_whole"] == pytest.approx(needless, abs=1e-6)


def test_the_loss_has_no_penalty_in_it(few_images):
    settings = Settings("autoencoder", "l1", 10.0, 0.0, epochs=1)
    figures = sparsity.run(settings)
    # The penalty is 10 times the sum of 256 activations; the pixels have variance 1.
    assert figures["loss"] < 3
    assert "accuracy" not in figures


def made_up(rows):
    """Figures of three seeds, a little apart, by (method, rate) and setting."""
    return {
        Settings(method=method, rate=rate, setting=setting, seed=seed): {
            "hoyer": hoyer + 0.001 * seed,
            "zeros": hoyer,
            "needless": hoyer,
            "accuracy": accuracy + 0.001 * seed,
            "loss": 1.0,
            "dead": 0.1,
            "rms": 1.0,
        }
        for (method, rate, setting), (hoyer, accuracy) in rows.items()
        for seed in range(3)
    }


FIGURES = made_up(
    {
        ("held", 0.5, 1.0): (0.8, 0.80),
        ("held", 0.5, 2.0): (0.6, 0.86),
        ("held", 0.5, 3.0): (0.5, 0.87),
        ("nothing", 0.0, 0.0): (0.55, 0.85),
        ("l1", 0.0, 1e-3): (0.9, 0.85),
        ("l1", 0.5, 1e-3): (0.7, 0.76),
    }
)


def test_curves_have_the_points_that_they_share():
    whole = with_shared(curves(FIGURES)["classifier"])
    dropout = whole[HELD][2.0]
    assert whole[DROPOUT] == {0.0: whole[Curve("nothing")][0.0], 0.5: dropout}
    assert whole[Curve("l1")][0.0] == whole[Curve("nothing")][0.0]
    assert whole[Curve("l1", 0.5)][0.0] == dropout
    done = FIGURES | made_up({("through", 0.5, 1.0): (0.7, 0.8)})
    through = with_shared(curves(done)["classifier"])[Curve("through", 0.5)]
    assert list(through) == [1.0, 2.0]
    assert through[2.0] == dropout


def test_a_figure_is_interpolated_at_a_sparsity():
    points = with_shared(curves(FIGURES)["classifier"])[Curve("l1", 0.5)]
    # Half way from Dropout to L1, for this seed.
    found = at_sparsity(points, 2, "hoyer", 0.652, "accuracy")
    assert found == pytest.approx((0.86 + 0.76) / 2 + 0.002)
    assert np.isnan(at_sparsity(points, 2, "hoyer", 0.601, "accuracy"))


def test_a_rival_is_named_where_it_is_better_and_where_not():
    whole = with_shared(curves(FIGURES)["classifier"])
    found = findings.differences("classifier", whole, "hoyer")
    at_1 = found[Curve("l1")][1.0]
    assert at_1.mean == pytest.approx(0.05)
    assert found[Curve("l1")][3.0] is None
    assert findings.is_same(found[Curve("l1", 0.5)][2.0])
    sentences = findings.rival_sentences("classifier", "hoyer", found)
    start = "classifier, L1, at the Hoyer sparsity of Sparseout 0.5: "
    [l1] = [each for each in sentences if each.startswith(start)]
    assert l1.removeprefix(start) == (
        "**higher accuracy** at q = 1; lower accuracy at q = 2; "
        "out of its reach at q = 3."
    )
    # A lower loss is better.
    assert (
        findings.side("autoencoder", at_1) == -findings.side("classifier", at_1) == -1
    )


def test_steps_of_q_that_do_not_fall_are_named():
    [found] = findings.control_sentences(
        "classifier", {HELD: curves(FIGURES)["classifier"][HELD]}
    )
    assert "falls at each step of q from 1 to 3, in all 3 seeds" in found
    rising = dict(FIGURES)
    for seed in (0, 1):
        rising[Settings(setting=3.0, seed=seed)] = {"hoyer": 0.65}
    points = curves(rising)["classifier"][HELD]
    assert findings.control(points, "hoyer") == findings.Control(
        1, 3, {(2.0, 3.0): [0, 1]}, []
    )
    [found] = findings.control_sentences("classifier", {HELD: points})
    assert found.startswith("**Not monotone.** classifier, Sparseout 0.5")
    assert "does not fall from q = 2 to 3 in 2 of 3 seeds." in found


def test_collapse_is_named():
    dead = {run: figures | {"dead": 0.6} for run, figures in FIGURES.items()}
    parts = curves(dead)["classifier"]
    assert findings.collapse_sentences("classifier", curves(FIGURES)) == []
    [found] = findings.collapse_sentences("classifier", parts)
    assert "Sparseout 0.5 at 1 (0.60), " in found


def test_the_report_stands_with_runs_missing_and_figures_that_are_none():
    full = sparsity.tables(FIGURES)
    assert "| Sparseout 0.5 | 1 | 3 | 0.801 ± 0.002 | 1.000 ± 0.000 | 0.801" in full
    assert full == sparsity.tables(FIGURES)
    few = dict(list(FIGURES.items())[:4])
    few[Settings(setting=1.0, seed=0)] = dict.fromkeys(few[Settings(setting=1.0)])
    assert "| Sparseout 0.5 | 1 | 3 |" in sparsity.tables(few)
    one = {Settings(): FIGURES[Settings()]}
    assert "| Sparseout 0.5 | 2 | 1 | 0.860 | 1.000 | 0.600 |" in sparsity.tables(one)


def test_pictures_are_drawn(tmp_path):
    few = made_up({("held", 0.5, 1.0): (0.8, 0.8), ("held", 0.5, 3.0): (0.5, 0.87)})
    sparsity.draw(few, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "frontier_classifier.png",
        "variants_classifier.png",
        "q_classifier.png",
    }
