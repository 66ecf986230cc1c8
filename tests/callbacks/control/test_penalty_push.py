"""What a push adds to the gradient is the gradient of the same penalty as a layer."""

import contextlib

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from pushed import (
    WEIGHT,
    Pushing,
    assert_same,
    penalized,
    updates,
    weights,
)

from keras_sparseout import ActivationPenalty
from keras_sparseout.callbacks.control import penalty_push
from keras_sparseout.callbacks.control.penalty_push import SILENT
from keras_sparseout.models import insert
from keras_sparseout.ops import penalties

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5)).astype("float32")
Y = RNG.normal(size=(16, 3)).astype("float32")
IDS = RNG.integers(0, 6, (16, 7))
IMAGES = RNG.normal(size=(16, 4, 3, 3)).astype("float32")


def dense(activation="relu", dtype=None):
    keras.utils.set_random_seed(1)
    hidden = L.Dense(9, activation, name="hidden", dtype=dtype)
    return keras.Sequential([keras.Input((5,)), hidden, L.Dense(3, dtype=dtype)])


def masked():
    """The third output of a LSTM has a mask; its states are outputs too."""
    inputs = keras.Input((7,))
    x = L.Embedding(6, 4, mask_zero=True)(inputs)
    x, _, state = L.LSTM(6, return_sequences=True, return_state=True, name="hidden")(x)
    x = L.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([x, state])))


def with_a_mask_of_its_own():
    """A nested model takes no mask, and gives one to its output."""
    layers = [L.Embedding(6, 4, mask_zero=True), L.Dense(6, "relu")]
    inner = keras.Sequential([keras.Input((7,)), *layers], name="hidden")
    inputs = keras.Input((7,))
    x = L.GlobalAveragePooling1D()(inner(inputs))
    return keras.Model(inputs, L.Dense(3)(x))


def channels_first():
    inputs = keras.Input((4, 3, 3))
    x = L.Permute((3, 1, 2))(L.Dense(3, "relu")(inputs))
    pad = L.ZeroPadding2D(1, data_format="channels_first", name="hidden")
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Permute((2, 3, 1))(pad(x)))))


def shared():
    inputs = keras.Input((5,))
    hidden = L.Dense(5, "relu", name="hidden")
    return keras.Model(inputs, L.Dense(3)(hidden(hidden(inputs))))


def nested():
    inner = keras.Sequential([keras.Input((5,)), L.Dense(9, "relu")], name="hidden")
    inputs = keras.Input((5,))
    return keras.Model(inputs, L.Dense(3)(inner(inputs)))


PLACES = {
    "relu": (dense, X),
    "gelu": (lambda: dense("gelu"), X),
    "float64": (lambda: dense("tanh", "float64"), X),
    "masked, with states": (masked, IDS),
    "a mask of its own": (with_a_mask_of_its_own, IDS),
    "channels first": (channels_first, IMAGES),
    "shared": (shared, X),
    "nested": (nested, X),
}


def silent_length(model, x):
    layer = model.get_layer("hidden")
    first = keras.tree.flatten(layer.output)[0]
    a = np.asarray(keras.Model(model.inputs[0], first)(x))
    if getattr(layer, "data_format", "") == "channels_first":
        a = np.moveaxis(a, 1, -1)
    squares = np.square(a.astype("float64")).sum(-1)
    if x is IDS:
        squares = squares[x != 0]
    return float(SILENT * np.sqrt(squares.mean()))


def reference_of(model, place, kind, epsilon):
    if place != "channels first":
        return penalized(model, "hidden", kind, epsilon)

    def last(_):
        penalty = ActivationPenalty(WEIGHT, kind, epsilon=epsilon)
        return keras.Sequential([L.Permute((2, 3, 1)), penalty, L.Permute((3, 1, 2))])

    return insert(model, {"hidden": last})


