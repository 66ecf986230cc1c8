"""SparsityController: what it moves, what it says, and how a run is resumed."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    SparsityController,
    SparsityTracker,
    metrics,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(640, 12)).astype("float32")
Y = np.abs(X @ RNG.normal(size=(12, 3))).astype("float32")


def classifier(*, activation="relu", regularizer=None, names=("hidden",)):
    regularizer = regularizer or (
        lambda name: Sparseout(0.5, q=2.0, adjustable=True, name=name)
    )
    layers = [keras.Input((12,))]
    for name in names:
        layers += [keras.layers.Dense(64, activation), regularizer(name)]
    return keras.Sequential([*layers, keras.layers.Dense(3)])


def fit(model, *callbacks, epochs=3, y=Y, **kwargs):
    model.compile(kwargs.pop("optimizer", "adam"), "mse", **kwargs)
    return model.fit(
        X, y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks)
    ).history


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


def test_after_freeze_after_the_setting_stays():
    controller = SparsityController(0.8, every=8, gain=0.1, freeze_after=2)
    history = fit(classifier(), controller, epochs=4)
    q = history["q/hidden"]
    assert q[0] != q[1] == q[2] == q[3]
    assert len(controller.history["epoch"]) == 4 * 5


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
    dead = keras.initializers.Constant(np.where(np.arange(64) < 48, -9.0, 0.0))
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(64, "relu", bias_initializer=dead),
            Sparseout(0.5, q=2.0, adjustable=True, name="hidden"),
            keras.layers.Dense(3),
        ]
    )
    controller = SparsityController(0.99, every=8, sample_size=16)
    with pytest.warns(UserWarning, match=r"7\d% of the units of hidden are dead"):
        fit(model, controller, epochs=2, optimizer=keras.optimizers.SGD(0.0))
    q = controller.history["q/hidden"]
    # It is free until there are samples enough to tell, at the second reading.
    assert q[0] < 2
    assert set(q[1:]) == {q[1]}


def test_a_loss_that_is_not_finite_stops_it():
    y = Y.copy()
    y[300:310] = np.nan
    controller = SparsityController(0.8, every=8)
    with pytest.warns(
        UserWarning, match="the loss is nan: the settings stay"
    ) as warned:
        fit(classifier(), controller, y=y)
    assert len([w for w in warned if "loss" in str(w.message)]) == 1
    assert np.isfinite(controller.history["q/hidden"]).all()


def test_activations_that_are_never_zero_name_hoyer():
    with pytest.raises(
        ValueError, match=r'never 0, as after tanh.*Give metric="hoyer"'
    ):
        fit(classifier(activation="tanh"), SparsityController(0.5, every=8))
    history = fit(
        classifier(activation="tanh"), SparsityController(0.3, "hoyer", every=8)
    )
    assert 0 < history["hoyer/hidden"][-1] < 1


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
        model.compile("adam", "mse")
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
    readings = model.get_layer("hidden").controller_state[5]
    assert readings == 15
    fit(model, SparsityController(0.7, every=8), epochs=1)
    assert model.get_layer("hidden").controller_state[5] == 20
    fit(model, SparsityController(0.6, every=8), epochs=1)
    assert model.get_layer("hidden").controller_state[5] == 5


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
        model.compile("adam", "mse")
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


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((1.5,), {}, ["`target`", "between 0 and 1", "Received: target=1.5"]),
        ((0,), {}, ["`target`", "Received: target=0"]),
        (("high",), {}, ["`target`", "Received: target='high'"]),
        (({},), {}, ["`target`", "at least one layer"]),
        (({"hidden": 2},), {}, ["`target`", "Received: target={'hidden': 2}"]),
        ((0.5, "hoyr"), {}, ["`metrics`", "Did you mean 'hoyer'?"]),
        ((0.5,), {"actuator": "p"}, ["`actuator`", "q, rate, weight"]),
        ((0.5,), {"bounds": (4, 1)}, ["`bounds`", "Received: bounds=(4, 1)"]),
        ((0.5,), {"bounds": 3}, ["`bounds`", "Received: bounds=3"]),
        ((0.5,), {"bounds": (-1, 2)}, ["`bounds`", "within [0.01, 100]"]),
        ((0.5,), {"every": 0}, ["`every`", "Received: every=0"]),
        ((0.5,), {"gain": 0}, ["`gain`", "Received: gain=0"]),
        ((0.5,), {"dead_band": -1}, ["`dead_band`", "Received: dead_band=-1"]),
        ((0.5,), {"freeze_after": 0}, ["`freeze_after`", "Received: freeze_after=0"]),
        ((0.5,), {"max_dead": 2}, ["`max_dead`", "Received: max_dead=2"]),
        ((0.5,), {"together": 1}, ["`together`", "Received: together=1"]),
        ((0.5,), {"sample_size": 0}, ["`sample_size`", "Received: sample_size=0"]),
        ((0.5,), {"x": X[:0]}, ["`x`", "at least one sample"]),
    ],
)
def test_bad_arguments_say_what_to_do(args, kwargs, says):
    with pytest.raises(ValueError, match="Received") as error:
        SparsityController(*args, **kwargs)
    for words in says:
        assert words in str(error.value)


def test_layers_that_cannot_be_moved_show_the_change():
    constant = classifier(regularizer=lambda name: Sparseout(0.5, q=1.5, name=name))
    for layers in (None, ["hidden"]):
        with pytest.raises(ValueError, match="`layers` must be adjustable") as error:
            fit(constant, SparsityController(0.5, layers=layers))
        assert "Received: hidden with adjustable=False" in str(error.value)
        assert "Make it Sparseout(0.5, q=1.5, adjustable=True)" in str(error.value)
    dropout = classifier(regularizer=lambda name: keras.layers.Dropout(0.5, name=name))
    with pytest.raises(ValueError, match=r"Put Sparseout\(0.5, adjustable=True\)"):
        fit(dropout, SparsityController(0.5))
    with pytest.raises(
        ValueError, match=r"Put ActivationPenalty\(1e-4, adjustable=True"
    ):
        fit(classifier(), SparsityController(0.5, actuator="weight"))
    with pytest.raises(ValueError, match=r"layers='hiden'.*Did you mean 'hidden'"):
        fit(classifier(), SparsityController({"hiden": 0.5}))


def test_probe_data_must_fit():
    with pytest.raises(
        ValueError, match="`x` must have the shape of the model's inputs"
    ):
        fit(classifier(), SparsityController(0.5, x=X[:, :5]))
