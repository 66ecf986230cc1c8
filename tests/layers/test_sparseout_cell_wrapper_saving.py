"""Noisy RNN cells in files, and what comes back."""

import inspect
import json

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import random_ops, random_ops_of_file
from keras import layers
from sequences import (
    CELLS,
    DRAWING_CELLS,
    FEATURES,
    STEPS,
    UNITS,
    built,
    rnn,
    sequences,
)

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout
from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper
from keras_sparseout.measure import layer_selection

NOISE = {"rate": 0.5, "recurrent_rate": 0.25, "q": 1.5}


def wrapped(cell, **kwargs):
    return SparseoutCellWrapper(cell, **NOISE, **kwargs)


def network(seed=None):
    """Returns a model with all layers that draw once per sequence.

    These are a cell for each direction, an adjustable stack with one cell that is noisy
    by itself, and two cells with noise on their weights.
    """
    noisy = [
        wrapped(layers.SimpleRNNCell(UNITS), seed=seed),
        wrapped(
            layers.StackedRNNCells(
                [wrapped(layers.SimpleRNNCell(UNITS)), layers.GRUCell(4)]
            ),
            adjustable=True,
        ),
        Bridgeout(layers.SimpleRNNCell(UNITS), 0.3, 1.5, weights="recurrent_kernel"),
        Shakeout(layers.SimpleRNNCell(UNITS), 0.3, 0.1, adjustable=True),
    ]
    both, *others = (layers.RNN(cell, return_sequences=True) for cell in noisy)
    both = layers.Bidirectional(both)
    return keras.Sequential([keras.Input((STEPS, FEATURES)), both, *others])


def wrappers(model):
    found = [w.layer for w in layer_selection.all_layers(model)]
    return [layer for layer in found if isinstance(layer, SparseoutCellWrapper)]


def seed_states(model):
    return [cell.seed_generator.state.numpy().tolist() for cell in wrappers(model)]


GIVEN = {
    "rate": 0.5,
    "recurrent_rate": 0.25,
    "q": 1.25,
    "seed": 7,
    "epsilon": 1e-5,
    "stop_gradient": False,
    "adjustable": True,
    "name": "noisy",
    "trainable": False,
    "dtype": "mixed_bfloat16",
}


@pytest.mark.parametrize(
    "cell", (CELLS | DRAWING_CELLS).values(), ids=CELLS | DRAWING_CELLS
)
def test_config_holds_every_argument_and_makes_an_equal_layer(cell):
    original = SparseoutCellWrapper(cell(), **GIVEN)
    config = original.get_config()
    arguments = set(inspect.signature(SparseoutCellWrapper).parameters) - {"kwargs"}
    assert set(config) == set(GIVEN) | {"cell"}
    assert arguments < set(config)
    assert original.dtype_policy.name == GIVEN["dtype"]
    assert all(config[name] == GIVEN[name] for name in set(GIVEN) - {"dtype"})
    before = json.dumps(config)
    assert json.dumps(SparseoutCellWrapper.from_config(config).get_config()) == before
    # The config itself is unchanged.
    assert json.dumps(config) == before

    layer = layers.RNN(original, return_sequences=True)
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    restored = keras.saving.deserialize_keras_object(serialized)
    assert type(restored.cell) is SparseoutCellWrapper
    assert type(restored.cell.cell) is type(original.cell)
    assert restored.get_config() == layer.get_config()


def test_config_of_defaults_makes_an_equal_layer():
    config = SparseoutCellWrapper(layers.LSTMCell(UNITS)).get_config()
    assert SparseoutCellWrapper.from_config(config).get_config() == config
    assert [config[name] for name in ("rate", "recurrent_rate", "q")] == [0, 0, 2]


