"""The gauntlet asks a small model for all that it asks others for, and judges it."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import gauntlet
from benchmarks.asking import plan, stages, surrogates, tables, train, verdict
from benchmarks.asking.request import FIXED, HELD, PLAIN, SQUARED, Outcome, Request
from benchmarks.jobs import JOBS
from benchmarks.jobs.job import Data, Job

TARGETS = (0.6, 0.7, 0.8)


def small_model():
    layers = [keras.layers.Dense(32, activation="relu", name="hidden")]
    model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model


def rows():
    x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    y = x[:, :1] * x[:, 1:2]
    return Data(x[:192], y[:192], x[192:], y[192:])


@pytest.fixture
def job(monkeypatch):
    small = Job(
        name="small",
        what="a model for tests",
        build=small_model,
        data=rows,
        layers=("hidden",),
        epochs=2,
        batch_size=16,
        targets=TARGETS,
        shares=TARGETS,
        weights=(0.01, 0.1),
    )
    monkeypatch.setitem(JOBS, small.name, small)
    return small


class Here:
    """Trains in this process, in place of others."""

    def __init__(self, processes):
        pass

    def run(self, requests):
        for request in requests:
            answer = train.answer(request.to_json())
            yield request, Outcome(**answer)


def test_a_small_run_writes_each_figure_that_it_measured(
    job, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(gauntlet, "Pool", Here)
    command = ["--quick", "--jobs", "small", "--actuators", "weight", "--seeds", "1"]
    gauntlet.main([*command, "--out", str(tmp_path)])
    with open(tmp_path / gauntlet.CSV, newline="") as file:
        runs = list(csv.DictReader(file))
    ways = [run["way"] for run in runs]
    assert ways == [
        *[PLAIN, FIXED, FIXED],
        *["weight", "staged weight", SQUARED, verdict.NEAREST],
    ]
    asked = runs[3:]
    assert {run["target"] for run in asked} == {"0.7"}
    for run in runs:
        assert 0 < float(run["figure"]) < 1
        assert run["error"] == ""
    for run in asked:
        gap = abs(float(run["figure"]) - 0.7)
        assert float(run["gap"]) == pytest.approx(gap)
        assert run["met"] == str(gap <= verdict.NEAR)
        lost = float(runs[0]["score"]) - float(run["score"])
        assert float(run["lost"]) == pytest.approx(lost)
    # A larger weight makes more zeros.
    assert float(runs[1]["figure"]) < float(runs[2]["figure"])
    text = (tmp_path / gauntlet.MARKDOWN).read_text()
    assert text in capsys.readouterr().out
    assert "### small\n\na model for tests" in text


def test_every_job_has_its_layers_three_targets_and_five_weights():
    for name, job in JOBS.items():
        assert name == job.name
        assert len(job.weights) == 5
        assert len(job.targets) == len(job.shares) == 3
        for numbers in (job.weights, job.targets, job.shares):
            assert list(numbers) == sorted(numbers)
        model = job.build()
        for layer in job.layers:
            assert model.get_layer(layer).activity_regularizer is None
    assert len({job.what for job in JOBS.values()}) == len(JOBS)


def outcomes_of(job, figures, score=1.0):
    """Outcomes with these mean figures, by request."""
    return {
        request: Outcome("zero_fraction", dict.fromkeys(job.layers, figure), score)
        for request, figure in figures.items()
    }


def test_q_is_asked_for_what_all_seeds_reach(job):
    low, high = plan.ACTUATORS["q"].default_bounds
    ends = {
        Request("small", HELD, 1, (), low): 0.8,
        Request("small", HELD, 2, (), low): 0.7,
        Request("small", HELD, 1, (), high): 0.4,
        Request("small", HELD, 2, (), high): 0.5,
    }
    asked = plan.Plan(["small"], ["q"], [1, 2], today=False)
    assert {r for r in asked.first() if r.way == HELD} == {*ends}
    second = asked.second(outcomes_of(job, ends))
    assert [request.target["hidden"] for request in second] == [
        *[0.55, 0.55, 0.6, 0.6, 0.65, 0.65]
    ]
    narrow = outcomes_of(job, dict.fromkeys(ends, 0.6))
    assert asked.second(narrow) == []
    assert "hidden 0.600 to 0.600" in asked.left_out(narrow)["q in small"]


def test_a_run_is_judged_beside_the_plain_model_and_fixed_weights(job):
    target = (("hidden", 0.7),)
    found = {
        Request("small", PLAIN, 1): (0.5, 0.9),
        Request("small", FIXED, 1, (), 0.01): (0.6, 0.9),
        Request("small", FIXED, 1, (), 0.1): (0.8, 0.7),
        Request("small", "penalty", 1, target): (0.71, 0.85),
        Request("small", "weight", 1, target): (0.75, 0.6),
    }
    outcomes = {}
    for request, (figure, score) in found.items():
        outcomes |= outcomes_of(job, {request: figure}, score)
    near, far, nearest = verdict.judge(outcomes)
    assert (near.met, far.met) == (True, False)
    assert near.lost == pytest.approx(0.05)
    # Between .9 at .6 and .7 at .8 there is .79 at .71.
    assert near.ahead == pytest.approx(0.85 - 0.79)
    assert far.gaps == [pytest.approx(0.05)]
    assert nearest.request.way == verdict.NEAREST
    assert nearest.gaps == [pytest.approx(0.1)]
    text = tables.missed([near, far], ["penalty", "weight"])
    assert text == "- small, weight, seed 1, zero_fraction: hidden 0.750 of 0.7"
    alone = {r: o for r, o in outcomes.items() if r.way not in (FIXED, "weight")}
    [only] = verdict.judge(alone)
    assert only.met


def test_the_gap_of_a_run_is_the_mean_over_its_layers(job):
    request = Request("small", "penalty", 1, (("a", 0.7), ("b", 0.5)))
    outcomes = {request: Outcome("zero_fraction", {"a": 0.73, "b": 0.5}, 1.0)}
    [table, *_] = tables.tables(verdict.judge(outcomes), outcomes)
    figures = table.rows[0].figures
    assert (figures["met %"], figures["gap met %"]) == (0, 100)
    assert figures["gap"] == pytest.approx(0.015)


def test_a_run_that_failed_is_missed_and_says_why(job):
    request = Request("small", "penalty", 1, (("hidden", 0.7),))
    outcomes = {request: Outcome(error="ValueError: no")}
    [failed] = verdict.judge(outcomes)
    assert not failed.met
    assert (failed.lost, failed.ahead) == (None, None)
    assert tables.missed([failed], ["penalty"]).endswith("ValueError: no")
    assert "inf" in tables.as_csv([failed], outcomes)
    [table, *_] = tables.tables([failed], outcomes)
    assert table.rows[0].figures["met %"] == 0


def test_a_staged_weight_rises_to_the_last():
    weights = [stages.staged(done / 100) for done in range(101)]
    assert weights == sorted(weights)
    assert weights[0] == weights[25] == stages.WEIGHTS[0]
    assert weights[50] == stages.WEIGHTS[1]
    assert {*weights[75:]} == {1.0}


def test_the_squared_loss_pulls_toward_its_target():
    x = tf.constant([[0.02, 0.03, 1.0, 2.0]])

    def slope(target):
        layer = surrogates.JumpReLU(target)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            [loss] = layer.losses
        assert y.numpy().tolist() == x.numpy().tolist()
        return float(loss), tape.gradient(loss, x).numpy()[0]

    loss, slopes = slope(0.5)
    assert loss == pytest.approx(1.0)
    # Fewer are to be active: what is near the threshold falls.
    assert (slopes[:2] > 0).all()
    assert (slopes[2:] == 0).all()
    loss, slopes = slope(0.0)
    assert loss == pytest.approx(0.0)
    assert not slopes.any()


def test_the_loss_on_hoyer_leaves_masked_timesteps_out():
    x = np.array([[[1.0, 0, 0, 0], [1, 1, 1, 1]]], "float32")
    layer = surrogates.HoyerLoss(0.5)
    layer(x, mask=np.array([[True, False]]))
    assert float(layer.losses[0]) == pytest.approx(1.0)
    layer(x)
    assert float(layer.losses[0]) == pytest.approx(0.0)
