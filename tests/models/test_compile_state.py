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
    model.compile("adam", "mse", auto_scale_loss=False)
    assert isinstance(
        insert(model, {"beside": nothing}).optimizer, keras.optimizers.Adam
    )


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


def own_error(y, y_pred):
    return keras.ops.mean(keras.ops.abs(y - y_pred), axis=-1)


class OwnMetric(keras.metrics.MeanAbsoluteError):
    pass


def test_metrics_of_ones_own_are_kept():
    model = crossed()
    own = [own_error, OwnMetric(name="own")]
    model.compile("sgd", "mse", metrics=own, run_eagerly=True)
    new = insert(model, {"beside": nothing})
    expected = model.evaluate(X, Y, return_dict=True, verbose=0)
    assert new.evaluate(X, Y, return_dict=True, verbose=0) == expected
    assert {"own_error", "own"} <= set(expected)


class Passing(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mean = keras.metrics.Mean(name="mean")

    def train_step(self, data):
        self.mean.update_state(3.0)
        return {**super().train_step(data), "mean": self.mean.result()}


def test_a_class_that_passes_all_arguments_on_stays():
    x = keras.Input((8,))
    model = Passing(x, L.Dense(2, name="d")(x))
    model.compile("sgd", "mse", run_eagerly=True)
    new = insert(model, {"d": nothing})
    assert type(new) is Passing
    assert new.fit(X, Y, verbose=0).history["mean"] == [3.0]


def test_a_model_that_is_not_compiled_has_a_copy_that_is_not():
    assert not insert(crossed(), {"beside": nothing}).compiled


def test_the_optimizer_itself_is_copied():
    model = crossed()
    model.compile("sgd", "mse")
    # Not the one that Keras has noted, or none: it loses that when it saves an .h5.
    model.optimizer = keras.optimizers.Adam(0.3)
    new = insert(model, {"beside": nothing})
    assert isinstance(new.optimizer, keras.optimizers.Adam)
    assert new.optimizer.learning_rate == np.float32(0.3)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.3

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    "around",
    [
        keras.optimizers.LossScaleOptimizer,
        lambda inner: keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(default_optimizer=inner)
        ),
    ],
    ids=["LossScaleOptimizer", "MultiOptimizer"],
)
def test_schedules_of_ones_own_are_copied_inside_other_optimizers(around):
    model = crossed()
    model.compile(around(keras.optimizers.SGD(Schedule())), "mse")
    assert insert(model, {"beside": nothing}).compiled


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


def decayed(model, optimizer=None):
    """The names of the weights that a step without gradients makes smaller."""
    found = model.trainable_variables
    before = [np.array(v) for v in found]
    (optimizer or model.optimizer).apply([0 * v for v in before], found)
    pairs = zip(found, before, strict=True)
    return sorted(v.path for v, old in pairs if not np.array_equal(v, old))


@pytest.mark.parametrize(
    ("name", "is_built"), [("AdamW", True), ("SGD", False), ("scaled", True)]
)
@pytest.mark.parametrize(
    "left_out",
    [
        lambda model: {"var_names": ["bias", "gamma"]},
        lambda model: {"var_list": [model.get_layer("out").kernel]},
        lambda model: {"var_list": model.layers[1].weights, "var_names": ["^bias$"]},
    ],
)
def test_weights_that_do_not_decay_do_not_in_the_copy(left_out, name, is_built):
    model = crossed()
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    kind = keras.optimizers.SGD if name == "SGD" else keras.optimizers.AdamW
    optimizer = kind(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(**left_out(model))
    if name == "scaled":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse")
    if is_built:
        optimizer.build(model.trainable_variables)
    new = insert(model, {"inner/same": nothing, "beside": nothing})
    expected = decayed(model)
    assert decayed(new) == expected
    assert 0 < len(expected) < len(model.trainable_variables)
    if name == "scaled":
        assert new.optimizer.inner_optimizer is not optimizer.inner_optimizer


def test_new_weights_decay_unless_their_names_are_left_out():
    model = keras.Sequential([keras.Input((8,)), L.Dense(4, name="a"), L.Dense(2)])
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay([model.layers[0].kernel], ["bias"])
    model.compile(optimizer, "mse")
    new = insert(
        model,
        {"a": lambda layer: L.Dense(4, name="new", bias_initializer="ones")},
    )
    kernels = [layer.kernel.path for layer in new.layers[1:]]
    assert decayed(new) == sorted(kernels)


class OwnCompile(keras.Model):
    """Makes its optimizer ready where it is compiled."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)


def test_an_optimizer_that_is_built_too_early_is_told():
    x = keras.Input((8,))
    model = OwnCompile(x, L.Dense(2, name="d")(x))
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1, name="own")
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse")
    with pytest.warns(UserWarning, match="'own' has `exclude_from_weight_decay`"):
        new = insert(model, {"d": nothing})
    assert new.optimizer.built
