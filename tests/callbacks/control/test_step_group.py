"""What is told of a control inside the training step, and when."""

import types

import keras
import numpy as np
import pytest

from keras_sparseout import SparsityController
from keras_sparseout.callbacks.control import (
    push_weights,
    step_control,
    step_messages,
)
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.step_group import StepGroup
from keras_sparseout.callbacks.control.step_law import Plan, State
from keras_sparseout.measure import layer_selection

HIGHEST = float(np.float32(push_weights.to_output(10.0)))
LAW = step_control.LAWS["penalty"]._replace(low=0.0, high=HIGHEST)


class Control:
    """A control that did what the test says."""

    law = LAW
    settings = types.SimpleNamespace(kind="l1")

    def __init__(self):
        self.state = State(*np.zeros((len(State._fields), 1)))
        self.plan = Plan(*np.zeros((len(Plan._fields), 1)))
        self.released = False

    def group_of(self, name):
        return 0

    def pushes(self):
        return 0.01 * np.sinh(self.state.output)

    def release(self, group):
        self.released = True

    def unpushed(self):
        return []

    def values(self):
        return {"hidden": 0.1}


class Run:
    """A group in a run, with the target 0.7."""

    def __init__(self, least=0.0):
        hidden = keras.layers.Dense(4, "relu", name="hidden")
        model = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1)])
        watched = layer_selection.select(model, ["hidden"])
        settings = ControlSettings(
            target=0.7,
            metric="zero_fraction",
            actuator="penalty",
            bounds=(least, 10.0),
            together=False,
            gain=1.0,
            dead_band=0.0,
            max_dead=0.5,
            has_probe=False,
        )
        self.control = Control()
        self.shared = watched, 0.7, settings, ControllerMessages(), self.control
        self.group = StepGroup(*self.shared)

    def read(self, *levels, push, batches=200, slope=0.0, start=0.5):
        for level in levels:
            told = {"batches": batches, "level": level, "slope": slope, "start": start}
            told["output"] = np.arcsinh(push / 0.01)
            numbers = [np.float32(told.get(f, 0.0)) for f in State._fields]
            self.control.state = State(*np.array(numbers, "float64")[:, None])
            self.group.take({}, {})
        self.group.end_epoch({"zero_fraction/hidden": levels[-1]})


def test_a_layer_that_stays_short_at_the_bound_is_told():
    run = Run()
    run.read(*[0.6] * 40, push=10.0)
    with pytest.warns(UserWarning, match="at its bound 10: it stays at 0.600"):
        run.group.check_reach()


def test_a_layer_that_rises_at_the_bound_is_only_late(recwarn):
    run = Run()
    run.read(*np.linspace(0.5, 0.6, 40), push=10.0)
    run.group.check_reach()
    assert run.group.conclude(200) == (0.7, 200, False, 0, False, False)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("why", "says"),
    [
        (
            (0.7, 20, True, 30, False),
            "after 20 batches, before the ramp of hoyer of a, b to 0.7 did, after 30. "
            "Give a smaller `reach_by`",
        ),
        (
            (0.7, 20, True, 10, False),
            "20 batches, which were too few to bring hoyer of a, b",
        ),
        ((0.7, 200, False, 10, False), "the run ended before hoyer of a, b came to 0."),
        (
            (0.7, 20, True, 30, True),
            "`freeze_after` held the setting before hoyer of a",
        ),
        (
            (0.7, 120, False, 10, False, True),
            "the run of 120 batches ended before hoyer of a, b came to 0.7: with a "
            "floor of accuracy it goes at most a quarter of the way an epoch. Give mor",
        ),
    ],
)
def test_why_runs_are_too_short(why, says, capsys):
    shortfall = step_messages.Shortfall(*why)
    step_messages.say_too_short(ControllerMessages(), "hoyer", ["a", "b"], shortfall)
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(("batches", "late"), [(20, True), (150, False)])
def test_the_last_step_below_a_floor_may_come_too_late_in_a_run(batches, late):
    run = Run()
    # Counted from the last ramp on, of which there is one for each step.
    run.read(0.6, push=1.0, batches=batches)
    expected = (0.7, 200, False, 0, False)
    assert run.group.conclude(200) == (*expected, False)
    assert run.group.conclude(200, by_steps=True) == (*expected, late)
    # Before the last step it follows its aim.
    run.group.aim_at(0.6)
    assert run.group.conclude(200) is None
    assert run.group.conclude(200, by_steps=True) == (*expected, True)


