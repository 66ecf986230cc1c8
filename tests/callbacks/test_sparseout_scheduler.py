"""SparseoutScheduler: what it sets and when, also in a run that is resumed."""

import math
import re

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import ActivationPenalty, Sparseout, SparseoutScheduler

schedules = keras.optimizers.schedules


def data(samples=48):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 8)).astype("float32")
    return x, rng.normal(size=(samples, 2)).astype("float32")


# For tests of what a compiled model does.
GRAPH = {"run_eagerly": False, "jit_compile": False}


def network(**compile_args):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", name="hidden"),
            ActivationPenalty(0.1, adjustable=True, name="penalty"),
            Sparseout(0.5, 1.5, adjustable=True, name="first"),
            keras.layers.Dense(16, "relu"),
            Sparseout(0.5, 1.5, adjustable=True, name="second"),
            keras.layers.Dense(2),
        ]
    )
    options = {"optimizer": "sgd", "loss": "mse", "run_eagerly": True}
    model.compile(**{**options, **compile_args})
    return model


def fit(model, *callbacks, data=data, **kwargs):
    options = {"batch_size": 16, "verbose": 0, "callbacks": list(callbacks), **kwargs}
    return batched.fit(model, *data(), **options).history


def one_step(model, *callbacks):
    return fit(model, *callbacks, data=lambda: data(16))


class Record(keras.callbacks.Callback):
    """Reads knobs, "q/first", at each batch; it stands after the scheduler."""

    def __init__(self, *keys):
        super().__init__()
        self.seen = {key: [] for key in keys}

    def on_train_batch_begin(self, batch, logs=None):
        for key, values in self.seen.items():
            knob, layer = key.split("/")
            values.append(getattr(self.model.get_layer(layer), knob))


def test_knobs_follow_functions_and_keras_schedules_step_by_step(capsys):
    scheduler = SparseoutScheduler(
        rate=lambda step: min(0.5, step / 8),
        q=schedules.PolynomialDecay(2.0, 4, 1.0),
        weight=schedules.PiecewiseConstantDecay([1, 3], [0.0, 0.2, 0.1]),
    )
    record = Record("rate/first", "rate/second", "q/first", "weight/penalty")
    history = fit(network(**GRAPH), scheduler, record, epochs=2)
    rates = [0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert record.seen == {
        "rate/first": rates,
        "rate/second": rates,
        "q/first": [2, 1.75, 1.5, 1.25, 1, 1],
        "weight/penalty": [0, 0, 0.2, 0.2, 0.1, 0.1],
    }
    at_the_end = {
        "rate/first": [0.25, 0.5],
        "rate/second": [0.25, 0.5],
        "q/first": [1.5, 1],
        "q/second": [1.5, 1],
        "weight/penalty": [0.2, 0.1],
    }
    assert {key: history[key] for key in history if "/" in key} == at_the_end
    assert capsys.readouterr().out == (
        "SparseoutScheduler: rate of first, second; q of first, second; "
        "weight of penalty\n"
    )


def test_annealing_q_has_its_effect_without_a_retrace():
    class Counting(keras.Sequential):
        traces = 0

        def train_step(self, *args, **kwargs):
            self.traces += 1
            return super().train_step(*args, **kwargs)

    # The loss is |y - x| = |x|^(q / 2) |xi|, and at rate 1/2 |xi| is 1.
    qs = [4.0, 3.0, 2.0, 1.0, 0.0]
    layer = Sparseout(0.5, 2.0, adjustable=True)
    identity = keras.layers.Dense(4, kernel_initializer="identity")
    model = Counting([keras.Input((4,)), identity, layer])
    model.compile(keras.optimizers.SGD(0.0), "mae", jit_compile=False)
    scheduler = SparseoutScheduler(q=lambda step: qs[step], verbose=0)
    x = np.full((1, 4), 4.0, "float32")
    losses = fit(model, scheduler, data=lambda: (x, x), epochs=5)["loss"]
    np.testing.assert_allclose(losses, [16, 8, 4, 2, 1], rtol=1e-5)
    assert model.traces == 1


def test_the_step_of_a_second_fit_follows_on():
    steps = []
    model = network()
    scheduler = SparseoutScheduler(q=lambda s: steps.append(s) or 1.0, verbose=0)
    fit(model, scheduler)
    fit(model, scheduler)
    assert steps == [0, 1, 2, 3, 4, 5]
    assert {type(step) for step in steps} == {int}


@pytest.mark.parametrize(
    ("compile_args", "steps"),
    [
        ({"run_eagerly": False, "jit_compile": True}, [0, 1, 2, 3, 4, 5]),
        ({}, [0, 1, 2, 3, 4, 5]),
        ({**GRAPH, "steps_per_execution": 2}, [0, 2, 3, 5]),
        (
            {"optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)},
            [0, 0, 1, 1, 2, 2],
        ),
        (
            {
                **GRAPH,
                "optimizer": keras.optimizers.LossScaleOptimizer(
                    keras.optimizers.SGD()
                ),
            },
            [0, 1, 2, 3, 4, 5],
        ),
    ],
    ids=["jit", "eager", "steps_per_execution", "accumulation", "loss scaling"],
)
def test_the_step_is_the_count_of_updates_before_the_batch(compile_args, steps):
    seen = []
    scheduler = SparseoutScheduler(rate=lambda s: seen.append(s) or s / 10, verbose=0)
    record = Record("rate/second")
    history = fit(network(**compile_args), scheduler, record, epochs=2)
    assert seen == steps
    assert record.seen["rate/second"] == [step / 10 for step in steps]
    assert np.isfinite(history["loss"]).all()


def test_under_a_strategy_all_replicas_see_it():
    # Collective ops, the default, mistake models of two strategies for each other.
    to_one = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], to_one)
    with strategy.scope():
        layer = Sparseout(0.5, adjustable=True, name="layer")
        model = keras.Sequential([keras.Input((4,)), layer])
        model.add(keras.layers.Dense(4, kernel_initializer="identity"))
        model.compile(keras.optimizers.SGD(0.0), "mae", jit_compile=False)
    rates = [0.0, 1.0, 0.0]
    scheduler = SparseoutScheduler(rate=rates.__getitem__, verbose=0)
    x = np.ones((2, 4), "float32")
    history = fit(model, scheduler, data=lambda: (x, x), epochs=3)
    np.testing.assert_allclose(history["loss"], rates, atol=1e-6)
    assert history["rate/layer"] == rates


