"""Saving the Sparseout layers and loading them; in a fresh process: test_exports.py."""

import json

import batched
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import random_ops
from public_api import signature_of

from keras_sparseout import (
    Sparseout,
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
)

LAYERS = {
    Sparseout: (24,),
    SpatialSparseout1D: (6, 4),
    SpatialSparseout2D: (3, 2, 4),
    SpatialSparseout3D: (3, 2, 2, 2),
}
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)


def ours(layer, **kwargs):
    return layer(0.3, 1.5, **{"jit_compile": False, **kwargs})


def dropout(layer):
    return getattr(keras.layers, layer.__name__.replace("Sparseout", "Dropout"))(0.3)


def network(make=ours, **kwargs):
    """A model that holds every layer, with the weights of two Dense layers."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(24, "tanh")])
    for layer, shape in LAYERS.items():
        model.add(keras.layers.Reshape(shape))
        model.add(make(layer, **kwargs))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(2))
    model.compile("adam", "mse", jit_compile=False)
    return model


def eager(seed, **kwargs):
    """A model that runs eagerly: in a few steps that takes less time than tracing."""
    keras.utils.set_random_seed(seed)
    model = network(**kwargs)
    model.run_eagerly = True
    return model


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 8)).astype("float32"), rng.normal(size=(24, 2))


def fit(model, **kwargs):
    # Several batches an epoch, in one order.
    batched.fit(model, *data(), batch_size=8, verbose=0, **kwargs)


def sparseouts(model):
    return [layer for layer in model.layers if isinstance(layer, Sparseout)]


def state(model):
    """All that training changes: weights, seed states, the optimizer's variables."""
    return [np.asarray(v.value) for v in (*model.variables, *model.optimizer.variables)]


def seed_states(model):
    return [s.seed_generator.state.numpy().tolist() for s in sparseouts(model)]


def assert_equal(arrays, others):
    assert len(arrays) == len(others)
    for a, b in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(a, b)


def own_arguments(layer):
    """Names of the arguments of a layer, with those that it passes to Sparseout."""
    names = set(signature_of(layer).parameters) - {"kwargs"}
    further = signature_of(Sparseout).parameters.values()
    return names | {p.name for p in further if p.kind is p.KEYWORD_ONLY}


@every_layer
def test_config_holds_every_argument_and_makes_an_equal_layer(layer):
    given = {
        "rate": 0.3,
        "q": 1.25,
        "noise_shape": (None, 1),
        "data_format": "channels_first",
        "seed": 7,
        "epsilon": 1e-5,
        "stop_gradient": False,
        "adjustable": True,
        "jit_compile": False,
        "target_fraction": 0.75,
        "name": "regularizer",
        "trainable": False,
        "dtype": "mixed_bfloat16",
    }
    names = own_arguments(layer) | {"name", "trainable", "dtype"}
    given = {name: value for name, value in given.items() if name in names}
    original = layer(**given)
    config = original.get_config()
    assert set(config) == set(given) == names
    assert original.dtype_policy.name == given.pop("dtype")
    assert {name: config[name] for name in given} == given
    assert layer.from_config(config).get_config() == config

    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    assert serialized["registered_name"] == f"keras_sparseout>{layer.__name__}"
    restored = keras.saving.deserialize_keras_object(serialized)
    assert type(restored) is layer
    assert restored.get_config() == config


@every_layer
def test_config_of_defaults_makes_an_equal_layer(layer):
    config = layer(0.5).get_config()
    assert layer.from_config(config).get_config() == config
    assert (config["q"], config["seed"]) == (2.0, None)


def test_numpy_scalars_as_arguments_leave_a_config_of_plain_numbers():
    shape = (None, np.int64(1))
    layer = Sparseout(np.float32(0.5), np.int64(2), shape, seed=np.int64(3))
    twin = Sparseout(0.5, 2, (None, 1), 3, name=layer.name)
    assert json.dumps(layer.get_config()) == json.dumps(twin.get_config())


