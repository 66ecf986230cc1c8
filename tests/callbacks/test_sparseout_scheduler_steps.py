"""SparseoutScheduler: whose steps it follows in models that train themselves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Sparseout, SparseoutScheduler, SparsityTracker

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")


class Gan(keras.Model):
    """Two networks with an optimizer each; the second makes `critics` steps a batch."""

    def __init__(self, keep, critics=1):
        super().__init__()
        layers = [keras.Input((4,)), Sparseout(0.0, adjustable=True, name="drop")]
        self.generator = keras.Sequential([*layers, keras.layers.Dense(4)])
        self.critic = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        self.critics = critics
        self.keep = keep
        if keep in ("init", "nested"):
            self.keep_optimizers()

    def compile(self, **kwargs):
        super().compile(jit_compile=False, **kwargs)
        if self.keep not in ("init", "nested"):
            self.keep_optimizers()

    def keep_optimizers(self):
        g, d = keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01)
        if self.keep == "list":
            self.optimizers = [d, g]
        elif self.keep == "dict":
            self.kept = {"networks": {"d": d, "g": g}}
        elif self.keep == "nested":
            self.critic.d, self.generator.g = d, g
        elif self.keep == "hidden":
            self.hidden = lambda: (g, d)
        else:
            self.d, self.g = d, g
        self.both = lambda: (g, d)

    def call(self, x, training=False):
        return self.critic(self.generator(x, training=training), training=training)

    def train_step(self, data):
        g, d = self.both()
        for optimizer, network, steps in (
            (d, self.critic, self.critics),
            (g, self.generator, 1),
        ):
            for _ in range(steps):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(self(data, training=True) ** 2)
                weights = network.trainable_variables
                optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def fit(model, steps, *others, epochs=2, **kwargs):
    scheduler = SparseoutScheduler(
        rate=lambda step: steps.append(step) or step / 100, verbose=0
    )
    return model.fit(
        *(X,),
        batch_size=8,
        epochs=epochs,
        verbose=0,
        callbacks=[scheduler, *others],
        **kwargs,
    )


@pytest.mark.parametrize("keep", ["attributes", "init", "list", "dict", "nested"])
def test_it_follows_the_optimizer_that_steps_once_a_batch(keep):
    model = Gan(keep, critics=1 if keep == "dict" else 2)
    model.compile()
    steps = []
    fit(model, steps, epochs=1)
    # A second fit goes on, also with the rate.
    fit(model, steps, epochs=1)
    assert steps == list(range(6))
    assert model.get_layer(index=0).get_layer("drop").rate == 0.05
    assert int(model.optimizer.iterations) == 0


def test_a_resumed_run_follows_on(tmp_path):
    def run(steps, *others):
        model = Gan("dict", critics=2)
        # Keras can't restore an optimizer of the model that made no step.
        model.compile(optimizer=None)
        model(X)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        tracker = SparsityTracker(log_dir=tmp_path, verbose=0, metrics="rms")
        fit(model, steps, tracker, backup, *others, epochs=3)

    def interrupt(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    steps = []
    with pytest.raises(KeyboardInterrupt):
        run([], keras.callbacks.LambdaCallback(on_epoch_begin=interrupt))
    run(steps)
    assert steps == [6, 7, 8]
    written = [
        event.step
        for path in sorted((tmp_path / "sparsity").glob("events*"))
        for record in tf.data.TFRecordDataset(str(path))
        for event in [tf.compat.v1.Event.FromString(record.numpy())]
        if any(value.tag == "rms" for value in event.summary.value)
    ]
    assert written == [3, 6, 9]


def test_steps_that_no_optimizer_counts_are_batches_and_that_is_said():
    class ByHand(Gan):
        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(data, training=True) ** 2)
            weights = self.trainable_variables
            for w, g in zip(weights, tape.gradient(loss, weights), strict=True):
                w.assign_sub(0.01 * g)
            return {"loss": loss}

    class OfAnother(Gan):
        def __setattr__(self, name, value):
            if name in ("d", "g"):
                return
            super().__setattr__(name, value)

    for kind in (ByHand, OfAnother):
        model = kind("attributes")
        model.compile()
        steps = []
        with pytest.warns(UserWarning, match="no optimizer of the model counts") as w:
            fit(model, steps)
        assert steps == list(range(6))
        assert len(w) == 1
        steps = []
        with pytest.warns(UserWarning, match="Keep the optimizers that make the steps"):
            fit(model, steps, epochs=3, initial_epoch=2)
        # By the epoch; before the first batch the optimizers might still count.
        assert steps[1:] == [7, 8]


def test_accumulated_gradients_are_waited_for():
    model = keras.Sequential(
        [keras.Input((4,)), Sparseout(0.0, adjustable=True), keras.layers.Dense(1)]
    )
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=4)
    # Its own optimizer is the one that trains it, though another is kept.
    model.other = keras.optimizers.SGD()
    model.compile(optimizer, "mse", jit_compile=False)
    steps = []
    fit(model, steps, y=X[:, :1], epochs=3)
    assert steps == [0, 0, 0, 0, 1, 1, 1, 1, 2]
