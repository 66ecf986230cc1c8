"""The loop of SparsityController, on a plant of one line: no network, no noise."""

import dataclasses
import math

import numpy as np
import pytest

from keras_sparseout.callbacks.control.actuators import ACTUATORS
from keras_sparseout.callbacks.control.feedback_loop import (
    INTEGRAL_TIME,
    FeedbackLoop,
    LoopState,
)


def loop(target=0.6, setting=2.0, bounds=(0.5, 8.0), actuator="q", **kwargs):
    state = {k: kwargs.pop(k) for k in LoopState._fields if k in kwargs}
    controlled = FeedbackLoop(target, setting, ACTUATORS[actuator], bounds, **kwargs)
    controlled.state = controlled.state._replace(**state)
    return controlled


def free(target, **state):
    """A loop far into the run, whose setting may go anywhere at once."""
    controlled = loop(target, bounds=(1e-6, 8.0), readings=100, **state)
    controlled.actuator = dataclasses.replace(controlled.actuator, slew_limit=100.0)
    return controlled


def follow(controlled, plant, readings=400, start=0.5):
    """The figure after some readings of a plant that follows its setting slowly."""
    figure = start
    for _ in range(readings):
        figure += (plant(controlled.setting) - figure) / 20
        controlled.update(figure)
    return figure


@pytest.mark.parametrize(
    ("actuator", "strength", "lag"),
    [("q", -20.0, 3), ("rate", 40.0, 3), ("weight", 30.0, 1)],
)
@pytest.mark.parametrize(("readings", "share"), [(4, 0.25), (16, 1.0), (40, 1.0)])
def test_a_reading_moves_the_setting_by_error_and_slope(
    actuator, strength, lag, readings, share
):
    bounds = (0.01, 0.9)
    before = {"readings": readings - 1, "level": 0.589, "slope": 0.001}
    controlled = loop(0.6, 0.3, bounds, actuator, gain=0.5, **before)
    integral = controlled.state.integral
    controlled.update(0.59)
    expected = share * 0.5 * strength * (0.01 - lag * 0.001)
    assert controlled.state.output - integral == pytest.approx(expected)
    assert controlled.mean_setting == pytest.approx(
        controlled.actuator.from_scale(integral / readings)
    )


@pytest.mark.parametrize("target", [0.5, 0.6, 0.7, 0.8])
def test_it_reaches_the_target_with_q(target):
    # About what Sparseout does: .84 at q = .5, .51 at q = 4.
    reached = follow(loop(target), lambda q: 0.73 - 0.16 * math.log(q))
    assert reached == pytest.approx(target, abs=0.003)


@pytest.mark.parametrize("start", [0.0, 0.05])
def test_it_reaches_the_target_with_a_weight(start):
    controlled = loop(0.8, start, (0.0, 0.1), "weight")
    reached = follow(controlled, lambda w: 0.6 + 0.35 * w / (w + 0.01))
    assert reached == pytest.approx(0.8, abs=0.003)
    assert controlled.setting == pytest.approx(0.0133, rel=0.1)


def test_the_sign_turns_it_round():
    def plant(rate):
        return 0.8 - 0.3 * rate

    right = loop(0.65, 0.2, (0.05, 0.9), "rate", sign=-1)
    assert follow(right, plant) == pytest.approx(0.65, abs=0.003)
    wrong = loop(0.65, 0.2, (0.05, 0.9), "rate")
    assert abs(follow(wrong, plant) - 0.65) > 0.1


def test_it_stays_at_a_bound_and_leaves_it_at_once():
    controlled = loop(0.9, bounds=(1.0, 4.0))
    assert follow(controlled, lambda q: 0.7 - 0.1 * math.log(q)) < 0.71
    assert controlled.setting == 1.0
    # 2,000 readings at the bound are no more than 200: nothing wound up.
    follow(controlled, lambda q: 0.7 - 0.1 * math.log(q), readings=2000)
    controlled.target = 0.6
    settings = [controlled.update(0.7) for _ in range(3)]
    assert settings[0] > 1.0
    assert settings == sorted(settings)


def test_a_step_is_never_larger_than_the_slew():
    controlled = loop(0.9)
    before = controlled.state.output
    for figure in (0.1, 0.9, 0.1, 0.9) * 20:
        controlled.update(figure)
        step = abs(controlled.state.output - before)
        assert step <= controlled.actuator.slew_limit + 1e-12
        before = controlled.state.output


def test_errors_in_the_dead_band_add_nothing():
    still, moving = loop(0.6, dead_band=0.01), loop(0.6)
    for _ in range(100):
        still.update(0.595)
        moving.update(0.595)
    assert still.state.integral == still.actuator.to_scale(2.0)
    assert moving.state.integral < still.state.integral


def test_blocked_it_moves_toward_denser_only():
    controlled = loop(0.8)
    controlled.block_sparser(True)
    for _ in range(50):
        controlled.update(0.5)
    assert controlled.setting == 2.0
    controlled.target = 0.3
    for _ in range(50):
        controlled.update(0.5)
    assert controlled.setting > 2.0


