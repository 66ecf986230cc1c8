"""Callbacks in a training loop of the user's own, by `watching` or train_on_batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from stepped import X, Y, activations, is_clean, tracker

from keras_sparseout import Sparseout, SparsityController, SparsityTracker


def net():
    keras.utils.set_random_seed(1)
    drop = Sparseout(0.3, adjustable=True, name="hidden", jit_compile=False)
    dense = keras.layers.Dense(8, "relu", name="a")
    return keras.Sequential([keras.Input((4,)), dense, drop, keras.layers.Dense(1)])


def both():
    controller = SparsityController(0.7, sample_size=100, every=1, verbose=0)
    return tracker(metrics="zero_fraction"), controller


def zeros(model, x):
    return pytest.approx(np.mean(activations(model, "a", x) == 0), rel=1e-6)


def loop(model, callbacks, step, epochs=2, test=None):
    callbacks = keras.callbacks.CallbackList(list(callbacks), model=model)
    callbacks.on_train_begin()
    for epoch in range(epochs):
        callbacks.on_epoch_begin(epoch)
        for batch in (0, 1):
            callbacks.on_train_batch_begin(batch)
            step(X[8 * batch :][:8], Y[8 * batch :][:8])
            callbacks.on_train_batch_end(batch)
        if test is not None:
            callbacks.on_test_begin()
            callbacks.on_test_batch_begin(0)
            test(X[16:], Y[16:])
            callbacks.on_test_batch_end(0)
            callbacks.on_test_end()
        callbacks.on_epoch_end(epoch)
    callbacks.on_train_end()
    assert is_clean(model)


def check(model, t, controller):
    assert t.history["zero_fraction/hidden"] == [zeros(model, X[:16])] * 2
    assert t.history["epoch"] == [1, 2]
    expected = [zeros(model, X[:8]), zeros(model, X[8:16])] * 2
    assert controller.history["zero_fraction/hidden"] == expected
    assert model.get_layer("hidden").q < 2


def test_train_on_batch():
    model, (t, controller) = net(), both()
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    loop(model, (t, controller), model.train_on_batch, test=model.test_on_batch)
    check(model, t, controller)
    assert t.history["val_zero_fraction/hidden"] == [zeros(model, X[16:])] * 2


@pytest.mark.parametrize("how", ["eager", "graph", "compiled", "model with optimizer"])
def test_a_tape(how):
    model, (t, controller) = net(), both()
    if how == "model with optimizer":
        model.compile("sgd", "mse")

    def step(x, y):
        with tf.GradientTape() as tape:
            with t.watching(), controller.watching():
                outputs = model(x, training=True)
            loss = tf.reduce_mean(tf.square(outputs - y))
        return tape.gradient(loss, model.trainable_variables)

    test = None
    if how == "graph":
        step = tf.function(step)

        @tf.function
        def test(x, y):
            with t.watching():
                model(x, training=False)

    elif how == "compiled":
        step = tf.function(step, jit_compile=True)
    loop(model, (t, controller), step, test=test)
    check(model, t, controller)
    if test is not None:
        assert t.history["val_zero_fraction/hidden"] == [zeros(model, X[16:])] * 2
        # What was traced serves a second training, of these callbacks.
        loop(model, (t, controller), step, test=test)
        assert t.history["zero_fraction/hidden"] == [zeros(model, X[:16])] * 2
        with pytest.raises(
            ValueError, match="If it is there, the step was compiled bef"
        ):
            loop(model, both(), step)


def test_a_step_in_two_parts_and_layers_outside_the_model():
    model, head = net(), keras.layers.Dense(3, "relu", name="head")
    whole = keras.Sequential([*model.layers[:2], head])
    whole.build((None, 4))
    t = tracker(layers=["a", "head"], metrics="zero_fraction")

    def step(x, y):
        with t.watching():
            hidden = whole.layers[0](x)
        with t.watching():
            head(hidden)

    loop(whole, [t], step)
    a = np.asarray(whole.layers[0](X[:16]))
    for name, values in (("a", a), ("head", np.asarray(head(a)))):
        expected = pytest.approx(np.mean(values == 0), rel=1e-6)
        assert t.history[f"zero_fraction/{name}"] == [expected] * 2


def test_replicas():
    to_one = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], to_one)
    with strategy.scope():
        model = net()
    t, controller = both()

    def on_replica(x):
        with t.watching(), controller.watching():
            model(x, training=True)

    @tf.function
    def distributed(x):
        strategy.run(on_replica, args=(x,))

    def step(x, y):
        halves = tf.split(x, 2)
        distributed(
            strategy.experimental_distribute_values_from_function(
                lambda context: halves[context.replica_id_in_sync_group]
            )
        )

    loop(model, (t, controller), step)
    check(model, t, controller)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", [SparsityTracker, SparsityController])
def test_a_loop_without_it_is_told_what_it_lacks(kind, compiled):
    model = net()
    if compiled:
        model.compile("sgd", "mse")
    options = {"target": 0.7} if kind is SparsityController else {}
    callback = kind(verbose=0, **options)
    says = r"`watching` must .*with callback.watching\(\): y = model\(x\)`.*Received: a"
    with pytest.raises(ValueError, match=says):
        loop(model, [callback], lambda x, y: model(x, training=True))
    assert is_clean(model)
    says = (
        rf"`on_train_begin` .*Received: {kind.__name__}, whose training has not begun"
    )
    with pytest.raises(ValueError, match=says):
        kind(verbose=0, **options).watching()
    for probe in ({}, {"x": X}):
        callback = kind(verbose=0, **options, **probe)
        callback.set_model(model)
        callback.on_train_batch_begin(0)
        with pytest.raises(ValueError, match=says):
            callback.on_train_batch_end(0)


def test_with_probe_data_it_does_nothing():
    model, t = net(), tracker(x=X, metrics="zero_fraction")

    def step(x, y):
        with t.watching():
            model(x, training=True)

    loop(model, [t], step)
    assert t.history["val_zero_fraction/hidden"] == [zeros(model, X)] * 2
