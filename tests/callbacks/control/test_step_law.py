"""The law of control inside the training step, on plants that are known."""

import numpy as np
import pytest

from keras_sparseout.callbacks.control import step_law
from keras_sparseout.callbacks.control.step_control import LAWS
from keras_sparseout.callbacks.control.step_law import Law, Plan, State

# The push of a penalty is moved on this scale up to 1,000 times that of the loss.
PENALTY = LAWS["penalty"]._replace(low=0.0, high=8.0)
THRESHOLD = LAWS["threshold"]._replace(low=0.0, high=0.99, feedforward=1.0)


@pytest.fixture
def by_numpy(monkeypatch):
    """The same algebra by NumPy: a hundred times as fast as single operations."""
    monkeypatch.setattr(step_law, "ops", np)


def state(groups=1, **fields):
    zeros = State(*np.zeros((len(State._fields), groups), "float32"))
    return zeros._replace(**{k: np.float32([v] * groups) for k, v in fields.items()})


def plan(batches, setpoint, reach_by=0.5, **fields):
    numbers = {
        "setpoint": setpoint,
        "ramp": reach_by * batches,
        "unit": np.clip(batches / 200, 1, 32),
        "blocked": 0,
        "frozen": 0,
        **fields,
    }
    return Plan(**{name: np.float32([n]) for name, n in numbers.items()})


def step(law, before, told, figure):
    new = step_law.step(law, before, told, np.float32([figure]))
    return State(*map(np.asarray, new))


def run(law, told, batches, plant, begin=None):
    """The figures of a run, its outputs, and the last state."""
    now, figures, outputs = begin or state(), [], []
    for _ in range(batches):
        figures.append(plant(float(now.output[0])))
        now = step(law, now, told, figures[-1])
        outputs.append(float(now.output[0]))
    return np.array(figures), np.array(outputs), now


def first_order(at_rest, effect, time, noise=0.0, seed=0):
    """A plant that goes to `at_rest` + `effect` times the output, within `time`."""
    rng, now = np.random.default_rng(seed), [at_rest]

    def plant(output):
        now[0] += (at_rest + effect * output - now[0]) / max(time, 1)
        return np.clip(now[0] + rng.normal() * noise, 0, 1)

    return plant