def test_the_setpoint_moves_to_the_gap():
    controlled = loop(0.6)
    controlled.shift_setpoint(0.5)
    assert controlled.state.setpoint_offset == 0.0  # There is no training figure yet.
    controlled.update(0.62)
    # By a half, a third, and then by a quarter each time.
    for left in (1 / 2, 1 / 3, 1 / 4, 3 / 16):
        controlled.shift_setpoint(0.58)
        assert controlled.state.setpoint_offset == pytest.approx(0.04 * (1 - left))
    for _ in range(40):
        controlled.shift_setpoint(0.58)
    assert controlled.state.setpoint_offset == pytest.approx(0.04, abs=1e-5)
    assert controlled.error == pytest.approx(0.02, abs=1e-5)


def test_the_smoothed_figure_is_not_late():
    controlled = loop(0.9)
    for reading in range(60):
        controlled.update(0.3 + 0.002 * reading)
    latest = 0.3 + 0.002 * 59
    assert controlled.state.level == pytest.approx(latest, abs=1e-9)
    assert controlled.state.slope == pytest.approx(0.002, abs=1e-9)
    # Nor is the setpoint drawn down, as if training and probe data differed.
    controlled.shift_setpoint(latest)
    assert controlled.state.setpoint_offset == pytest.approx(0, abs=1e-9)


def test_the_first_readings_make_a_line_of_least_squares():
    controlled = loop(0.9)
    figures = [0.5, 0.53, 0.51, 0.56]
    for figure in figures:
        controlled.update(figure)
    slope, start = np.polyfit(range(4), figures, 1)
    assert controlled.state.slope == pytest.approx(slope)
    assert controlled.state.level == pytest.approx(start + 3 * slope)


def test_noise_comes_through_less():
    noise = np.random.default_rng(0).normal(size=20_000)
    controlled = loop(0.9)
    smoothed = []
    for value in noise:
        controlled.update(value)
        smoothed.append((controlled.state.level, controlled.state.slope))
    found = np.std(smoothed[100:], axis=0)
    g, h = 1 - 0.7**2, (1 - 0.7) ** 2
    variances = np.array([2 * g**2 + 2 * h - 3 * g * h, 2 * h**2])
    expected = np.sqrt(variances / (g * (4 - 2 * g - h)))
    # About one reading in six is independent, (1 + .7) / (1 - .7): 3 deviations.
    np.testing.assert_allclose(found, expected, rtol=3 / math.sqrt(2 * 20_000 / 6))


@pytest.mark.parametrize("error", [0.02, -0.02])
def test_on_the_way_to_the_target_less_adds_up(error):
    def added(slope):
        # So that the next reading has this error, and goes on with this slope.
        controlled = free(0.6, slope=slope, level=0.6 - error - slope)
        controlled.update(0.6 - error)
        assert controlled.error == pytest.approx(error)
        return controlled.state.integral / (controlled.gain * error / INTEGRAL_TIME)

    toward = math.copysign(0.004, error)
    assert added(0.0) == pytest.approx(1)
    assert added(toward) == pytest.approx(1 - 3 * 0.004 / 0.02)
    assert added(2 * toward) == 0
    assert added(-toward) == pytest.approx(1 + 3 * 0.004 / 0.02)


def test_far_off_no_more_adds_up_than_near():
    near, far = free(0.56, level=0.5), free(0.9, level=0.5)
    for controlled in (near, far):
        controlled.update(0.5)
    assert far.state.output < near.state.output
    assert far.state.integral == near.state.integral == pytest.approx(-20 * 0.06 / 6)


def test_a_setting_that_is_cut_adds_nothing():
    controlled = loop(0.9, readings=100, level=0.5)
    controlled.update(0.5)
    assert controlled.state.output == -controlled.actuator.slew_limit
    assert controlled.state.integral == 0


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_an_undefined_figure_changes_nothing(figure):
    controlled = loop(0.6)
    controlled.update(figure)
    assert controlled.state.readings == 0
    controlled.update(0.5)
    state = controlled.state
    controlled.update(figure)
    assert controlled.state == state


def test_frozen_it_is_the_mean_of_the_last_settings():
    controlled = loop(0.7)
    mean = controlled.state.output
    for figure in (0.5, 0.52, 0.55, 0.6):
        controlled.update(figure)
        mean += (controlled.state.output - mean) / 8
    assert controlled.state.output < mean
    controlled.freeze()
    assert controlled.state.integral == controlled.state.output == pytest.approx(mean)


def test_a_bound_is_kept_to_though_it_is_rounded():
    # Of those that the scale does not give back.
    for low in np.arange(0.1, 1.0, 0.01).tolist():
        controlled = loop(0.9, low, (low, 8.0))
        assert controlled.at_bound
        assert controlled.setting >= low