def test_clone_model_draws_alike():
    model = network(seed=5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert not set(map(id, wrappers(model))) & set(map(id, wrappers(clone)))
    # The other cells, without a seed, draw as they like.
    first, second = model.layers[0], clone.layers[0]
    x = sequences()
    np.testing.assert_array_equal(first(x, training=True), second(x, training=True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model in files, and what the model returns."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    x = sequences()
    model = network()
    model(x, training=True)
    (cell,) = (cell for cell in wrappers(model) if cell.adjustable)
    cell.rate, cell.recurrent_rate, cell.q = 0.6, 0.1, 1.2
    (folder / "model.json").write_text(model.to_json())
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    expected = {"predicted": model(x)}
    expected["continued"] = [model(x, training=True) for _ in range(2)]
    return folder, expected


@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
def test_a_model_from_a_file_predicts_and_trains_on_alike(saved, file):
    folder, expected = saved
    if file == "model.keras":
        model = keras.saving.load_model(folder / file)
    else:
        text = (folder / "model.json").read_text()
        model = keras.models.model_from_json(text)
        model.load_weights(folder / file)
    x = sequences()
    np.testing.assert_allclose(model(x), expected["predicted"], 0, 1e-6)
    for continued in expected["continued"]:
        np.testing.assert_allclose(model(x, training=True), continued, 0, 1e-6)


def test_exports_predict_alike_and_hold_no_random_op(tmp_path):
    # Dropout of a cell itself is not exported either.
    cells = [
        layers.LSTMCell(UNITS, dropout=0.5, recurrent_dropout=0.5),
        wrapped(layers.SimpleRNNCell(UNITS)),
    ]
    layer = layers.RNN(wrapped(layers.StackedRNNCells(cells), adjustable=True))
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layer])
    x = tf.constant(sequences())
    model(x, training=True)
    model.export(tmp_path / "exported", verbose=False)
    tf.saved_model.save(model, tmp_path / "raw")
    exported, raw = (tf.saved_model.load(tmp_path / n) for n in ("exported", "raw"))
    for y in (exported.serve(x), *raw.signatures["serving_default"](x).values()):
        np.testing.assert_allclose(y, model(x), 0, 1e-6)
    for name in ("exported", "raw"):
        assert not random_ops_of_file(tmp_path / name)


def test_a_training_graph_holds_a_random_op():
    layer = rnn(layers.LSTMCell(UNITS), **NOISE)
    call = tf.function(lambda x: layer(x, training=True))
    graph = call.get_concrete_function(tf.TensorSpec((4, STEPS, FEATURES))).graph
    assert random_ops(graph.as_graph_def())


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_weights_go_to_and_from_the_plain_cell(cell):
    ours, plain = rnn(cell(), **NOISE), built(layers.RNN(cell(), return_sequences=True))
    x = sequences()
    for source, target in ((ours, plain), (plain, ours)):
        source.set_weights([weight + 0.01 for weight in source.get_weights()])
        target.set_weights(source.get_weights())
        np.testing.assert_array_equal(target(x), source(x))


def test_a_file_of_the_plain_cell_is_refused_as_documented(tmp_path):
    def model_of(layer):
        return keras.Sequential([keras.Input((STEPS, FEATURES)), layer])

    path = tmp_path / "plain.weights.h5"
    model_of(layers.RNN(layers.LSTMCell(UNITS))).save_weights(path)
    with pytest.raises(ValueError, match="expected 3 variables"):
        model_of(rnn(layers.LSTMCell(UNITS))).load_weights(path)


def test_a_run_resumed_from_a_file_is_the_uninterrupted_one(tmp_path):
    def model_of():
        keras.utils.set_random_seed(1)
        layer = layers.RNN(wrapped(layers.GRUCell(UNITS), adjustable=True))
        model = keras.Sequential([keras.Input((2, FEATURES)), layer])
        model.compile("adam", "mse", run_eagerly=True)
        return model

    def fit(model, **kwargs):
        x = sequences(8, 2)
        y = np.zeros((8, UNITS))
        batched.fit(model, x, y, batch_size=4, verbose=0, **kwargs)

    whole, first = model_of(), model_of()
    fit(whole, epochs=2)
    fit(first)
    first.save(tmp_path / "model.keras")
    second = keras.saving.load_model(tmp_path / "model.keras")
    second.run_eagerly = True
    assert seed_states(second) == seed_states(first)
    fit(second, initial_epoch=1, epochs=2)
    assert seed_states(second) == seed_states(whole)
    for a, b in zip(second.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
