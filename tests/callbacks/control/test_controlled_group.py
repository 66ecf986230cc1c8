"""One group of layers: what moves it, what holds it back, and what it says."""

import math
import re
import warnings

import keras
import numpy as np
import pytest
from controlled import loop_state

from keras_sparseout import ActivationPenalty, Sparseout
from keras_sparseout.callbacks import knobs
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.controlled_group import ControlledGroup
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.run_length import ReadingTime

BOUNDS = {"q": (1.0, 4.0), "rate": (0.05, 0.9), "weight": (0.0, 0.1)}


def adjustable(name, q=2.0):
    return Sparseout(0.5, q=q, adjustable=True, name=name)


def model_of(*layers):
    return keras.Sequential([keras.Input((4,)), *(layers or [adjustable("hidden")])])


def group_of(model, target=0.6, actuator="q", **kwargs):
    settings = {
        **{"target": target, "metric": "zero_fraction", "bounds": BOUNDS[actuator]},
        **{"together": True, "gain": 1.0, "dead_band": 0.002},
        **{"max_dead": 0.5, "has_probe": False, **kwargs},
    }
    watched = knobs.layers_to_control(model, None, actuator)
    settings = ControlSettings(actuator=actuator, **settings)
    return ControlledGroup(watched, target, settings, ControllerMessages())


def take(group, figure, names=("hidden",), dead=(), times=1):
    for _ in range(times):
        group.take({f"zero_fraction/{name}": figure for name in names}, dict(dead))
        group.check_reach()


def test_the_setting_moves_toward_the_target_and_is_kept_in_the_layer():
    model = model_of()
    group, layer = group_of(model), model.get_layer("hidden")
    assert not group.started
    take(group, 0.5)
    assert group.started
    assert 1 < layer.q < 2
    assert loop_state(model).readings == 1
    # What the layer holds is a float32.
    q = 2 * np.exp(loop_state(model).output)
    assert layer.q == pytest.approx(q, rel=1e-6)


@pytest.mark.parametrize(("q", "rises"), [(1.0, True), (4.0, False)])
def test_rate_moves_the_other_way_where_q_is_large(q, rises):
    model = model_of(adjustable("hidden", q=q))
    take(group_of(model, actuator="rate"), 0.5)
    assert (model.get_layer("hidden").rate > 0.5) is rises
    assert model.get_layer("hidden").q == q


def test_a_group_moves_by_the_mean_of_the_layers_that_have_a_figure():
    one, two = (model_of(adjustable("first"), adjustable("second")) for _ in range(2))
    take(group_of(one), 0.5, names=("first", "second"))
    figures = {"zero_fraction/first": 0.5, "zero_fraction/second": np.nan}
    group_of(two).take(figures, {})
    qs = [m.get_layer(name).q for m in (one, two) for name in ("first", "second")]
    assert len(set(qs)) == 1
    assert qs[0] < 2
    # The state is kept once.
    assert one.get_layer("second").controller_state is None


def test_coming_back_from_beyond_is_said():
    model = model_of()
    group = group_of(model, target=0.4, bounds=(0.5, 8.0))
    layer = model.get_layer("hidden")
    take(group, 0.45, times=17)
    assert layer.q > 4
    # It rises with q beyond 4, as where units die.
    with pytest.warns(UserWarning, match="Above 4, q moved") as warned:
        take(group, 0.8)
    assert [str(w.message) for w in warned] == [
        "SparsityController: Above 4, q moved zero_fraction of hidden away from its "
        "target. From now on q stays in [0.5, 4]. Give narrower `bounds` to keep it "
        "from there."
    ]
    assert layer.q == 4
    take(group, 0.45, times=17)
    assert layer.q == 4
    assert loop_state(model).high == 4


