"""Copies of models are compiled as the models are, and train on from there."""

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import X

import keras_sparseout as ks
from keras_sparseout.models import insert, strip

Y = X[:, :2] + 0.5


def crossed():
    """Insertion changes the order of its layers; two of them have one path."""
    x = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), L.Dense(8, name="same")], name="inner")
    y = inner(L.Dense(8, "tanh", name="same")(x))
    y = L.Add()([y, L.Dense(8, name="beside")(x)])
    return keras.Model(x, L.Dense(2, name="out", dtype="float32")(y))


def nothing(layer):
    # Its only effect is on the order: at rate 0 it is the identity.
    return ks.Sparseout(0.0)


def make(name):
    optimizers = keras.optimizers
    return {
        "EMA": lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2),
        "accumulated": lambda: optimizers.SGD(
            0.01, momentum=0.9, gradient_accumulation_steps=3
        ),
        "schedule": lambda: optimizers.SGD(
            optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9
        ),
        "scaled Adafactor": lambda: optimizers.LossScaleOptimizer(
            optimizers.Adafactor(0.01)
        ),
    }.get(name, lambda: getattr(optimizers, name)(0.01))()


@pytest.mark.parametrize(
    "name",
    ["Adam", "Nadam", "EMA", "accumulated", "schedule", "scaled Adafactor"],
)
def test_a_copy_trains_on_as_the_model_does(name):
    model = crossed()
    model.compile(make(name), "mse", run_eagerly=True)
    for _ in range(2):
        model.train_on_batch(X, Y)
    if name == "Adam":
        model.optimizer.learning_rate = 0.003
    new = insert(model, {"inner/same": nothing, "beside": nothing})
    if name != "Adam":
        assert [v.path for v in new.trainable_variables] != [
            v.path for v in model.trainable_variables
        ]
    for each in (model, new):
        each.train_on_batch(X, Y)
    kept = {id(v): v for v in model.optimizer.variables}
    assert len(kept) == len(new.optimizer.variables)
    for old, copy in zip(
        sorted(model.trainable_variables, key=lambda v: (v.path, v.shape)),
        sorted(new.trainable_variables, key=lambda v: (v.path, v.shape)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, copy)


def test_the_scale_of_the_loss_goes_on():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = crossed()
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(X, Y)
    model.optimizer.dynamic_scale.assign(256.0)
    new = insert(model, {"inner/same": nothing, "beside": nothing})
    assert isinstance(new.optimizer, keras.optimizers.LossScaleOptimizer)
    assert new.optimizer.dynamic_scale == 256
    assert new.optimizer.step_counter == model.optimizer.step_counter == 1
    assert new.optimizer.inner_optimizer.iterations == 1


def test_new_weights_start_anew():
    model = keras.Sequential([keras.Input((8,)), L.Dense(4, name="a"), L.Dense(2)])
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(X, Y)
    new = insert(model, {"a": lambda layer: L.Dense(4, name="new")})
    found = {v.name: v for v in new.optimizer.variables}
    [fresh] = [v for name, v in found.items() if name.endswith("new_kernel_momentum")]
    assert not np.any(fresh)
    moments = [v for name, v in found.items() if name.endswith("a_kernel_momentum")]
    before = {v.name: v for v in model.optimizer.variables}
    assert len(moments) == 1
    np.testing.assert_array_equal(moments[0], before[moments[0].name])
    assert np.any(moments[0])
    assert new.optimizer.iterations == 1


def mean_loss(y, y_pred):
    return keras.ops.mean(keras.ops.abs(y - y_pred), axis=-1)


def test_all_that_compile_got_is_kept():
    x = keras.Input((8,))
    y = L.Dense(4, "relu", name="y")(x)
    model = keras.Model(x, [L.Dense(2, name="a")(y), L.Dense(2, name="b")(y)])
    model.compile(
        "rmsprop",
        {"a": lambda y, y_pred: mean_loss(y, y_pred), "b": keras.losses.Huber(0.3)},
        loss_weights={"a": 2.0, "b": 1.0},
        metrics={"a": ["mae"], "b": [keras.metrics.MeanSquaredError(name="square")]},
        weighted_metrics={"b": ["mse"]},
        jit_compile=False,
        run_eagerly=True,
    )
    new = insert(model, {"y": nothing})
    # The last layer gives the output its name.
    renamed = insert(model, {"b": lambda layer: L.ReLU(name="c")})
    assert renamed.output_names == ["a", "c"]
    targets = {"a": Y, "b": Y}
    expected = model.evaluate(X, targets, return_dict=True, verbose=0)
    assert new.evaluate(X, targets, return_dict=True, verbose=0) == expected
    assert {"a_mae", "b_square", "b_loss", "b_mse"} <= set(expected)
    found = renamed.evaluate(X, {"a": Y, "c": Y}, return_dict=True, verbose=0)
    assert found["a_mae"] == expected["a_mae"]
    assert {"c_square", "c_loss", "c_mse"} <= set(found)
    for each in (new, renamed):
        assert each.run_eagerly
        assert each.jit_compile is False
        assert each.optimizer.iterations == 0


def test_a_sequential_model_is_compiled_with_objects():
    layers = [keras.Input((8,)), L.Dense(2, name="out")]
    model = keras.Sequential(layers)
    square = keras.losses.MeanSquaredError()
    model.compile("sgd", square, metrics=[keras.metrics.MeanAbsoluteError()])
    new = insert(model, {"out": nothing})
    assert new.compiled
    assert new.loss is square


def test_a_model_that_is_not_compiled_has_a_copy_that_is_not():
    assert not insert(crossed(), {"beside": nothing}).compiled


def test_what_cannot_be_compiled_is_said():
    model = crossed()
    model.compile("sgd", "mse", metrics=[lambda y, y_pred: y_pred])
    with pytest.warns(UserWarning, match="is not compiled, since Keras") as warned:
        new = insert(model, {"beside": nothing})
    assert str(warned[0].message).endswith("Compile it.")
    assert not new.compiled

    class Own(keras.Model):
        def compile(self, *args, **kwargs):
            super().compile(*args, **kwargs)

    x = keras.Input((8,))
    model = Own(x, L.Dense(2, name="d")(x))
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="its class has a `compile` of its own"):
        assert not insert(model, {"d": nothing}).compiled