class InterruptionError(Exception):
    pass


def test_a_run_resumed_by_backup_and_restore_is_the_uninterrupted_one(tmp_path):
    def interrupt(batch, logs):
        if first.optimizer.iterations > 4:
            raise InterruptionError

    def run(model, *callbacks):
        scheduler = SparseoutScheduler(
            rate=lambda step: step / 10,
            q=schedules.CosineDecay(2.5, 9, 0.2),
            weight=lambda step: 0.9**step,
            verbose=0,
        )
        history = fit(model, scheduler, *callbacks, epochs=3)
        variables = (*model.variables, *model.optimizer.variables)
        return history, [np.asarray(v.value) for v in variables]

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    interruption = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
    keras.utils.set_random_seed(1)
    whole_history, whole = run(network(**GRAPH))
    keras.utils.set_random_seed(1)
    first = network(**GRAPH)
    with pytest.raises(InterruptionError):
        run(first, backup(), interruption)
    keras.utils.set_random_seed(2)
    history, resumed = run(network(**GRAPH), backup())
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert history == {key: values[1:] for key, values in whole_history.items()}
    assert whole_history["rate/first"] == [0.2, 0.5, 0.8]


class Nested(keras.Model):
    """A subclassed model, with layers in a model inside it."""

    def __init__(self):
        super().__init__(name="nested")
        layers = [keras.layers.Dense(4), Sparseout(0.5, adjustable=True, name="drop")]
        self.encoder = keras.Sequential(layers, name="encoder")
        self.drop = Sparseout(0.5, adjustable=True, name="drop")
        self.head = keras.layers.Dense(2)

    def call(self, x, training=False):
        x = self.encoder(x, training=training)
        return self.head(self.drop(x, training=training))


def test_nested_layers_of_subclassed_models_go_by_their_path():
    model = Nested()
    model.compile("sgd", "mse", run_eagerly=True)
    history = one_step(model, SparseoutScheduler(rate=lambda step: 0.25, verbose=0))
    assert history["rate/encoder/drop"] == history["rate/drop"] == [0.25]


@pytest.mark.parametrize("layers", ["second", ["second"], re.compile("^sec"), "sec.*"])
def test_layers_are_chosen_by_name_and_pattern(layers):
    model = network()
    one_step(model, SparseoutScheduler(q=lambda step: 3.0, layers=layers, verbose=0))
    assert [model.get_layer(name).q for name in ("first", "second")] == [1.5, 3]