def test_what_held_the_setting_was_said_or_is_freeze_after():
    for hold, why in (("hold", None), ("freeze", (0.7, 200, False, 0, True, False))):
        run = Run()
        run.read(0.6, push=1.0)
        getattr(run.group, hold)(True)
        assert run.group.conclude(200) == why


def test_a_group_stays_frozen_and_blocked_when_layers_are_left_out():
    run = Run()
    run.read(0.6, push=1.0)
    run.group.freeze()
    run.control.plan.blocked[:] = 1
    group = StepGroup(*run.shared, [run.group])
    # A floor that lets it go does not end what `freeze_after` holds.
    group.hold(False)
    plan, kept = run.control.plan, [group.state(), group.conclude(200)]
    assert (plan.frozen, plan.blocked, plan.setpoint) == (1, 1, np.float64(0.7))
    assert kept == [run.group.state(), run.group.conclude(200)]
    # A new run begins anew.
    StepGroup(*run.shared)
    assert (run.control.plan.frozen, run.control.plan.blocked) == (0, 0)


def test_layers_with_the_same_target_are_named_together(capsys):
    targets = {"a": 0.7, "b": 0.8, "c": 0.7}
    ControllerMessages().controlled("hoyer", targets, "penalty", (0, 10))
    assert "hoyer of a, c to 0.7, b to 0.8, by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("push", "slope", "blamed"),
    [(2.0, -1e-3, True), (0.5, -1e-3, False), (2.0, 1e-3, False)],
)
def test_a_penalty_is_blamed_only_if_it_is_what_moves_the_layer(
    push, slope, blamed, recwarn
):
    run = Run()
    run.read(*[0.4] * 20, push=push, slope=slope)
    assert len(recwarn) == run.control.released == blamed


@pytest.mark.parametrize(
    ("start", "remedy"), [(0.9, "Ask for more"), (0.5, "It rose in the run. Give more")]
)
def test_why_a_layer_is_too_sparse(start, remedy, capsys):
    run = Run()
    run.read(0.8, push=0.0, start=start)
    run.group.conclude(200)
    assert f"can't make it denser. {remedy}" in capsys.readouterr().out
    # A lower bound above 0 pushes by itself.
    run = Run(least=0.5)
    low = float(np.float32(push_weights.to_output(0.5)))
    run.control.law = LAW._replace(low=low)
    run.read(0.8, push=0.5, start=start)
    run.group.conclude(200)
    said = capsys.readouterr().out
    assert "with the penalty at its lower bound 0.5. Give `bounds` that beg" in said


@pytest.mark.parametrize(
    ("least", "says"), [(0, "it no longer pushes"), (0.5, "it stays at its lower bo")]
)
def test_a_penalty_that_is_blamed_goes_to_its_lower_bound(least, says):
    with pytest.warns(UserWarning, match=f"so {says}"):
        Run(least=least).read(*[0.4] * 8, push=2.0, slope=-1e-3)


def test_a_layer_that_had_no_figure_is_told(capsys):
    run = Run()
    run.read(np.nan, push=0.0, batches=0)
    run.group.conclude(200)
    assert "was not a number in any batch" in capsys.readouterr().out


def fit(layer, controller):
    x = np.random.default_rng(0).uniform(size=(64, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    # What it learns does not matter here.
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    options = {"batch_size": 8, "epochs": 5, "verbose": 0, "callbacks": [controller]}
    return model.fit(x, x[:, :1], **options).history


def test_an_output_at_its_bound_is_known_as_that():
    # The nearest number in float32 is below this bound.
    controller = SparsityController(0.95, bounds=(0, 0.001), verbose=0)
    with pytest.warns(UserWarning, match=r"at its bound 0.001: it stays at 0\.\d{3}"):
        fit(keras.layers.Dense(8, "relu"), controller)


def test_a_layer_that_no_push_moves_is_told_that_alone(capsys):
    layer = keras.layers.Dense(8, "relu", trainable=False)
    with pytest.warns(UserWarning, match="no trainable weights come before") as warned:
        fit(layer, SparsityController(0.95, layers=[layer]))
    assert len(warned) == 1
    assert "too few" not in capsys.readouterr().out