def test_an_optimizer_of_ones_own_is_copied_or_it_is_said():
    class Momenta(keras.optimizers.SGD):
        """Does not name its variables by those of the model."""

        def build(self, variables):
            super().build(variables)
            self.more = [self.add_variable(v.shape, name=v.name) for v in variables]

    model = crossed()
    model.compile(Momenta(0.1), "mse", run_eagerly=True)
    model.train_on_batch(X, Y)
    for number, variable in enumerate(model.optimizer.more):
        variable.assign(variable + number)
    with pytest.warns(UserWarning, match="Momenta does not say which variable"):
        insert(model, {"inner/same": nothing, "beside": nothing})
    # In the same order it is clear.
    new = insert(model, {"out": nothing})
    for old, copy in zip(model.optimizer.more, new.optimizer.more, strict=True):
        np.testing.assert_array_equal(old, copy)


def test_strip_leaves_out_metrics_of_this_package(capsys):
    model = keras.Sequential([keras.Input((8,)), ks.Sparseout(0.5), L.Dense(2)])
    mine = ks.metrics.SampleMean(ks.metrics.hoyer, name="mine")
    model.compile("adam", "mse", metrics=["mae", mine], weighted_metrics=[mine])
    plain = strip(model)
    assert "left out the metrics mine, mine" in capsys.readouterr().out
    assert plain.get_compile_config()["metrics"] == ["mae"]
    assert plain.get_compile_config()["weighted_metrics"] == []
    assert len(strip(model, keep_thresholds=True).get_compile_config()["metrics"]) == 2
    assert "left out" not in capsys.readouterr().out