# Lengths, masks and axes matter to "hoyer_square", a shared layer has two lengths.
# Signs matter to "l1", of which GELU has both.
@pytest.mark.parametrize(
    ("place", "kind"),
    [("gelu", "l1"), ("shared", "l1"), ("nested", "l1")]
    + [
        (place, "hoyer_square") for place in PLACES if place not in ("shared", "nested")
    ],
)
def test_a_push_is_the_gradient_of_the_penalty_in_its_place(place, kind):
    make, x = PLACES[place]
    keras.utils.set_random_seed(1)
    model = make()
    reference = reference_of(model, place, kind, silent_length(model, x))
    plain = keras.models.clone_model(model)
    plain.set_weights(weights(model))

    def trained(model, *callbacks, **options):
        model.compile(keras.optimizers.SGD(0.5), "mse", **options)
        options = {"verbose": 0, "callbacks": list(callbacks)}
        return updates(model, lambda: batched.fit(model, x, Y, **options))

    pushed = trained(model, Pushing("hidden", kind), jit_compile=False)
    # What they are compared with need not be traced.
    by_layer = trained(reference, run_eagerly=True)
    without = trained(plain, run_eagerly=True)
    assert_same(pushed, by_layer)
    with pytest.raises(AssertionError):
        assert_same(pushed, without, rtol=0.01)
    assert not model.losses


class Own(keras.Model):
    """A subclassed model that looks up rows of its hidden layer."""

    def __init__(self, penalty=None):
        super().__init__()
        keras.utils.set_random_seed(1)
        self.hidden = L.Dense(9, "relu", name="hidden")
        self.penalty = penalty or L.Identity()
        self.out = L.Dense(3)

    def call(self, x):
        x = self.penalty(self.hidden(x))
        # Its gradient has the rows that are looked up alone.
        return self.out(keras.ops.take(x, keras.ops.arange(16), axis=0))


