"""SparsityController: what it moves, what it says, and how a run is resumed."""

import functools
import math

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from controlled import X, Y, classifier, fit, loop_state

from keras_sparseout import (
    ActivationPenalty,
    SparsityController,
    SparsityTracker,
    metrics,
)
from keras_sparseout.callbacks.control.feedback_loop import LoopState


def zeros(model, name="hidden"):
    place = keras.Model(model.inputs, model.get_layer(name).input)
    return float(np.mean(place.predict(X, verbose=0) == 0))


@pytest.mark.parametrize("actuator", ["q", "weight"])
def test_it_reaches_the_target(actuator):
    target, regularizer = 0.55, None  # Untouched it stays below 0.51.
    if actuator == "weight":

        def regularizer(name):
            return ActivationPenalty(0.0, adjustable=True, name=name)

    model = classifier(regularizer=regularizer)
    controller = SparsityController(
        target,
        x=X,
        actuator=actuator,
        every=4,
        bounds=(0.5, 8) if actuator == "q" else None,
    )
    history = fit(model, controller, epochs=8)
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
    begin, end, cause = capsys.readouterr().out.splitlines()
    assert begin == (
        "SparsityController: zero_fraction of hidden to 0.6, by q in [1, 4]"
    )
    assert end.startswith("SparsityController: zero_fraction of hidden is 0.")
    assert ", asked for 0.6, at q = " in end
    assert "To repeat it" not in end
    assert cause == (
        "SparsityController: q is at its bound 1, and zero_fraction of hidden is not "
        "at 0.6"
    )


def test_without_probe_data_the_figures_are_those_of_training_batches(capsys):
    model = classifier()
    controller = SparsityController(0.6, every=10, sample_size=16, verbose=0)
    tracker = SparsityTracker(sample_size=16, metrics="zero_fraction", verbose=0)
    history = fit(model, controller, tracker)
    # Both measure the same batches; the mean of the epoch is that of its readings.
    readings = np.reshape(controller.history["zero_fraction/hidden"], (3, 4))
    np.testing.assert_allclose(
        history["zero_fraction/hidden"], readings.mean(1), rtol=1e-6
    )
    assert controller.history["epoch"] == [i / 4 for i in range(1, 13)]
    assert "val_zero_fraction/hidden" not in history
    assert capsys.readouterr().out == ""


def test_each_layer_has_its_own_setting_and_target():
    model = classifier(names=("first", "second"))
    controller = SparsityController({"first": 0.45, "second": 0.75}, every=8)
    fit(model, controller, epochs=2)
    assert controller.targets == {"first": 0.45, "second": 0.75}
    assert model.get_layer("first").q > 2 > model.get_layer("second").q


def test_together_the_layers_share_one_setting():
    model = classifier(names=("first", "second"))
    controller = SparsityController(0.75, together=True, every=8)
    fit(model, controller, epochs=1)
    assert model.get_layer("first").q == model.get_layer("second").q < 2


def test_a_function_and_other_metrics_can_be_asked_for():
    def share_above(x, axis=-1):
        return 1 - metrics.zero_fraction(x, axis)

    controller = SparsityController(0.5, share_above, every=8)
    history = fit(classifier(), controller, epochs=1)
    assert 0 < history["share_above/hidden"][0] < 1
    history = fit(classifier(), SparsityController(0.7, "gini", every=8), epochs=1)
    assert 0 < history["gini/hidden"][0] < 1


# Keras means that the data might have been longer.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_positions_are_right_where_the_length_of_the_data_is_unknown():
    data = (
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda x, y: True)
    )
    model = classifier()
    model.compile("sgd", "mse", jit_compile=False)
    controller = SparsityController(0.7, every=10)
    model.fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[controller])
    assert controller.history["epoch"] == [0.25, 0.5, 0.75, 1]


def test_a_trackers_figures_stay_in_the_logs():
    tracker = SparsityTracker(X, metrics="zero_fraction")
    history = fit(classifier(), tracker, SparsityController(0.7, x=X[:9], every=8))
    assert history["val_zero_fraction/hidden"] == history["val_zero_fraction"]


