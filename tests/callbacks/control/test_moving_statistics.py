"""The moving statistics of BatchNormalization while and after a controller trains."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import SparsityController
from keras_sparseout.backend import train_step

X = np.random.default_rng(0).normal(size=(160, 6)).astype("float32")
Y = X.sum(1, keepdims=True)
# In batches of 32 the last one is smaller.
PROBE = X[:80]


class Watch(keras.callbacks.Callback):
    """Notes the moving statistics as epochs end."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        norm = self.model.get_layer("norm")
        self.seen.append([np.array(norm.moving_mean), np.array(norm.moving_variance)])


def net(momentum=0.99):
    keras.utils.set_random_seed(2)
    layers = [
        keras.layers.Dense(16, name="before"),
        keras.layers.BatchNormalization(momentum=momentum, name="norm"),
        keras.layers.ReLU(name="relu"),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
    return model


def fit(model, *callbacks, batch_size=8, **kwargs):
    options = {"epochs": 3, "verbose": 0, "callbacks": list(callbacks), **kwargs}
    # Validation data may be of another kind or batch size.
    data = batched.batches(X, Y, batch_size)
    return model.fit(data, shuffle=False, **options).history


def controller(**kwargs):
    options = {"layers": ["relu"], "actuator": "penalty", "batch_size": 32, **kwargs}
    return SparsityController(0.6, **options)


def check_recomputed(model):
    kernel, bias = model.get_layer("before").get_weights()
    inputs = PROBE.astype("float64") @ kernel + bias
    norm = model.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, inputs.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, inputs.var(0), rtol=1e-4)
    return inputs


def test_they_are_recomputed_at_the_end_and_the_models_own_until_then(capsys):
    model, before, after = net(), Watch(), Watch()
    history = fit(model, before, controller(x=PROBE), after)
    for a, b in zip(before.seen, after.seen, strict=True):
        np.testing.assert_array_equal(a, b)
    inputs = check_recomputed(model)
    gamma, beta, *_ = model.get_layer("norm").get_weights()
    normal = (inputs - inputs.mean(0)) / np.sqrt(inputs.var(0) + 1e-3) * gamma + beta
    # Some numbers are near 0, and the statistics were rounded.
    zeros = np.mean(normal <= 0)
    assert history["val_zero_fraction/relu"][-1] == pytest.approx(zeros, abs=0.002)
    assert "recomputed the moving statistics of 1 BatchNormalization layer from x" in (
        capsys.readouterr().out
    )


def test_they_are_those_of_weights_that_other_callbacks_restored():
    model = net()
    best = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", patience=1, restore_best_weights=True
    )
    with pytest.warns(UserWarning, match="leave restore_best_weights out"):
        fit(model, controller(x=PROBE, verbose=0), best)
    assert best.best_epoch == 0
    check_recomputed(model)


@pytest.mark.parametrize("momentum", [0.99, 0.5])
def test_without_probe_data_it_says_that_they_lag_where_they_do(momentum, capsys):
    model, watch = net(momentum), Watch()
    fit(model, controller(), watch)
    text = capsys.readouterr().out
    assert ("1 BatchNormalization layer lag" in text) == (momentum == 0.99)
    assert ("they remember about 100 steps" in text) == (momentum == 0.99)
    assert "recomputed the" not in text
    last = model.get_layer("norm").moving_mean
    np.testing.assert_array_equal(last, watch.seen[-1][0])


def test_nothing_is_said_of_layers_that_do_not_move(capsys):
    model = net()
    model.get_layer("norm").trainable = False
    model.compile("sgd", "mse", run_eagerly=True)
    before = model.get_layer("norm").get_weights()
    fit(model, controller(x=PROBE), epochs=1, batch_size=80)
    fit(model, controller(), epochs=1, batch_size=80)
    assert "moving statistics" not in capsys.readouterr().out
    for a, b in zip(before, model.get_layer("norm").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def floor(**kwargs):
    return controller(x=PROBE, max_loss_increase=9.0, verbose=0, **kwargs)


def test_a_floor_of_accuracy_is_about_the_recomputed_statistics():
    class Validated(Watch):
        def on_test_batch_end(self, batch, logs=None):
            super().on_epoch_end(0)

        def on_epoch_end(self, epoch, logs=None):
            pass

    model, validated, after = net(), Validated(), Watch()
    data = {"validation_data": (X, Y), "validation_batch_size": 160, "epochs": 2}
    history = fit(model, validated, floor(), after, **data)
    # Between the steps the model has its own.
    for seen, own in zip(validated.seen, after.seen, strict=True):
        np.testing.assert_array_equal(seen[0], own[0])
    assert np.max(np.abs(own[0] - model.get_layer("norm").moving_mean)) > 0.01
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(history["val_loss"][-1])


@pytest.mark.parametrize("first", [True, False])
def test_a_floor_recomputes_them_for_the_averages_that_validation_sees(first):
    model, swap = net(), keras.callbacks.SwapEMAWeights()
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "mse", jit_compile=False)
    both = [floor(), swap] if first else [swap, floor()]
    data = {"validation_data": (X, Y), "validation_batch_size": 160, "epochs": 2}
    history = fit(model, *both, **data)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(history["val_loss"][-1])


class Break(Exception):
    pass


class Broken(keras.utils.PyDataset):
    """Three batches, of which the last one raises. Keras looks into two before."""

    def __len__(self):
        return 3

    def __getitem__(self, number):
        if number == 2:
            raise Break
        return X[:8], Y[:8]


@pytest.mark.parametrize("where", ["on_test_begin", "on_test_batch_end", "data"])
def test_a_validation_that_raises_leaves_the_models_own_statistics(where):
    class Trained(Watch):
        def on_train_batch_end(self, batch, logs=None):
            super().on_epoch_end(0)

    def stop(*_, **logs):
        raise Break

    model, trained = net(), Trained()
    model.compile("sgd", "mse", run_eagerly=True)
    others = [] if where == "data" else [keras.callbacks.LambdaCallback()]
    for other in others:
        setattr(other, where, stop)
    data = Broken() if where == "data" else (X, Y)
    options = {"batch_size": 80, "validation_data": data}
    # TensorFlow turns errors of the data into its own.
    with pytest.raises((Break, tf.errors.OpError)):
        fit(model, trained, floor(), *others, **options)
    norm = model.get_layer("norm")
    np.testing.assert_array_equal(norm.moving_mean, trained.seen[-1][0])
    np.testing.assert_array_equal(norm.moving_variance, trained.seen[-1][1])
    assert not isinstance(model.test_function, train_step._StandIn)
