"""SparsityController: what it moves, what it says, and how a run is resumed."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from controlled import X, Y, classifier, fit, loop_state, loss_of_known, mostly_dead

from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    SparsityController,
    SparsityTracker,
    metrics,
)


def zeros(model, name="hidden"):
    place = keras.Model(model.inputs, model.get_layer(name).input)
    return float(np.mean(place.predict(X, verbose=0) == 0))


@pytest.mark.parametrize(("target", "actuator"), [(0.5, "q"), (0.55, "weight")])
def test_it_reaches_the_target(target, actuator):
    regularizer = None
    if actuator == "weight":

        def regularizer(name):
            return ActivationPenalty(0.0, adjustable=True, name=name)

    model = classifier(regularizer=regularizer)
    controller = SparsityController(
        target,
        x=X,
        actuator=actuator,
        every=8,
        bounds=(0.5, 8) if actuator == "q" else None,
    )
    history = fit(model, controller, epochs=25)
    assert np.mean(history["val_zero_fraction/hidden"][-5:]) == pytest.approx(
        target, abs=0.03
    )
    assert zeros(model) == pytest.approx(
        history["val_zero_fraction/hidden"][-1], abs=1e-6
    )
    error = target - history["val_zero_fraction/hidden"][-1]
    assert history["error/hidden"][-1] == pytest.approx(error)
    setting = getattr(model.get_layer("hidden"), actuator)
    assert history[f"{actuator}/hidden"][-1] == setting
    assert controller.history[f"{actuator}/hidden"][-1] == setting


def test_it_says_what_it_controls_and_what_it_found(capsys):
    model = classifier()
    fit(model, SparsityController(0.6, every=8), epochs=2)
    begin, end = capsys.readouterr().out.splitlines()
    assert begin == (
        "SparsityController: zero_fraction of hidden to 0.6, by q in [1, 4]"
    )
    assert end.startswith("SparsityController: zero_fraction of hidden is 0.")
    assert ", asked for 0.6, at q = " in end
    call = end.split("To repeat it fixed: ")[1]
    repeated = eval(call, {"Sparseout": Sparseout})
    assert repeated.rate == 0.5
    assert not repeated.adjustable
    assert 1 <= repeated.q <= 4
    assert repeated.name == "hidden"


def test_it_says_nothing_when_told_so(capsys):
    fit(classifier(), SparsityController(0.6, every=8, verbose=0), epochs=1)
    assert capsys.readouterr().out == ""


def test_without_probe_data_the_figures_are_those_of_training_batches():
    model = classifier()
    controller = SparsityController(0.6, every=10, sample_size=16)
    tracker = SparsityTracker(sample_size=16, metrics="zero_fraction")
    history = fit(model, controller, tracker)
    # Both measure the same batches; the mean of the epoch is that of its readings.
    readings = np.reshape(controller.history["zero_fraction/hidden"], (3, 4))
    np.testing.assert_allclose(
        history["zero_fraction/hidden"], readings.mean(1), rtol=1e-6
    )
    assert controller.history["epoch"] == [i / 4 for i in range(1, 13)]
    assert "val_zero_fraction/hidden" not in history


def test_each_layer_has_its_own_setting_and_target():
    model = classifier(names=("first", "second"))
    controller = SparsityController({"first": 0.45, "second": 0.75}, every=8)
    fit(model, controller, epochs=6)
    assert controller.targets == {"first": 0.45, "second": 0.75}
    assert model.get_layer("first").q > 2 > model.get_layer("second").q


def test_together_the_layers_share_one_setting():
    model = classifier(names=("first", "second"))
    controller = SparsityController(0.75, together=True, every=8)
    fit(model, controller, epochs=3)
    assert model.get_layer("first").q == model.get_layer("second").q < 2


def test_rate_is_moved_the_other_way_where_q_is_large():
    rates = []
    for q in (1.0, 4.0):

        def regularizer(name, q=q):
            return Sparseout(0.5, q=q, adjustable=True, name=name)

        model = classifier(regularizer=regularizer)
        fit(model, SparsityController(0.9, actuator="rate", every=4, max_dead=1.0))
        rates.append(model.get_layer("hidden").rate)
        assert model.get_layer("hidden").q == q
    assert rates[0] > 0.5 > rates[1]


def test_a_function_and_other_metrics_can_be_asked_for():
    def share_above(x, axis=-1):
        return 1 - metrics.zero_fraction(x, axis)

    controller = SparsityController(0.5, share_above, every=8)
    history = fit(classifier(), controller, epochs=1)
    assert 0 < history["share_above/hidden"][0] < 1
    history = fit(classifier(), SparsityController(0.7, "gini", every=8), epochs=1)
    assert 0 < history["gini/hidden"][0] < 1


def test_after_freeze_after_the_setting_stays(capsys):
    controller = SparsityController(0.8, every=8, gain=0.1, freeze_after=2)
    history = fit(classifier(), controller, epochs=4)
    q = history["q/hidden"]
    assert q[0] != q[1] != q[2] == q[3]
    moved = controller.history["q/hidden"][:10]
    assert min(moved) < q[3] < max(moved)
    assert len(controller.history["epoch"]) == 4 * 5
    assert f"Sparseout(0.5, q={q[3]:.4g}, name='hidden')" in capsys.readouterr().out


def test_a_target_out_of_reach_is_said_once_with_the_range():
    controller = SparsityController(0.97, every=8, bounds=(1.9, 2.1))
    with pytest.warns(UserWarning, match="can't be brought") as warned:
        fit(classifier(), controller, epochs=12)
    assert len(warned) == 1
    text = str(warned[0].message)
    assert (
        "zero_fraction of hidden can't be brought to 0.97 with q in [1.9, 2.1]" in text
    )
    low, high = map(float, re.search(r"reached (\S+) to (\S+)\. Widen", text).groups())
    assert 0.3 < low < high < 0.97


def test_dead_units_stop_the_push_toward_sparser():
    model = mostly_dead()
    controller = SparsityController(0.99, every=8, sample_size=16)
    with pytest.warns(UserWarning, match=r"7\d% of the units of hidden are dead"):
        fit(model, controller, epochs=2, optimizer=keras.optimizers.SGD(0.0))
    q = controller.history["q/hidden"]
    # It is free until there are samples enough to tell, at the second reading.
    assert q[0] < 2
    assert set(q[1:]) == {q[1]}


@pytest.mark.onednn
def test_a_loss_that_is_not_finite_stops_it():
    y = Y.copy()
    y[300:310] = np.nan
    controller = SparsityController(0.8, every=8)
    with pytest.warns(
        UserWarning, match="the loss is nan: the settings stay"
    ) as warned:
        fit(classifier(), controller, y=y, loss=loss_of_known)
    assert len(warned) == 1
    assert np.isfinite(controller.history["q/hidden"]).all()


@pytest.mark.onednn
def test_nan_activations_are_reported_with_the_name_of_the_layer():
    model = classifier(activation="linear")
    model.layers[0].bias.assign([np.nan] + [0.0] * 63)
    controller = SparsityController(0.5, "hoyer", every=8)
    with pytest.warns(UserWarning, match="hidden hold NaN|loss is nan") as warned:
        fit(model, controller, epochs=2)
    assert len([w for w in warned if "hold NaN" in str(w.message)]) == 1
    assert set(controller.history["q/hidden"]) == {2.0}


def test_activations_that_are_never_zero_name_hoyer():
    with pytest.raises(
        ValueError,
        match=r'never 0 in the first reading, as after tanh.*Give metric="hoyer"',
    ):
        fit(classifier(activation="tanh"), SparsityController(0.5, every=8))
    history = fit(
        classifier(activation="tanh"), SparsityController(0.3, "hoyer", every=8)
    )
    assert 0 < history["hoyer/hidden"][-1] < 1


def test_the_call_to_repeat_has_all_that_the_layer_was_made_with(capsys):
    def regularizer(name):
        return ActivationPenalty(
            0.0, "hoyer_square", epsilon=0.01, adjustable=True, name=name
        )

    model = classifier(regularizer=regularizer)
    fit(model, SparsityController(0.7, actuator="weight", every=8), epochs=1)
    call = capsys.readouterr().out.split("fixed: ")[1]
    repeated = eval(call, {"ActivationPenalty": ActivationPenalty})
    config = {**model.get_layer("hidden").get_config(), "adjustable": False}
    assert {**repeated.get_config(), "weight": 0} == {**config, "weight": 0}


def test_a_rate_that_stays_at_its_bound_is_said():
    controller = SparsityController(0.97, actuator="rate", every=4, max_dead=1.0)
    with pytest.warns(UserWarning, match=r"rate in \[0.05, 0.9\]: it reached"):
        fit(classifier(), controller, epochs=8)


def test_a_setting_that_was_assigned_between_fits_is_where_it_goes_on():
    model = classifier()
    fit(model, SparsityController(0.7, every=8))
    model.get_layer("hidden").q = 3.5
    controller = SparsityController(0.7, every=8)
    fit(model, controller, epochs=1)
    assert controller.history["q/hidden"][0] > 3
    # The gap to probe data is not that of a run without them.
    fit(model, SparsityController(0.7, every=8, x=X[:50]))
    assert loop_state(model).setpoint_offset != 0
    fit(model, SparsityController(0.7, every=8), epochs=1)
    assert loop_state(model).setpoint_offset == 0


def test_names_of_targets_are_those_of_layers():
    model = classifier(names=("first", "second"))
    for target, layers in (
        ({"f.*": 0.5}, None),
        ({"first": 0.5}, ["second"]),
        ({"first": 0.5, "second": 0.5}, ["second"]),
    ):
        with pytest.raises(ValueError, match="`target` must have one number for each"):
            fit(model, SparsityController(target, layers=layers))


# Keras means that the data might have been longer.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_positions_are_right_where_the_length_of_the_data_is_unknown():
    data = (
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda x, y: True)
    )
    model = classifier()
    model.compile("adam", "mse", jit_compile=False)
    controller = SparsityController(0.7, every=10)
    model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[controller])
    assert controller.history["epoch"] == [0.25, 0.5, 0.75, 1]


def test_a_trackers_figures_stay_in_the_logs():
    tracker = SparsityTracker(X, metrics="zero_fraction")
    history = fit(classifier(), tracker, SparsityController(0.7, x=X[:9], every=8))
    assert history["val_zero_fraction/hidden"] == history["val_zero_fraction"]


def weights_of(model):
    return [tf.convert_to_tensor(v).numpy() for v in model.variables]


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("first", [True, False])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path, first):
    def run(*others):
        keras.utils.set_random_seed(1)
        keras.backend.clear_session()
        model = classifier()
        model.compile("adam", "mse", jit_compile=False)
        controller = SparsityController(0.7, x=X[:100], every=8, verbose=0)
        backup = keras.callbacks.BackupAndRestore(
            str(tmp_path), delete_checkpoint=not others
        )
        callbacks = [controller, backup] if first else [backup, controller]
        history = model.fit(
            X,
            Y,
            batch_size=16,
            epochs=6,
            verbose=0,
            shuffle=False,
            callbacks=[*callbacks, *others],
        ).history
        return weights_of(model), history, model.get_layer("hidden").controller_state

    whole, history, state = run()
    with pytest.raises(KeyboardInterrupt):
        run(Interrupt())
    resumed, rest, resumed_state = run()
    assert len(rest["q/hidden"]) == 3
    assert rest["q/hidden"] == history["q/hidden"][3:]
    assert rest["error/hidden"] == history["error/hidden"][3:]
    np.testing.assert_array_equal(resumed_state, state)
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_fit_goes_on_and_another_target_starts_anew():
    model = classifier()
    fit(model, SparsityController(0.7, every=8))
    assert loop_state(model).readings == 15
    fit(model, SparsityController(0.7, every=8), epochs=1)
    assert loop_state(model).readings == 20
    fit(model, SparsityController(0.6, every=8), epochs=1)
    assert loop_state(model).readings == 5


@pytest.mark.parametrize(
    "kwargs", [{"jit_compile": True}, {"steps_per_execution": 4}, {"run_eagerly": True}]
)
def test_it_works_however_the_model_is_compiled(kwargs):
    controller = SparsityController(0.8, every=8)
    fit(classifier(), controller, epochs=1, **kwargs)
    q = controller.history["q/hidden"]
    assert len(q) == 5
    assert len(set(q)) > 1


def test_it_works_on_replicas():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    with strategy.scope():
        model = classifier()
        model.compile("adam", "mse", jit_compile=False)
    controller = SparsityController(0.8, every=8)
    model.fit(X, Y, batch_size=16, epochs=1, verbose=0, callbacks=[controller])
    assert len(set(controller.history["q/hidden"])) > 1


def test_an_epoch_shorter_than_every_has_one_reading():
    controller = SparsityController(0.8, every=1000)
    fit(classifier(), controller, epochs=3)
    assert controller.history["epoch"] == [1, 2, 3]


def test_it_can_be_drawn_and_tabulated(tmp_path):
    controller = SparsityController(0.7, x=X[:50], every=8)
    fit(classifier(names=("first", "second")), controller, epochs=2)
    figure = controller.plot(path=tmp_path / "control.png")
    assert (tmp_path / "control.png").exists()
    assert len(figure.axes) == 2
    frame = controller.to_dataframe()
    assert list(frame["epoch"]) == controller.history["epoch"]
    assert math.isnan(frame["val_zero_fraction/first"][0])