def test_clone_model_makes_layers_of_its_own_that_draw_alike():
    model = network(seed=5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for old, new in zip(sparseouts(model), sparseouts(clone), strict=True):
        assert old is not new
        assert old.get_config() == new.get_config()
    x, _ = data()
    np.testing.assert_array_equal(clone(x, training=True), model(x, training=True))


def test_a_training_graph_holds_a_random_op():
    model = network()
    spec = tf.TensorSpec((None, 8))
    call = tf.function(lambda x: model(x, training=True)).get_concrete_function(spec)
    assert random_ops(call.graph.as_graph_def())


class Block(keras.layers.Layer):
    """In its file our layer or Dropout has the same path, the one of `drop`."""

    def __init__(self, make, **kwargs):
        super().__init__()
        self.hidden = keras.layers.Dense(3)
        self.drop = make(Sparseout, **kwargs)

    def build(self, input_shape):
        self.hidden.build(input_shape)

    def call(self, x, training=False):
        return self.drop(self.hidden(x), training=training)


def block(make=ours, **kwargs):
    return keras.Sequential([keras.Input((8,)), Block(make, **kwargs)])


PAIRS = [
    ((dropout, {}), (ours, {"adjustable": True})),
    ((ours, {"adjustable": True}), (dropout, {})),
    ((ours, {}), (ours, {"adjustable": True})),
    ((ours, {"adjustable": True}), (ours, {})),
    ((dropout, {}), (ours, {})),
    ((ours, {}), (dropout, {})),
]


@pytest.mark.parametrize(
    ("build", "source", "target"),
    [(block, *pair) for pair in PAIRS] + [(network, *pair) for pair in PAIRS[:4]],
)
def test_weights_go_between_kinds_of_layers(tmp_path, build, source, target):
    x, _ = data()
    models = [build(make, **kwargs) for make, kwargs in (source, target)]
    expected, before = (model(x) for model in models)
    assert not np.allclose(before, expected)
    models[0].save_weights(tmp_path / "source.weights.h5")
    if build is block and target[0] is dropout:
        # At its own path in a file Dropout refuses any entry.
        with pytest.raises(ValueError, match="expected 0 variables"):
            models[1].load_weights(tmp_path / "source.weights.h5")
        return
    models[1].load_weights(tmp_path / "source.weights.h5")
    np.testing.assert_array_equal(models[1](x), expected)


def test_weights_without_a_seed_state_load(tmp_path):
    path = tmp_path / "old.weights.h5"
    old, new = network(), network()
    old.save_weights(path)
    with h5py.File(path, "r+") as file:
        names = []
        file.visit(names.append)
        seeds = [name for name in names if name.endswith("seed_state")]
        assert len(seeds) == len(LAYERS)
        for name in seeds:
            del file[name]
    before = seed_states(new)
    new.load_weights(path)
    assert_equal(new.get_weights(), old.get_weights())
    assert seed_states(new) == before


def test_weights_bring_the_seed_state_and_assigned_rate_and_q(tmp_path):
    path = tmp_path / "model.weights.h5"
    old, new = (eager(seed, adjustable=True) for seed in (1, 2))
    for layer in sparseouts(old):
        layer.rate, layer.q = 0.7, 1.3
    old(data()[0], training=True)
    old.save_weights(path)
    assert seed_states(new) != seed_states(old)
    new.load_weights(path)
    assert seed_states(new) == seed_states(old)
    assert {(s.rate, s.q) for s in sparseouts(new)} == {(0.7, 1.3)}


def test_a_run_resumed_from_a_file_is_the_uninterrupted_one(tmp_path):
    whole, first = (eager(1, adjustable=True) for _ in range(2))
    fit(whole, epochs=2)
    fit(first)
    first.save(tmp_path / "model.keras")
    second = keras.saving.load_model(tmp_path / "model.keras")
    second.run_eagerly = True
    fit(second, initial_epoch=1, epochs=2)
    assert_equal(state(second), state(whole))


class InterruptionError(Exception):
    pass


def test_a_run_resumed_by_backup_and_restore_is_the_uninterrupted_one(tmp_path):
    def interrupt(batch, logs):
        if first.optimizer.iterations > 3:
            raise InterruptionError

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    interruption = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)

    whole, first, second = (eager(seed) for seed in (1, 1, 2))
    fit(whole, epochs=2)
    with pytest.raises(InterruptionError):
        fit(first, epochs=2, callbacks=[backup(), interruption])
    fit(second, epochs=2, callbacks=[backup()])
    assert int(second.optimizer.iterations) == 6
    assert_equal(state(second), state(whole))
