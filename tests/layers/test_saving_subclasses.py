"""Files of layers whose subclasses make weights of their own."""

import copy
import pickle

import keras
import numpy as np
import pytest

import keras_sparseout as ks

L = keras.layers


@keras.saving.register_keras_serializable("saving_subclasses")
class Scaled(ks.Sparseout):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")
        self.shift = self.add_weight(shape=(), trainable=False, name="shift")

    def call(self, inputs, training=False):
        return super().call(inputs * self.scale + self.shift, training=training)


@keras.saving.register_keras_serializable("saving_subclasses")
class ScaledTarget(ks.TargetSparsity):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), name="scale")
        super().build(input_shape)

    def call(self, inputs, training=False, mask=None):
        return super().call(inputs * self.scale, training=training, mask=mask)


@keras.saving.register_keras_serializable("saving_subclasses")
class ScaledPenalty(ks.ActivationPenalty):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = self.add_weight(shape=(), name="scale")

    def call(self, inputs, mask=None):
        return super().call(inputs, mask=mask) * self.scale


@keras.saving.register_keras_serializable("saving_subclasses")
class ScaledBridgeout(ks.Bridgeout):
    def build(self, input_shape=None):
        super().build(input_shape)
        self.scale = self.add_weight(shape=(), name="scale")

    def call(self, inputs, *args, training=False, **kwargs):
        return self.scale * super().call(inputs, *args, training=training, **kwargs)


@keras.saving.register_keras_serializable("saving_subclasses")
class ScaledCell(ks.SparseoutCellWrapper):
    def build(self, input_shape=None):
        super().build(input_shape)
        self.scale = self.add_weight(shape=(), name="scale")

    def call(self, inputs, states, training=False):
        return super().call(inputs * self.scale, states, training=training)


LAYERS = {
    "Sparseout": lambda: Scaled(0.3, 1.5),
    "adjustable Sparseout": lambda: Scaled(0.3, 1.5, adjustable=True),
    "TargetSparsity": lambda: ScaledTarget(0.3, axis=-1, adjustable=True),
    "ActivationPenalty": lambda: ScaledPenalty(0.3, adjustable=True),
    "Bridgeout": lambda: ScaledBridgeout(L.Dense(3), 0.3, adjustable=True),
    "SparseoutCellWrapper": lambda: L.RNN(ScaledCell(L.GRUCell(3), 0.3)),
}


def network(name, seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((2, 4)), LAYERS[name]()])
    # Other values than those that a new layer has.
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.2, 0.8, v.shape) for v in model.weights])
    return model


def assert_same_weights(model, other):
    weights = model.get_weights()
    for value, its_copy in zip(weights, other.get_weights(), strict=True):
        np.testing.assert_array_equal(its_copy, value)


@pytest.mark.parametrize("name", LAYERS)
def test_weights_of_a_subclass_are_in_files_and_copies(tmp_path, name):
    model, other = network(name, 0), network(name, 1)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_weights(model, other)
    model.save(tmp_path / "model.keras")
    assert_same_weights(model, keras.saving.load_model(tmp_path / "model.keras"))
    assert_same_weights(model, copy.deepcopy(model))
    assert_same_weights(model, pickle.loads(pickle.dumps(model)))


def test_files_have_the_weights_of_a_subclass_as_keras_numbers_them():
    store, plain = {}, {}
    layer = Scaled(0.3, adjustable=True)
    layer.build((None, 4))
    layer.save_own_variables(store)
    ks.Sparseout(0.3, adjustable=True).save_own_variables(plain)
    assert list(plain) == ["rate", "q", "seed_state"]
    assert list(store) == ["0", "1", *plain]
    assert store["0"] is layer.scale
    assert store["1"] is layer.shift


@pytest.mark.parametrize("held", [0, 1, 3])
def test_a_file_with_another_number_of_weights_is_refused(held):
    layer, store = Scaled(0.3), {}
    layer.build((None, 4))
    ks.Sparseout(0.3).save_own_variables(store)
    store |= {str(number): np.zeros(4) for number in range(held)}
    before = layer.seed_generator.state.numpy()
    rule = (
        rf"must have the 2 variables .* \(scale, shift\)\. Received: .* with {held}\."
    )
    with pytest.raises(ValueError, match=rule):
        layer.load_own_variables(store)
    np.testing.assert_array_equal(layer.seed_generator.state.numpy(), before)


def test_a_class_that_names_its_weights_in_files_itself_reads_them():
    class Named(ks.Sparseout):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.gain = self.add_weight(shape=(), name="gain")

        def load_own_variables(self, store):
            super().load_own_variables(store)
            self.gain.assign(store["gain"])

    store = {"gain": np.float32(3)}
    ks.Sparseout(0.3).save_own_variables(store)
    layer = Named(0.3)
    layer.load_own_variables(store)
    assert float(layer.gain.numpy()) == 3
