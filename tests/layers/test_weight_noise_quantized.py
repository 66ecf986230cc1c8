"""Noise on the weights of layers that Keras has quantized."""

import re
import warnings

import keras
import numpy as np
import pytest

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers
WORDS = 9
pytestmark = pytest.mark.filterwarnings(
    # Keras warns about every layer that it can't quantize.
    "ignore:Layer InputLayer does not have a `quantize`",
    "ignore:Invalid quantization mode",
)
VECTORS = np.random.default_rng(0).normal(size=(5, 3, 6)).astype("float32")
TOKENS = np.random.default_rng(0).integers(0, WORDS, (5, 3))
no_noise = "puts no noise on {} of .*, quantized to integers. Train before `quantize`"


def bridgeout(layer, **kwargs):
    return Bridgeout(layer, 0.3, 1.5, seed=1, **kwargs)


def shakeout(layer, **kwargs):
    return Shakeout(layer, 0.3, 0.1, seed=1, **kwargs)


def dense(**kwargs):
    return L.Dense(4, bias_initializer="ones", **kwargs)


def einsum(**kwargs):
    return L.EinsumDense("abc,cd->abd", (None, 4), **kwargs)


def model_of(layer, inputs):
    dtype = "int32" if inputs is TOKENS else "float32"
    return keras.Sequential([keras.Input(inputs.shape[1:], dtype=dtype), layer])


def embedding():
    return L.Embedding(WORDS, 4)


def reversible():
    return L.ReversibleEmbedding(WORDS, 4)


def of_bias(layer):
    return bridgeout(layer, weights="bias")


def nested(layer):
    return bridgeout(shakeout(layer))


def in_model(layer):
    return bridgeout(keras.Sequential([layer]))


@pytest.mark.parametrize(
    ("mode", "wrap", "layer", "inputs", "names"),
    [
        ("int8", of_bias, dense, VECTORS, []),
        ("int8", bridgeout, reversible, TOKENS, ["embeddings"]),
        ("int8", nested, einsum, VECTORS, ["layer/kernel", "kernel"]),
        ("int4", shakeout, dense, VECTORS, ["kernel"]),
        ("int4", bridgeout, embedding, TOKENS, ["embeddings"]),
        ("int4", in_model, dense, VECTORS, [".*dense.*/kernel"]),
        # Here the weights stay floats, and the call rounds them.
        ("float8", shakeout, einsum, VECTORS, []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_quantized_model_loads_and_predicts_as_the_plain_layer(
    tmp_path, mode, wrap, layer, inputs, names
):
    plain, model = (model_of(f(layer()), inputs) for f in (lambda x: x, wrap))
    model.set_weights(plain.get_weights())
    plain.quantize(mode)
    model.quantize(mode)
    expected = plain(inputs).numpy()
    np.testing.assert_array_equal(model(inputs), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs), expected)
    for m in (model, loaded):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            noisy = [m(inputs, training=True).numpy() for _ in range(2)]
        # One warning per layer, not per call.
        assert len(said) == len(names)
        for warning, name in zip(said, names, strict=True):
            assert re.search(no_noise.format(name), str(warning.message))
        for y in noisy:
            assert np.array_equal(y, expected) == bool(names)


@pytest.mark.filterwarnings("ignore:Bridgeout .* puts no noise on kernel")
def test_a_quantized_model_trains():
    keras.utils.set_random_seed(1)
    layer = bridgeout(dense())
    model = model_of(layer, VECTORS)
    model.quantize("int4")
    kernel, bias = layer.layer.kernel.numpy(), layer.layer.bias.numpy()
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(VECTORS, VECTORS[..., :4], epochs=2, verbose=0)
    losses = history.history["loss"]
    assert np.all(np.isfinite(losses))
    assert not np.allclose(layer.layer.bias, bias)
    np.testing.assert_array_equal(layer.layer.kernel, kernel)


@pytest.mark.parametrize(
    ("policy", "computed", "wrap"),
    [
        ("int8_from_float32", "float32", bridgeout),
        ("int8_from_mixed_bfloat16", "bfloat16", shakeout),
        ("int4_from_bfloat16", "bfloat16", bridgeout),
        ("float8_from_mixed_bfloat16", "bfloat16", shakeout),
        (
            keras.dtype_policies.DTypePolicyMap("int8_from_float32"),
            "float32",
            bridgeout,
        ),
    ],
    ids=["int8", "int8 mixed", "int4", "float8", "map"],
)
@pytest.mark.filterwarnings("ignore:.* puts no noise on kernel")
def test_a_layer_may_be_made_quantized(policy, computed, wrap):
    plain = dense(dtype=policy)
    layer = wrap(dense(dtype=policy))
    expected = plain(VECTORS)
    layer.build(VECTORS.shape)
    layer.set_weights(plain.get_weights())
    assert layer.compute_dtype == computed
    np.testing.assert_array_equal(layer(VECTORS), expected)
    noisy = layer(VECTORS, training=True)
    assert keras.backend.standardize_dtype(noisy.dtype) == computed
    again = type(layer).from_config(layer.get_config())
    assert again.layer.dtype_policy.name == layer.layer.dtype_policy.name


class Tokenizer:
    def tokenize(self, words):
        return words


# Keras 3.15 can't load the files of these models, with plain layers neither.
@pytest.mark.parametrize(
    ("config", "wrap"),
    [
        (keras.quantizers.GPTQConfig, bridgeout),
        (keras.quantizers.AWQConfig, shakeout),
    ],
)
def test_calibrated_weights_have_no_noise_either(config, wrap):
    def quantized(wrap):
        keras.utils.set_random_seed(1)
        block = model_of(wrap(dense()), np.ones((1, 3, 6)))
        tokens = keras.Input((3,), dtype="int32")
        embedding = L.Embedding(WORDS, 6)
        model = keras.Model(tokens, block(embedding(tokens)))
        structure = {"pre_block_layers": [embedding], "sequential_blocks": [block]}
        model.get_quantization_layer_structure = lambda mode: structure
        settings = {"num_samples": 2, "sequence_length": 3, "group_size": -1}
        calibrated = config(dataset=[TOKENS], tokenizer=Tokenizer(), **settings)
        model.quantize(config=calibrated)
        return model

    expected = quantized(lambda layer: layer)(TOKENS)
    model = quantized(wrap)
    np.testing.assert_array_equal(model(TOKENS), expected)
    with pytest.warns(UserWarning, match=no_noise.format("kernel")):
        noisy = model(TOKENS, training=True)
    np.testing.assert_array_equal(noisy, expected)
