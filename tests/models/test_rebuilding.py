"""Copies of models have all that the models have, and nothing in common with them."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import (
    IDS,
    IMAGES,
    RNG,
    SEQUENCES,
    X,
    assert_same_outputs,
    layers_in,
    outputs,
    sequential,
)

import keras_sparseout as ks
from keras_sparseout.models import insert


def copied(model, place=L.Dense):
    """A copy of a model with a layer in it that does nothing at inference."""
    return insert(model, {place: lambda layer: L.GaussianNoise(0.1)})


def test_what_is_trainable_stays_so():
    model = keras.Sequential(
        [keras.Input((8,)), sequential(), L.Dense(3, name="top")], name="outer"
    )
    inner = model.layers[0]
    inner.trainable = False
    inner.layers[1].trainable = True
    model.layers[1].kernel.trainable = False
    new = copied(model)
    old_layers, new_layers = layers_in(model), layers_in(new)
    for path, layer in old_layers.items():
        assert new_layers[path].trainable is layer.trainable, path
    mine = [v.trainable for v in model.variables]
    noise = [v for v in new.variables if "seed" in v.path]
    others = [v.trainable for v in new.variables if all(v is not n for n in noise)]
    assert mine == others
    assert len(new.trainable_variables) == len(model.trainable_variables) == 3
    model.trainable = False
    assert not copied(model).trainable_variables


def test_states_that_are_no_weights_are_copied():
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(4, 6, 8)),
            L.Dropout(0.5),
            L.LSTM(3, stateful=True, return_sequences=True),
            L.BatchNormalization(),
            L.Dense(2),
        ]
    )
    model(SEQUENCES, training=True)
    new = copied(model)
    # The next draws, the states of the sequence, and the moving statistics.
    drops = [m.layers[0](X, training=True) for m in (model, new)]
    np.testing.assert_array_equal(*drops)
    assert_same_outputs(model, new, SEQUENCES)


def test_layers_of_this_package_are_copied():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            ks.Sparseout(0.5, adjustable=True, seed=7, jit_compile=False),
            ks.Bridgeout(L.Dense(8, name="inner"), 0.3, seed=1),
            ks.TargetSparsity(0.5, axis=-1),
            L.Dense(2, name="last"),
        ]
    )
    noise, bridge, threshold, _ = model.layers
    noise.rate, noise.controller_state = 0.7, [1.0, 2.0]
    threshold.start(np.arange(8) / 10)
    model(X, training=True)
    new = copied(model, "last")
    assert new.layers[0].rate == 0.7
    assert new.layers[0].controller_state.tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(
        new.layers[0](X, training=True), noise(X, training=True)
    )
    np.testing.assert_array_equal(
        new.layers[1](X, training=True), bridge(X, training=True)
    )
    np.testing.assert_array_equal(new.layers[2].threshold, threshold.threshold)


def einsum_and_dense():
    layers = [L.EinsumDense("ab,bc->ac", 6, bias_axes="c"), L.Dense(3)]
    return keras.Sequential([keras.Input((8,)), L.Dense(8, "relu"), *layers])


@pytest.mark.parametrize("mode", ["int4", "float8", "lora", "lora and int8"])
def test_quantized_and_low_rank_layers_are_copied_exactly(mode):
    model = einsum_and_dense()
    if "lora" in mode:
        model.layers[0].enable_lora(2)
        model.layers[0].lora_kernel_b.assign(RNG.normal(size=(2, 8)))
    if mode != "lora":
        with pytest.warns(UserWarning, match="InputLayer does not have"):
            model.quantize(mode.split()[-1])
    new = copied(model)
    assert_same_outputs(model, new, X)
    for old, layer in layers_in(model).items():
        assert layers_in(new)[old].quantization_mode == layer.quantization_mode
    first, second = model.layers[0], new.layers[0]
    assert [v.trainable for v in first.weights] == [v.trainable for v in second.weights]
    if mode == "lora":
        np.testing.assert_array_equal(first.lora_kernel_b, second.lora_kernel_b)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_each_layer_keeps_its_dtype(policy):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(5, "relu", dtype=policy),
            L.Dense(2, dtype="float32"),
        ]
    )
    new = copied(model)
    assert_same_outputs(model, new, X)
    assert [v.dtype for v in new.trainable_variables] == [
        v.dtype for v in model.trainable_variables
    ]
    assert new.layers[0].dtype_policy.name == policy


def test_what_layers_add_to_the_loss_stays():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(
                4,
                activity_regularizer="l2",
                kernel_regularizer="l1",
                kernel_constraint="max_norm",
            ),
        ]
    )
    new = copied(model)
    model(X), new(X)
    np.testing.assert_allclose(new.losses, model.losses)
    assert new.layers[0].kernel_constraint is not None


class Block(L.Layer):
    """Makes layers in its code, in lists and dicts."""

    def __init__(self, count=3, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.listed = [L.Dense(8) for _ in range(count)]
        self.named = {"a": L.Dense(8), "b": [L.LayerNormalization()]}
        self._hidden = L.Dense(8, "tanh")

    def call(self, x):
        for layer in self.listed:
            x = layer(x)
        return self.named["b"][0](self.named["a"](self._hidden(x)))

    def get_config(self):
        return {**super().get_config(), "count": self.count}


class Scale(L.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")

    def call(self, x):
        return x * self.kernel

    def compute_output_shape(self, shape):
        return shape


class Branch(keras.Model):
    """A subclassed model, to be inside another."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.block, self.dense = Block(1), L.Dense(units)

    def call(self, x):
        return self.dense(self.block(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_layers_and_models_of_ones_own_are_copied():
    x = keras.Input((8,))
    y = L.Lambda(lambda x: x + 1)(L.Dense(8, lambda x: x * x, name="square")(x))
    y = L.TimeDistributed(Scale())(L.Reshape((1, 8))(Branch(8)(Block(2)(y))))
    model = keras.Model(x, y)
    new = copied(model, "square")
    assert_same_outputs(model, new, X)
    assert len(new.trainable_variables) == len(model.trainable_variables)


class Trained(keras.Model):
    def train_step(self, data):
        return {**super().train_step(data), "mine": 1.0}


class Made(keras.Model):
    def __init__(self, units, **kwargs):
        x = keras.Input((8,))
        super().__init__(x, L.Dense(units, name="dense")(x), **kwargs)
        self.units = units


class MadeAndTrained(Made):
    def train_step(self, data):
        return super().train_step(data)


def test_a_functional_model_keeps_its_class_if_it_can():
    x = keras.Input((8,))
    new = copied(Trained(x, L.Dense(1)(x)))
    assert type(new) is Trained
    new.compile("sgd", "mse", run_eagerly=True)
    assert new.fit(X, X[:, :1], verbose=0).history["mine"] == [1.0]
    model = Made(3)
    new = copied(model)
    assert_same_outputs(model, new, X)
    assert type(new).__name__ == "Functional"
    with pytest.raises(ValueError, match="a `train_step` of its own") as error:
        copied(MadeAndTrained(3))
    assert "Give keras.Model(model.input, model.output)" in str(error.value)
    # Inside another model nothing calls it.
    outer = keras.Sequential([keras.Input((8,)), MadeAndTrained(3), L.Dense(1)])
    assert_same_outputs(outer, copied(outer), X)


TABLE = L.Embedding(9, 4, name="table")


class Tied(L.Layer):
    """Reads a layer that is in the code, not in the config."""

    def call(self, x):
        weights = keras.ops.convert_to_tensor(TABLE.embeddings)
        return keras.ops.matmul(x, keras.ops.transpose(weights))

    def build(self, shape):
        self.table = TABLE


class Bare(L.Layer):
    """Takes neither a name nor other arguments of Keras."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


class Secret(L.Layer):
    def __init__(self, function, units):
        super().__init__()
        self.function, self.units = function, units

    def call(self, x):
        return self.function(x)


class Grown(Scale):
    """What its config does not say makes another weight."""

    more = False

    def build(self, shape):
        super().build(shape)
        if self.more:
            self.other = self.add_weight(shape=(3,), name="other")


def test_a_layer_without_arguments_of_keras_keeps_its_name():
    model = keras.Sequential([keras.Input((8,)), Bare(3.0), L.Dense(2)])
    new = copied(model)
    assert new.layers[0].name == model.layers[0].name
    assert_same_outputs(model, new, X)


def test_layers_that_cannot_be_copied_are_named():
    x = keras.Input((6,), dtype="int32")
    tied = keras.Model(x, Tied()(L.Dense(4)(TABLE(x))))
    with pytest.raises(ValueError, match="shares with another layer"):
        copied(tied)
    # Called twice it is one layer.
    both = L.ReversibleEmbedding(9, 4)
    model = keras.Model(x, both(L.Dense(4)(both(x)), reverse=True))
    assert_same_outputs(model, copied(model), IDS.repeat(2, 1)[:, :6])
    model = keras.Sequential([keras.Input((8,)), L.Dense(2), Secret(abs, [1])])
    with pytest.raises(ValueError, match="Give Secret a `get_config`"):
        copied(model)
    grown = Grown()
    grown.more = True
    model = keras.Sequential([keras.Input((8,)), L.Dense(2), grown])
    with pytest.raises(ValueError, match=r"kernel \(2,\), other \(3,\). Made again it"):
        copied(model)


def test_models_from_files_are_copied(tmp_path):
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), L.Conv2D(3, 3), L.Flatten(), L.Dense(2)]
    )
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "model.h5")
    for name in ("model.keras", "model.h5"):
        loaded = keras.saving.load_model(tmp_path / name)
        new = copied(loaded)
        assert_same_outputs(model, new, IMAGES)
        new.save(tmp_path / "new.keras")
        again = keras.saving.load_model(tmp_path / "new.keras")
        assert_same_outputs(model, again, IMAGES)


def test_new_operations_get_names_of_their_own():
    x = keras.Input((8,))
    number = int(keras.ops.subtract(x, 1.0)._keras_history.operation.name[9:] or 0)
    # As in a process where Keras has not counted this far.
    y = L.Subtract(name=f"subtract_{number + 1}")([x, L.Dense(8)(x)])
    model = keras.Model(x, y)
    layer = ks.TargetSparsity(0.5, centre="mode")
    new = insert(model, {L.Subtract: lambda _: layer})
    layer.start(0.5, 0.1)
    plain = ks.models.strip(new, verbose=0)
    assert outputs(plain, X)[0].shape == (4, 8)