def test_layers_are_chosen_by_themselves_and_by_type():
    model = network()
    layers = [model.get_layer("first"), ActivationPenalty]
    scheduler = SparseoutScheduler(
        q=lambda step: 3.0, weight=lambda step: 0.7, layers=layers, verbose=0
    )
    history = one_step(model, scheduler)
    assert {k for k in history if "/" in k} == {"q/first", "weight/penalty"}
    assert [model.get_layer(name).q for name in ("first", "second")] == [3, 1.5]


def test_by_default_layers_that_are_not_adjustable_are_left_alone():
    model = keras.Sequential([keras.Input((8,)), Sparseout(0.5, name="constant")])
    model.add(Sparseout(0.5, adjustable=True, name="adjustable"))
    model.add(keras.layers.Dense(2))
    model.compile("sgd", "mse", run_eagerly=True)
    history = one_step(model, SparseoutScheduler(rate=lambda step: 0.25, verbose=0))
    assert {k for k in history if "/" in k} == {"rate/adjustable"}
    assert model.get_layer("constant").rate == 0.5
    # Named, they are not left alone.
    message = error_of_fit(model, rate=lambda step: 0.25, layers=Sparseout)
    assert "Received: constant with adjustable=False." in message


def error_of_fit(model, error=ValueError, **kwargs):
    with pytest.raises(error) as raised:
        fit(model, SparseoutScheduler(**kwargs))
    return str(raised.value)


def test_a_model_without_layers_yet_says_what_to_do():
    scheduler = SparseoutScheduler(rate=lambda step: 0.1)
    model = keras.Sequential(name="empty")
    model.compile("sgd", "mse", run_eagerly=True)
    scheduler.set_model(model)
    # Its first batch might make them.
    scheduler.on_train_begin()
    with pytest.raises(ValueError, match=r"model\(x\[:1\]\).*'empty' .*\(none\)"):
        scheduler.on_train_batch_end(0)


@pytest.mark.parametrize(
    ("knob", "value"), [("rate", 1.5), ("rate", None), ("q", -1.0), ("q", math.nan)]
)
def test_a_value_out_of_range_is_named_with_its_step(knob, value):
    def schedule(step):
        return value if step == 2 else 0.5

    model = network()
    message = error_of_fit(model, **{knob: schedule})
    assert f"`{knob}` must be" in message
    assert f"Received: {knob}={value!r}." in message
    assert f"returned by the schedule of `{knob}` at step 2." in message
    assert getattr(model.get_layer("first"), knob) == 0.5


def test_an_error_in_a_schedule_is_not_swallowed():
    assert "'oh'" in error_of_fit(network(), KeyError, q=lambda step: {}["oh"])
    # Nor is it taken for a value out of range.
    assert error_of_fit(network(), q=lambda step: int("oh")).startswith("invalid lit")


@pytest.mark.parametrize("kind", [np.float32, np.float64, tf.constant, np.asarray])
def test_a_schedule_may_return_any_scalar(kind):
    model = network()
    one_step(model, SparseoutScheduler(rate=lambda step: kind(0.25), verbose=0))
    assert model.get_layer("first").rate == 0.25


def test_a_model_without_an_optimizer_raises():
    model = network(optimizer=None)
    message = error_of_fit(model, q=lambda step: 1.0)
    assert "`optimizer` of the model must be set" in message
    assert "Received: optimizer=None." in message


def test_a_loop_that_began_no_epoch_is_told_so():
    scheduler = SparseoutScheduler(q=lambda step: 1.0, verbose=0)
    scheduler.set_model(network())
    scheduler.on_train_begin()
    with pytest.raises(ValueError, match="`on_epoch_begin` must be called before"):
        scheduler.on_train_batch_begin(0)


def test_nothing_to_schedule_raises():
    with pytest.raises(ValueError, match="`rate`, `q` and `weight` must have"):
        SparseoutScheduler(layers="first")


@pytest.mark.parametrize("knob", ["rate", "q", "weight"])
@pytest.mark.parametrize("value", [0.5, "linear", [0.1, 0.2]])
def test_what_is_no_schedule_raises(knob, value):
    with pytest.raises(ValueError, match=f"`{knob}` must be a Learn") as error:
        SparseoutScheduler(**{knob: value})
    assert f"Received: {knob}={value!r}. Give for example {knob}=la" in str(error.value)


def test_bad_layers_raise_at_construction():
    with pytest.raises(ValueError, match="`layers` must be"):
        SparseoutScheduler(q=lambda step: 1.0, layers=[])
