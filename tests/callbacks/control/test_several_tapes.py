"""Training steps with several tapes, or with gradients of gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import SparsityController

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = X[:, :1] * X[:, 1:2]


class Net(keras.Model):
    """Two hidden layers; the gradient of the second half may be in the loss."""

    def __init__(self, tapes):
        keras.utils.set_random_seed(0)
        super().__init__()
        self.first = L.Dense(6, "tanh", name="first")
        self.second = L.Dense(6, "tanh", name="second")
        self.out = L.Dense(1, name="out")
        self.tapes = tapes

    def call(self, x):
        return self.out(self.second(self.first(x)))

    def train_step(self, data):
        x, y = data
        if self.tapes in ("one", "persistent"):
            with tf.GradientTape(persistent=self.tapes == "persistent") as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        elif self.tapes == "two":
            with tf.GradientTape() as tape, tf.GradientTape():
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        else:
            with tf.GradientTape() as tape:
                x = self.first(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    outputs = self.out(self.second(x))
                slope = inner.gradient(outputs, x)
                loss = tf.reduce_mean((outputs - y) ** 2 + slope[:, :1] ** 2)
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def train(tapes, *, eager=False, layers="first"):
    model = Net(tapes)
    model.compile("sgd", "mse", run_eagerly=eager, jit_compile=False)
    control = SparsityController(0.8, "hoyer", layers=layers, verbose=0, reach_by=0.1)
    options = {"epochs": 2, "batch_size": 8, "verbose": 0, "shuffle": False}
    history = model.fit(X, Y, callbacks=[control], **options).history
    return history[f"penalty/{layers}"][-1], model.get_weights()


@pytest.fixture(scope="module")
def plain():
    return train("one")


@pytest.mark.parametrize("tapes", ["persistent", "two"])
def test_of_several_tapes_each_step_is_measured_once(tapes, plain):
    penalty, weights = train(tapes)
    assert penalty == pytest.approx(plain[0], rel=1e-4) != 0
    for a, b in zip(weights, plain[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("eager", [False, True])
def test_a_gradient_of_a_gradient_may_not_go_through_a_pushed_layer(eager):
    with pytest.raises(
        ValueError, match=r"Received: layers with second\. Name"
    ) as error:
        train("nested", eager=eager, layers="second")
    assert "takes no gradient of a gradient" in str(error.value)
    # In front of what the inner one goes through, a push is as ever.
    penalty, _ = train("nested", eager=eager)
    assert penalty > 0