def test_it_comes_back_from_where_pushing_made_it_worse():
    def turning(q):
        return 0.65 - 0.02 * q if q < 5 else 0.9

    controlled = loop(0.5, bounds=(0.5, 8.0))
    reached = follow(controlled, turning, readings=600)
    assert controlled.bounds == (0.5, 4.0)
    assert controlled.setting == 4.0
    assert reached == pytest.approx(0.57, abs=0.003)
    # Where it helps it may go on.
    controlled = loop(0.5, bounds=(0.5, 8.0))
    assert follow(controlled, lambda q: 0.65 - 0.025 * q, 600) == pytest.approx(
        0.5, abs=0.003
    )
    assert controlled.bounds == (0.5, 8.0)
    assert controlled.setting == pytest.approx(6, abs=0.1)


def test_what_added_up_beyond_is_left_there():
    controlled = loop(0.6, 6.0, level=0.62, error_in_default_bounds=0.0)
    controlled.update(0.62)
    assert controlled.setting == 4.0
    assert controlled.state.integral == controlled.actuator.to_scale(4.0)


def test_it_goes_on_below_the_default_bounds():
    # At low q sparsity comes late, after a fall.
    controlled = loop(0.85, 0.9)
    for figure in [0.7] * 20 + [0.6] * 20:
        controlled.update(figure)
    assert controlled.bounds == (0.5, 8.0)
    assert controlled.setting == 0.5


@pytest.mark.parametrize(
    ("start", "bounds"), [(6.0, (0.5, 8.0)), (0.5, (0.2, 0.8)), (5.0, (5.0, 8.0))]
)
def test_it_comes_back_only_to_where_it_has_been(start, bounds):
    controlled = loop(0.6, start, bounds)
    for figure in (0.5, 0.48, 0.46, 0.44):
        controlled.update(figure)
        assert controlled.bounds == bounds
        assert bounds[0] <= controlled.setting <= bounds[1]


def test_while_the_figure_is_below_q_stays_at_or_below_its_start():
    controlled = loop(0.8, 1.5, bounds=(0.5, 8.0))
    # The derivative term alone would raise it: in 3 readings the figure would be there.
    settings = [controlled.update(0.4 + 0.09 * n) for n in range(4)]
    assert max(settings) == pytest.approx(1.5)
    # Above the target it may rise.
    assert [controlled.update(0.9) for _ in range(6)][-1] > 1.5


def test_braking_goes_back_to_the_start_at_most():
    controlled = free(0.8, level=0.5, slope=0.1, output=-0.3, integral=-0.3)
    controlled.update(0.6)
    assert controlled.state.output == controlled.state.start == 0
    # What is above the start already may stay.
    controlled = free(0.8, level=0.5, slope=0.1, output=0.2, integral=0.2)
    controlled.update(0.6)
    assert controlled.state.output == 0.2


def test_where_the_plant_clearly_answers_the_other_way_it_goes_back():
    rng = np.random.default_rng(0)
    controlled, figure, settings = loop(0.8, bounds=(1.0, 4.0)), 0.6, []
    for _ in range(150):
        # Sparser at high q, and noise as of some hundred samples.
        figure += (0.6 + 0.2 * math.log(controlled.setting / 2) - figure) / 3
        settings.append(controlled.update(figure + 0.004 * rng.normal()))
    assert min(settings) < 1.2
    assert controlled.state.reversed
    assert settings[-1] == pytest.approx(2)
    assert max(settings) == pytest.approx(2)


@pytest.mark.parametrize("seed", range(4))
def test_a_drift_does_not_pass_for_an_answer(seed):
    rng = np.random.default_rng(seed)
    controlled, answer = loop(0.8, bounds=(1.0, 4.0)), 0.0
    for n in range(200):
        # Training alone makes it denser, while q falls to its bound.
        answer += (-0.1 * math.log(controlled.setting / 2) - answer) / 9
        drift = 0.1 * math.exp(-n / 40)
        controlled.update(0.5 + drift + answer + 0.004 * rng.normal())
        assert not controlled.state.reversed
    assert controlled.setting == 1


def test_a_setting_is_steady_if_it_hardly_moved_over_half_of_the_run():
    controlled = loop(0.6, readings=100)
    assert controlled.steady_setting(0) == pytest.approx(2)
    near = {"output_sum": 0.25 * 100, "square_sum": 0.25**2 * 100}
    controlled.state = controlled.state._replace(**near)
    for output, batches in ((0.3, 10), (0.32, 20), (0.26, 30), (0.33, 40)):
        controlled.state = controlled.state._replace(output=output)
        controlled._note_steadiness(batches)
    middle = controlled.actuator.from_scale((0.26 + 0.33) / 2)
    assert controlled.steady_setting(40) == pytest.approx(middle)
    assert controlled.steady_setting(20) == pytest.approx(middle)
    assert controlled.steady_setting(19) is None
    # Before it was another one for long.
    controlled.state = controlled.state._replace(square_sum=0.36**2 * 100)
    assert controlled.steady_setting(40) is None