@pytest.mark.parametrize("actuator", ["q", "rate"])
def test_a_target_out_of_reach_is_said_once_with_the_range(actuator):
    model = model_of()
    group = group_of(model, 0.97, actuator)
    for figure in (0.5, 0.7, 0.6):
        group.end_epoch({"zero_fraction/hidden": figure})
    take(group, 0.6, times=32)  # It says nothing yet.
    with pytest.warns(UserWarning, match="can't be brought") as warned:
        take(group, 0.6, times=20)
    assert len(warned) == 1
    low, high = BOUNDS[actuator]
    assert str(warned[0].message) == (
        "SparsityController: zero_fraction of hidden can't be brought to 0.97 with "
        f"{actuator} in [{low:g}, {high:g}]: it reached 0.500 to 0.700. Widen "
        "`bounds`, or change the target."
    )


def test_a_target_that_comes_nearer_is_not_out_of_reach():
    model = model_of()
    group = group_of(model, 0.97)
    with warnings.catch_warnings(record=True) as warned:
        for figure in np.linspace(0.6, 0.7, 80):
            take(group, figure)
    assert not warned
    # It was at the bound for as long as a warning takes.
    assert model.get_layer("hidden").q == BOUNDS["q"][0]


def test_out_of_reach_is_said_only_if_it_stays_so_until_the_end(capsys):
    group = group_of(model_of(), 0.7)

    def read(figure, left):
        group.take({"zero_fraction/hidden": figure}, {}, ReadingTime(0, 100, left, 4))
        group.check_reach()

    for n in range(40):  # By the end it would be at .7.
        read(0.4 + 0.004 * n, 100 - n)
    assert capsys.readouterr().out == ""
    for n in range(40, 75):  # It is late only in the last quarter.
        read(0.556, 100 - n)
    assert capsys.readouterr().out == (
        "SparsityController: q is at its bound 1, and zero_fraction of hidden is not "
        "at 0.7\n"
    )
    with pytest.warns(UserWarning, match="can't be brought to 0.7"):
        read(0.556, 25)


def test_a_knob_that_moves_the_metric_the_wrong_way_is_named():
    group, rng, figure = group_of(model_of(), 0.8), np.random.default_rng(0), 0.6
    layer = group._watched[0].layer
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(60):
            figure += (0.6 + 0.2 * math.log(layer.q / 2) - figure) / 3
            take(group, figure + 0.004 * rng.normal())
    assert [str(w.message) for w in warned] == [
        "SparsityController: q moves zero_fraction of hidden the wrong way here, so it "
        "goes back to where it began. Choose another `metric` or `actuator`."
    ]
    assert layer.q == pytest.approx(2)


def test_too_many_dead_units_stop_the_push_toward_sparser():
    model = model_of()
    group, layer = group_of(model, 0.9), model.get_layer("hidden")
    take(group, 0.5)
    q = layer.q
    assert q < 2
    with pytest.warns(UserWarning, match="dead") as warned:
        take(group, 0.5, dead={"hidden": 0.75}, times=3)
    assert layer.q == q
    assert [str(w.message) for w in warned] == [
        "SparsityController: 75% of the units of hidden are dead, so the controller "
        "no longer makes it sparser. Ask for less, or raise `max_dead`, now 0.5."
    ]
    # As long as nothing else is known; then it goes on.
    take(group, 0.5)
    assert layer.q == q
    take(group, 0.5, dead={"hidden": 0.5})
    assert layer.q < q


def test_one_rate_cannot_move_layers_both_ways():
    model = model_of(adjustable("first", q=1.0), adjustable("second", q=4.0))
    with pytest.raises(ValueError, match="`together` must be False") as error:
        group_of(model, actuator="rate")
    assert "first of q=1, second of q=4. Give each" in str(error.value)
    group_of(model)


def test_frozen_it_keeps_the_mean_of_the_last_settings(capsys):
    model = model_of()
    group, layer = group_of(model, 0.9, gain=0.1), model.get_layer("hidden")
    qs = [(take(group, figure), layer.q)[1] for figure in (0.5, 0.55, 0.6, 0.65)]
    group.freeze(0)
    q = layer.q
    assert min(qs) < q < 2
    group.freeze(0)
    assert layer.q == q
    group.end_epoch({"zero_fraction/hidden": 0.895})
    group.conclude(group.steady_setting(0))
    assert f"Sparseout(0.5, q={q:.4g}, name='hidden')" in capsys.readouterr().out
    group.end_epoch({"zero_fraction/hidden": 0.7})
    group.conclude(None)
    *_, why = capsys.readouterr().out.splitlines()
    assert "`freeze_after` held the setting before zero_fraction of hidden cam" in why