class OwnStep(keras.Sequential):
    """A model with a training step of its own, which clips gradients."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        gradients = [keras.ops.clip(g, -0.05, 0.05) for g in gradients]
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def own_step(penalty=None):
    keras.utils.set_random_seed(1)
    hidden = L.Dense(9, "relu", name="hidden")
    return OwnStep([keras.Input((5,)), hidden, penalty or L.Identity(), L.Dense(3)])


def dense_pair(penalty=None):
    model = dense()
    return model if penalty is None else penalized(model, "hidden")


def rebuilt(penalty=None):
    model = dense_pair(penalty)
    config = keras.saving.serialize_keras_object(model)
    again = keras.saving.deserialize_keras_object(config)
    again.set_weights(weights(model))
    return again


def sgd(**kwargs):
    return keras.optimizers.SGD(0.2, **kwargs)


def scaled():
    return keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**8)


# Models, optimizers and how they are compiled.
WAYS = {
    "subclassed": (Own, sgd, {}),
    "own train_step": (own_step, sgd, {}),
    "from a config": (rebuilt, sgd, {}),
    "eager": (dense_pair, sgd, {"run_eagerly": True}),
    "compiled": (dense_pair, sgd, {"jit_compile": True}),
    "several steps": (dense_pair, sgd, {"steps_per_execution": 2}),
    "accumulated": (dense_pair, lambda: sgd(gradient_accumulation_steps=2), {}),
    "loss scale": (dense_pair, scaled, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_push_is_the_same_in_each_way_to_train(way):
    make, optimizer, options = WAYS[way]
    found = []
    for model, callbacks, compiled in (
        (make(), [Pushing("hidden")], {"jit_compile": False, **options}),
        # What it is compared with need not be traced.
        (make(ActivationPenalty(WEIGHT)), [], {"run_eagerly": True}),
    ):
        model(X)
        model.compile(optimizer(), "mse", **compiled)

        def train(model=model, callbacks=callbacks):
            x, y = np.tile(X, (2, 1)), np.tile(Y, (2, 1))
            options = {"batch_size": 16, "verbose": 0, "callbacks": callbacks}
            batched.fit(model, x, y, **options)

        found.append(updates(model, train))
        assert not model.losses or not callbacks
    assert_same(*found)


def one_step(model, callbacks, x=X, optimizer=None):
    # What a push is compared with need not be traced.
    options = {"run_eagerly": not callbacks, "jit_compile": False}
    model.compile(optimizer or sgd(), "mse", **options)

    def train():
        batched.fit(model, x, Y, verbose=0, callbacks=callbacks)

    return updates(model, train)


def test_a_push_in_half_precision():
    found = []
    for penalty, callbacks in ((None, [Pushing("hidden")]), (WEIGHT, [])):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((5,)), L.Dense(9, "relu", name="hidden")]
        layers += [] if penalty is None else [ActivationPenalty(penalty)]
        model = keras.Sequential([*layers, L.Dense(3)])
        for layer in model.layers:
            layer.dtype_policy = "mixed_float16"
        found.append(one_step(model, callbacks, optimizer=scaled()))
    assert_same(*found, rtol=0.01)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_push_in_a_loop_of_ones_own(compiled):
    by_layer, model, pushing = dense_pair(WEIGHT), dense(), Pushing("hidden")
    pushing.set_model(model)

    def gradients(model, reading):
        with tf.GradientTape() as tape:
            with reading():
                outputs = model(X, training=True)
            loss = tf.reduce_mean(tf.square(outputs - Y)) + sum(model.losses)
        return tape.gradient(loss, model.trainable_variables)

    def plain():
        return gradients(by_layer, contextlib.nullcontext)

    def pushed():
        return gradients(model, pushing.sums.reading)

    if compiled:
        plain, pushed = tf.function(plain), tf.function(pushed)
    assert_same(*([np.asarray(g) for g in f()] for f in (pushed, plain)))


def test_a_push_of_the_input_of_a_layer():
    found = []
    for model, callbacks in (
        (dense(), [Pushing("dense.*", where="input")]),
        (dense_pair(WEIGHT), []),
    ):
        found.append(one_step(model, callbacks))
    assert_same(*found)


def test_on_replicas_a_push_is_the_same_and_they_stay_equal():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    found, pushing = [], Pushing("hidden")
    with strategy.scope():
        model = dense()
        found.append(one_step(model, [pushing]))
    found.append(one_step(dense_pair(WEIGHT), []))
    assert_same(*found)
    for variable in (*model.trainable_variables, pushing.variables["measured"]):
        one, other = variable.value.values
        np.testing.assert_array_equal(one, other)


def test_norms_are_those_of_the_gradients_of_some_samples():
    model, pushing = dense(), Pushing("hidden", samples=6)
    rows = np.asarray(penalty_push._rows(X, 6))
    hidden, out = model.layers
    a = tf.convert_to_tensor(hidden(X))
    with tf.GradientTape() as tape:
        tape.watch(a)
        loss = tf.reduce_mean(tf.square(out(a) - Y))
    expected = [np.linalg.norm(np.asarray(tape.gradient(loss, a))[rows])]
    expected += [np.sqrt(np.sum(np.asarray(a)[rows] > 0)) / 16]
    for optimizer in (keras.optimizers.SGD(0.0), scaled()):
        one_step(model, [pushing], optimizer=optimizer)
        np.testing.assert_allclose(pushing.norms(), expected, rtol=1e-5)


def test_a_push_keeps_the_mask_that_a_nested_model_gives():
    """The LSTM behind it skips padding, as it does without a push."""
    found = []
    for callbacks in ([Pushing("inner", weight=0.0)], []):
        keras.utils.set_random_seed(1)
        inner = keras.Sequential(
            [keras.Input((7,)), L.Embedding(6, 4, mask_zero=True)], name="inner"
        )
        inputs = keras.Input((7,))
        model = keras.Model(inputs, L.Dense(3)(L.LSTM(5)(inner(inputs))))
        found.append(one_step(model, callbacks, IDS))
    assert_same(*found, rtol=1e-5)


@pytest.mark.parametrize("kind", ["l1", "hoyer_square"])
def test_nan_in_padding_is_not_pushed(kind):
    x = RNG.normal(size=(4, 3, 5)).astype("float32")
    mask = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], bool)
    padded = np.where(mask[..., None], x, np.nan).astype("float32")
    gradient, vectors = penalties.mean_penalty_gradient(padded, mask, kind, SILENT)
    alone, count = penalties.mean_penalty_gradient(x[mask], None, kind, SILENT)
    assert float(vectors) == float(count) == 6
    np.testing.assert_allclose(np.asarray(gradient)[mask], alone, rtol=1e-5)
    assert not np.any(np.asarray(gradient)[~mask])


@pytest.mark.parametrize("kind", ["l1", "hoyer_square"])
def test_silent_activations_have_a_finite_gradient(kind):
    for x in (np.zeros((4, 3), "float32"), np.zeros((0, 3), "float32")):
        gradient, vectors = penalties.mean_penalty_gradient(x, None, kind, SILENT)
        assert not np.any(gradient)
        assert vectors >= 1