def run(*callbacks):
    keras.utils.set_random_seed(1)
    keras.backend.clear_session()
    model = classifier()
    model.compile("sgd", "mse", jit_compile=False)
    options = {"batch_size": 16, "epochs": 4, "verbose": 0}
    options["callbacks"] = list(callbacks)
    history = batched.fit(model, X[:320], Y[:320], **options).history
    weights = [tf.convert_to_tensor(v).numpy() for v in model.variables]
    return weights, history, model.get_layer("hidden").controller_state


def controller_with_probe():
    return SparsityController(0.5, x=X[:100], verbose=0)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@functools.cache
def whole():
    return run(controller_with_probe())


@pytest.mark.parametrize("first", [True, False])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path, first):
    def callbacks():
        pair = [
            controller_with_probe(),
            keras.callbacks.BackupAndRestore(str(tmp_path), delete_checkpoint=False),
        ]
        return pair if first else pair[::-1]

    with pytest.raises(KeyboardInterrupt):
        run(*callbacks(), Interrupt())
    weights, history, state = run(*callbacks())
    assert len(history["q/hidden"]) == 2
    assert LoopState.from_numbers(state[1:]).setpoint_offset != 0
    for key in ("q/hidden", "error/hidden"):
        assert history[key] == whole()[1][key][2:]
    np.testing.assert_array_equal(state, whole()[2])
    for a, b in zip(weights, whole()[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_fit_goes_on_and_another_target_starts_anew():
    model = classifier()
    for target, readings in ((0.7, 5), (0.7, 10), (0.6, 5)):
        fit(model, SparsityController(target, every=8), epochs=1)
        assert loop_state(model).readings == readings


@pytest.mark.parametrize(
    "kwargs", [{"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}]
)
def test_it_works_however_the_model_is_compiled(kwargs):
    controller = SparsityController(0.8, every=2)
    fit(classifier(), controller, epochs=1, rows=160, **kwargs)
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
        model.compile("sgd", "mse", jit_compile=False)
    controller = SparsityController(0.8, every=8)
    options = {"batch_size": 16, "verbose": 0, "callbacks": [controller]}
    batched.fit(model, X[:256], Y[:256], **options)
    assert len(set(controller.history["q/hidden"])) > 1


def test_an_epoch_shorter_than_every_has_one_reading():
    def note(batch, logs):
        read.append(len(controller.history.get("epoch", [])))

    read = []
    controller = SparsityController(0.8, every=1000)
    noting = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    fit(classifier(), controller, noting, epochs=2)
    assert controller.history["epoch"] == [1, 2]
    # In the last batch: what saves the model as an epoch ends has the reading.
    assert read == [0] * 39 + [1] * 40 + [2]


def test_it_can_be_drawn_and_tabulated(tmp_path):
    controller = SparsityController(0.7, x=X[:50], every=8)
    fit(classifier(names=("first", "second")), controller, epochs=1)
    figure = controller.plot(path=tmp_path / "control.png")
    assert (tmp_path / "control.png").exists()
    assert len(figure.axes) == 2
    frame = controller.to_dataframe()
    assert list(frame["epoch"]) == controller.history["epoch"]
    assert math.isnan(frame["val_zero_fraction/first"][0])


def test_what_another_callback_assigns_counts_from_the_next_epoch_on(capsys):
    controller = SparsityController(0.495, dead_band=0, every=2)
    changes = {2: {"freeze_after": 2, "verbose": 0}}

    def change(epoch, logs=None):
        for name, value in changes.get(epoch, {}).items():
            setattr(controller, name, value)

    changing = keras.callbacks.LambdaCallback(on_epoch_begin=change)
    history = fit(classifier(), changing, controller, epochs=4)
    _, before, frozen, last = history["q/hidden"]
    assert before != frozen == last
    assert capsys.readouterr().out.count("SparsityController") == 1


def test_to_end_a_training_that_did_not_begin_does_nothing():
    SparsityController(0.5).on_train_end()