def test_what_was_found_is_a_call_with_all_that_the_layer_was_made_with(capsys):
    options = {"epsilon": 0.01, "adjustable": True, "name": "hidden"}
    layer = ActivationPenalty(0.0, "hoyer_square", **options)
    group = group_of(model_of(layer), actuator="weight")
    take(group, 0.59)
    group.end_epoch({"zero_fraction/hidden": 0.595})
    assert group.has_reached
    group.conclude(group.steady_setting(0))
    text, call = capsys.readouterr().out.split("fixed: ")
    assert re.fullmatch(
        r"SparsityController: zero_fraction of hidden is 0.595, asked for 0.6, at "
        r"weight = \S+, over the run 0. To repeat it ",
        text,
    )
    repeated = eval(call, {"ActivationPenalty": ActivationPenalty})
    config = {**layer.get_config(), "adjustable": False}
    assert {**repeated.get_config(), "weight": 0} == {**config, "weight": 0}


def test_errors_are_those_of_probe_data_if_there_are_any():
    figures = {"zero_fraction/hidden": 0.5, "val_zero_fraction/hidden": 0.55}
    for has_probe, error in ((False, 0.1), (True, 0.05)):
        group = group_of(model_of(), has_probe=has_probe)
        logs = group.end_epoch(figures)
        assert logs == {"q/hidden": 2.0, "error/hidden": pytest.approx(error)}
        assert group.end_epoch({}) == {"q/hidden": 2.0}


def test_a_state_of_an_earlier_version_goes_on():
    # As version 0.1.0 keeps it, with its signature of a controller with target=0.8.
    kept = [3401965837.0, 1.0, 4.0, -0.25, -0.2, -0.22, 10.0, 0.6, 0.001, 0.0, 0.2]
    kept += [0.0, -2.3]
    model = model_of()
    layer = model.get_layer("hidden")
    layer.q, layer.controller_state = 2 * math.exp(-0.25), kept
    group = group_of(model, 0.8)
    assert group.started
    take(group, 0.65)
    state = loop_state(model)
    assert layer.controller_state[0] == kept[0]
    assert (state.low, state.high, state.readings) == (1, 4, 11)
    assert state.output_sum == -2.3 - 0.25
    assert state.level == pytest.approx(0.601 + 0.51 * 0.049)
    assert state.slope == pytest.approx(0.001 + 0.09 * 0.049)


def test_a_state_of_another_loop_or_setting_is_left():
    def readings(group):
        take(group, 0.5)
        return loop_state(model).readings

    model = model_of()
    group = group_of(model)
    assert [readings(group), readings(group)] == [1, 2]
    assert readings(group_of(model)) == 3
    for others in ({"has_probe": True}, {"target": 0.7}, {"bounds": (0.9, 4.0)}):
        assert readings(group_of(model, **others)) == 1
    assert readings(group_of(model, bounds=(0.9, 4.0))) == 2
    # Nor does it go on where the user has set q since.
    model.get_layer("hidden").q = 3.5
    assert readings(group_of(model, bounds=(0.9, 4.0))) == 1
    assert model.get_layer("hidden").q > 3


@pytest.mark.parametrize(
    ("place", "number", "says"),
    [
        (0, np.nan, "the first is NaN"),
        (1, np.nan, "not all are finite"),
        (7, np.nan, "not all are finite"),
        (10, np.nan, "not all are finite"),
        (12, np.inf, "not all are finite"),
        (None, None, "there should be 39"),
    ],
)
def test_a_state_that_no_controller_left_is_refused(place, number, says):
    model = model_of()
    layer = model.get_layer("hidden")
    take(group_of(model), 0.5)
    state = layer.controller_state
    if place is None:
        state = state[:-1]
    else:
        state[place] = number
    layer.controller_state = state
    with pytest.raises(ValueError, match="`controller_state` must be the num") as error:
        group_of(model)
    assert f"of which {says}. Set it to None for the controller" in str(error.value)
    layer.controller_state = None
    assert not group_of(model).started
