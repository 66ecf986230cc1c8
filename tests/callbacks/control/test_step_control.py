"""The control inside the training step by itself: groups, weights, states."""

import keras
import numpy as np
import pytest

from keras_sparseout import metrics
from keras_sparseout.callbacks.control.step_control import StepControl, StepSettings
from keras_sparseout.measure import layer_selection

L = keras.layers


def net(frozen=()):
    layers = [keras.Input((4,)), L.Dense(10, "relu", name="a")]
    model = keras.Sequential([*layers, L.Dense(20, "relu", name="b"), L.Dense(1)])
    for name in frozen:
        model.get_layer(name).trainable = False
    return model


def made(model, **changes):
    settings = {
        **{"actuator": "penalty", "kind": "l1", "metric": metrics.ZeroFraction()},
        **{"together": False, "sample_size": 8, "bounds": (0.0, 10.0), "gain": 1.0},
        "budget": None,
        **changes,
    }
    watched = layer_selection.select(model, ["a", "b"])
    return StepControl(model, watched, StepSettings(**settings))


def with_norms(control, output):
    """A control whose pushes measured norms: of the loss .2, of penalties .1 or .4."""
    norms = np.array([[1, 1], [0.2, 0.2], [0.1, 0.4], [10, 20]])
    control._variables.assign("norms", 0.5 * norms)
    control.state = control.state._replace(output=np.full(len(control.groups), output))
    return control


def test_weights_push_as_hard_as_asked_by_the_norms_that_were_measured():
    push = 0.01 * np.sinh(4.0)
    control = with_norms(made(net()), 4.0)
    np.testing.assert_allclose(control.pushes(), [push, push], rtol=1e-5)
    values = control.values()
    assert values["a"] == pytest.approx(push * 0.2 / 0.1, rel=1e-5)
    assert values["b"] == pytest.approx(push * 0.2 / 0.4, rel=1e-5)
    # Together they push as hard as the loss does on both, in fixed proportions.
    values = with_norms(made(net(), together=True), 4.0).values()
    assert values["a"] == pytest.approx(2 * values["b"], rel=1e-5)
    pushed = values["a"] * 0.1 + values["b"] * 0.4
    assert pushed == pytest.approx(push * 0.4, rel=1e-5)


def test_a_penalty_is_0_before_anything_was_measured():
    control = made(net())
    assert control.values() == {"a": 0, "b": 0}
    assert control.unpushed() == ["a", "b"]


def test_a_layer_without_a_gradient_of_the_loss_is_not_pushed():
    control = with_norms(made(net()), 1.0)
    norms = control._variables.read("norms")
    norms[1, 0] = 0
    control._variables.assign("norms", norms)
    assert control.unpushed() == ["a"]


def test_layers_with_nothing_to_train_before_them_are_not_pushed():
    assert with_norms(made(net()), 1.0).unpushed() == []
    assert with_norms(made(net(frozen=["a"])), 1.0).unpushed() == ["a"]
    assert with_norms(made(net(frozen=["b"])), 1.0).unpushed() == []
    assert with_norms(made(net(frozen=["a", "b"])), 1.0).unpushed() == ["a", "b"]


def test_released_a_group_does_not_push_and_the_others_do():
    control = with_norms(made(net()), 4.0)
    control.release(1)
    values = control.values()
    assert values["b"] == 0
    assert values["a"] > 0


def test_a_resumed_control_has_all_numbers():
    control, other = with_norms(made(net()), 4.0), made(net())
    control.plan_run(300, 0.5)
    other.resume(control.numbers())
    for a, b in zip(control.numbers(), other.numbers(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.values() == control.values()


def test_a_resumed_control_spares_the_same_layers():
    control, other = (
        with_norms(made(net(), together=True), 4.0),
        made(net(), together=True),
    )
    control.spare(["a"], ["a", "b"])
    other.resume(control.numbers())
    # As in a step, which has the weights from the shares anew.
    other.state = other.state
    assert other.values() == control.values()
    assert other.values()["a"] == 0


@pytest.mark.parametrize(("left", "unit"), [(10, 1), (200, 1), (1000, 5), (20000, 32)])
def test_the_unit_of_time_comes_from_the_length_of_the_run(left, unit):
    control = made(net())
    control.plan_run(left, 0.25)
    np.testing.assert_allclose(control.plan.unit, unit)
    np.testing.assert_allclose(control.plan.ramp, 0.25 * left)


def test_a_new_run_keeps_the_settings_and_begins_a_ramp():
    control = with_norms(made(net()), 4.0)
    control.begin_run()
    assert list(control.state.output) == [4, 4]
    assert not np.any(control.state.batches)
