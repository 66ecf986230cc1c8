"""Noise on weights, of every kind of layer; a new kind joins with a line in `KINDS`."""

import keras
import numpy as np
import pytest
from noisy import KINDS, WRAPPERS, gradients, keeps, perturbed

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers
every_wrapper = pytest.mark.parametrize("make", [Bridgeout, Shakeout])


# What does not depend on the axes along which a layer has noise.
some_kinds = pytest.mark.parametrize(
    ("kind", "wrapper"),
    [
        ("Dense", "Bridgeout"),
        ("Conv2D, groups", "Shakeout"),
        ("SeparableConv2D", "Bridgeout"),
        ("EinsumDense", "Bridgeout"),
        ("Embedding", "Shakeout"),
        ("LSTM, both", "Bridgeout"),
        ("GRU", "Shakeout"),
    ],
)


def seed_state(layer):
    return layer.seed_generator.state.numpy().tolist()


def values(layer):
    return [weight.numpy() for weight in layer.weights]


# The layers differ in the axes along which Shakeout draws. Bridgeout draws for each
# element, or for each row that is looked up.
@pytest.mark.onednn
@pytest.mark.parametrize(
    ("kind", "wrapper"),
    [
        *((kind, "Shakeout") for kind in KINDS),
        *(
            (kind, "Bridgeout")
            for kind in ("Conv2D, groups", "Embedding", "LSTM, both")
        ),
        *((kind, "Bridgeout, exact") for kind in ("Dense", "Embedding", "LSTM")),
    ],
)
def test_in_training_the_layer_is_called_on_the_perturbed_weights(kind, wrapper):
    # The reference is the plain layer, with the perturbed weights assigned to it.
    kind = KINDS[kind]
    x, plain = kind.inputs(), kind.layer()
    layer = WRAPPERS[wrapper](kind.layer(), weights=kind.weights, seed=7)
    slopes = {}
    for name, keep in keeps(kind, plain, wrapper, 7).items():
        (weight,) = (w for w in plain.weights if w.name == name)
        noisy, slopes[name] = perturbed(weight, keep, wrapper)
        assert keep.any()
        assert not keep.all()
        weight.assign(noisy)
    assert set(slopes) == set(kind.masks)
    before = values(layer)
    expected, true = gradients(plain, x)
    y, found = gradients(layer, x, training=True)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert set(found) == set(true)
    for name in true:
        size = np.abs(true[name]).max()
        np.testing.assert_allclose(
            found[name], true[name] * slopes.get(name, 1), rtol=1e-3, atol=1e-4 * size
        )
    for a, b in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.onednn
@some_kinds
def test_inference_is_the_plain_layer_to_the_bit_and_draws_nothing(kind, wrapper):
    kind = KINDS[kind]
    x, plain = kind.inputs(), kind.layer()
    layer = WRAPPERS[wrapper](kind.layer(), weights=kind.weights)
    before = seed_state(layer)
    np.testing.assert_array_equal(layer(x), plain(x))
    np.testing.assert_array_equal(layer(x, training=False), plain(x))
    assert seed_state(layer) == before
    assert not np.allclose(layer(x, training=True), plain(x))
    assert seed_state(layer) != before


@some_kinds
def test_a_symbolic_call_has_the_shape_and_weights_of_the_plain_layer(kind, wrapper):
    kind = KINDS[kind]
    plain, layer = kind.make(), WRAPPERS[wrapper](kind.make(), weights=kind.weights)
    inputs = keras.Input(kind.shape[1:], dtype=kind.inputs().dtype.name)
    assert layer(inputs).shape == plain(inputs).shape
    assert layer.compute_output_shape(kind.shape) == plain.compute_output_shape(
        kind.shape
    )
    assert layer.count_params() == plain.count_params()
    assert [(w.name, w.shape, w.trainable) for w in layer.weights] == [
        (w.name, w.shape, w.trainable) for w in plain.weights
    ]


@some_kinds
def test_a_file_gives_back_the_layer_and_its_draws(tmp_path, kind, wrapper):
    kind = KINDS[kind]
    layer = WRAPPERS[wrapper](kind.make(), weights=kind.weights)
    inputs = keras.Input(kind.shape[1:], dtype=kind.inputs().dtype.name)
    model = keras.Model(inputs, layer(inputs))
    x = kind.inputs()
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    for _ in range(2):
        np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


@every_wrapper
def test_draws_differ_between_steps_and_layers_and_follow_the_seed(make):
    def drawn(seed):
        layer = make(L.Dense(8, kernel_initializer="ones"), 0.5, 1.5, seed=seed)
        layer.build((None, 8))
        return [layer.draw()[0][1].numpy().tobytes() for _ in range(3)]

    assert drawn(1) == drawn(1)
    assert len({*drawn(1), *drawn(2), *drawn(None), *drawn(None)}) == 12


def test_two_weights_have_draws_of_their_own():
    layer = Bridgeout(L.LSTM(8), 0.5, weights=("kernel", "recurrent_kernel"))
    layer.build((None, 5, 8))
    for weight in layer.weights:
        weight.assign(np.ones(weight.shape))
    (_, kernel), (_, recurrent) = layer.draw()
    assert (kernel.numpy() != recurrent.numpy()).any()