@pytest.mark.parametrize(
    ("batches", "target"),
    [(100, 0.6), (200, 0.7), (800, 0.85), (3000, 0.7), (8000, 0.8)],
)
def test_a_plant_with_lag_and_noise_is_at_the_target_when_the_ramp_ends(
    by_numpy, batches, target
):
    unit = np.clip(batches / 200, 1, 32)
    plant = first_order(0.5, 0.06, 4 * unit, noise=0.01)
    figures, _, _ = run(PENALTY, plan(batches, target), batches, plant)
    ends, eighth = batches // 2, batches // 8
    assert figures[ends : ends + eighth].mean() == pytest.approx(target, abs=0.02)
    assert figures[-eighth:].mean() == pytest.approx(target, abs=0.02)
    # On the way it follows the ramp.
    assert figures[ends // 2 :][:eighth].mean() < (0.5 + 2 * target) / 3


def test_a_threshold_follows_at_once(by_numpy):
    plant = first_order(0.0, 1.0, 1, noise=0.02)
    figures, outputs, _ = run(THRESHOLD, plan(100, 0.6), 100, plant)
    assert figures[60:].mean() == pytest.approx(0.6, abs=0.02)
    assert np.max(outputs) < 0.7


def test_above_the_target_the_output_never_rises(by_numpy):
    plant = first_order(0.9, 0.05, 5, noise=0.01)
    _, outputs, _ = run(PENALTY, plan(400, 0.6), 400, plant)
    assert np.all(outputs == 0)
    # After a push that was too strong it comes down.
    began = state(output=3.0, integral=3.0, recent=3.0)
    _, outputs, _ = run(PENALTY, plan(400, 0.6), 400, plant, began)
    assert np.all(np.diff(outputs) <= 0)
    assert outputs[-1] == 0


@pytest.mark.parametrize("figure", [np.nan, np.inf, -np.inf])
def test_a_figure_that_is_not_finite_changes_nothing(figure):
    before = state(
        batches=9, level=0.4, slope=0.01, start=0.3, integral=1, output=2, recent=1.5
    )
    after = step(PENALTY, before, plan(400, 0.7), figure)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_by_numpy_it_is_the_same(monkeypatch):
    runs = []
    for _ in range(2):
        now, told = state(), plan(200, 0.7)
        for figure in (0.5, 0.52, 0.49, 0.55, 0.47, 0.5, 0.53):
            now = step(PENALTY, now, told, figure)
        runs.append(now)
        monkeypatch.setattr(step_law, "ops", np)
    np.testing.assert_allclose(*map(np.stack, runs), rtol=1e-4, atol=1e-6)
    assert runs[0].output > 0


def test_groups_do_not_touch_each_other():
    told = Plan(*(np.repeat(v, 2) for v in plan(200, 0.7)))
    both, alone = state(2), state()
    for figure in (0.5, 0.52, 0.49, 0.5, 0.53):
        figures = np.float32([figure, np.nan])
        both = State(*map(np.asarray, step_law.step(PENALTY, both, told, figures)))
        alone = step(PENALTY, alone, plan(200, 0.7), figure)
    for pair, one in zip(both, alone, strict=True):
        np.testing.assert_allclose(pair[0], one[0], rtol=1e-6)
        assert pair[1] == 0


def test_frozen_the_output_is_the_recent_mean(by_numpy):
    plant = first_order(0.5, 0.06, 4, noise=0.01)
    _, _, moved = run(PENALTY, plan(200, 0.7), 150, plant)
    frozen = plan(200, 0.7, frozen=1)
    _, outputs, after = run(PENALTY, frozen, 20, plant, moved)
    np.testing.assert_allclose(outputs, moved.recent[0], rtol=1e-5)
    assert after.integral == moved.integral
    assert moved.recent[0] != moved.output[0]


def test_blocked_the_output_may_fall_but_not_rise(by_numpy):
    before = state(batches=50, level=0.4, start=0.3, integral=1, output=1, recent=1)
    blocked = plan(200, 0.8, blocked=1)
    _, outputs, after = run(PENALTY, blocked, 30, lambda output: 0.4, before)
    assert np.all(outputs == 1)
    assert after.integral == 1
    _, outputs, _ = run(PENALTY, blocked, 100, lambda output: 0.95, before)
    assert np.all(np.diff(outputs) <= 0)
    assert outputs[-1] < 0.5


def test_nothing_moves_while_the_first_figures_come(by_numpy):
    warm_up = int(step_law.WARM_UP)
    _, outputs, _ = run(PENALTY, plan(200, 0.9), warm_up + 3, lambda output: 0.3)
    assert np.all(outputs[:warm_up] == 0)
    assert outputs[-1] > 0


def test_a_step_of_the_output_is_bounded(by_numpy):
    law = Law(gain=1000.0, integral_time=1.0, lag=0.0, slew=0.25, high=5.0)
    figures = np.random.default_rng(0).uniform(0, 1, 60)
    stream = iter(figures)
    _, outputs, _ = run(law, plan(60, 0.7), 60, lambda output: next(stream))
    assert np.max(np.abs(np.diff(outputs))) <= 0.25 + 1e-6
    assert outputs.min() >= 0
    assert outputs.max() <= 5


def test_the_first_figures_weigh_alike():
    figures = [0.3, 0.5, 0.4, 0.6]
    now = state()
    for figure in figures:
        now = step(PENALTY, now, plan(20000, 0.7), figure)
    line = np.polyfit(range(4), figures, 1)
    np.testing.assert_allclose(now.level, np.polyval(line, 3), rtol=1e-5)
    np.testing.assert_allclose(now.slope, line[0], rtol=1e-4)


def test_a_target_out_of_reach_does_not_wind_up(by_numpy):
    """Once it is in reach, the output comes off its bound within the lag."""
    law = PENALTY._replace(high=2.0)
    _, _, stuck = run(law, plan(400, 0.9), 300, first_order(0.5, 0.05, 4))
    assert stuck.output == 2
    assert stuck.integral <= 2
    _, outputs, _ = run(law, plan(400, 0.55), 60, first_order(0.6, 0.05, 4), stuck)
    assert outputs[-1] < 2
