"""What Sparseout and its spatial layers compute, in one battery."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from public_api import signature_of
from sparseout_layers import CASES, every_image, every_layer, normal

import keras_sparseout
from keras_sparseout import Sparseout

adjustable_or_not = pytest.mark.parametrize("adjustable", [False, True])


def train(layer, x):
    return np.asarray(layer(x, training=True))


def seed_state(layer):
    return layer.seed_generator.state.numpy().tolist()


def assert_drawn_for(drawn, y):
    """Asserts that an input of ones got a mask of the shape `drawn`, broadcast."""
    corner = y[tuple(slice(size) for size in drawn)]
    np.testing.assert_array_equal(y, np.broadcast_to(corner, y.shape))
    for axis in (axis for axis, size in enumerate(drawn) if size > 1):
        slices = np.moveaxis(corner, axis, 0)
        assert (slices != slices[0]).any()


def test_the_battery_holds_every_layer():
    public = [getattr(keras_sparseout, name) for name in keras_sparseout.__all__]
    layers = [c for c in public if isinstance(c, type) and issubclass(c, Sparseout)]
    assert {case.ours for case in CASES} == set(layers)


@every_layer
def test_signature_is_that_of_keras_with_q_second(case):
    ours = signature_of(case.ours).parameters
    theirs = list(signature_of(case.theirs).parameters.values())
    # Keras' spatial layers list two of the arguments that every layer takes.
    theirs = [p for p in theirs if p.name not in ("name", "dtype", "kwargs")]
    theirs.insert(1, ours["q"])
    positional = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    names_and_defaults = [(p.name, p.default) for p in positional]
    assert names_and_defaults == [(p.name, p.default) for p in theirs]
    assert ours["q"].default == 2.0
    rest = {p.kind.name for p in ours.values() if p not in positional}
    assert rest <= {"KEYWORD_ONLY", "VAR_KEYWORD"}


@every_layer
def test_with_q_2_the_values_are_those_of_dropout(case):
    x = np.full(case.shape, -3.0, "float32")
    ours, theirs = (np.unique(train(c(0.3), x)) for c in (case.make, case.theirs))
    assert len(ours) == 2
    # Each rounds in float32 a few times.
    np.testing.assert_allclose(ours, theirs, rtol=2**-21)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("case", "adjustable"), [*[(case, False) for case in CASES], (CASES[0], True)]
)
def test_inference_is_the_identity_to_the_bit_and_draws_nothing(case, adjustable):
    layer = case.make(0.5, q=1.0, adjustable=adjustable)
    before = seed_state(layer)
    x = normal(case.shape)
    x.flat[:4] = [-0.0, np.inf, np.nan, 1e-42]
    for y in (layer(x), layer(x, training=False), tf.function(layer)(x)):
        assert y.numpy().tobytes() == x.tobytes()
    assert seed_state(layer) == before
    layer(x, training=True)
    assert seed_state(layer) != before


@every_layer
@adjustable_or_not
def test_rate_0_is_the_identity_and_still_has_a_seed_generator(case, adjustable):
    layer = case.make(0.0, q=1.5, adjustable=adjustable)
    x = normal(case.shape)
    np.testing.assert_array_equal(train(layer, x), x)
    assert isinstance(layer.seed_generator, keras.random.SeedGenerator)


@every_layer
def test_rate_1_gives_zeros(case):
    x = normal(case.shape)
    x.flat[0] = 0
    for q in (0.0, 3.0):
        assert not train(case.make(1.0, q), x).any()
        assert not train(case.make(1.0, q, adjustable=True), x).any()


@every_layer
def test_trainable_false_perturbs_all_the_same(case):
    x = normal(case.shape)
    layers = [case.make(0.5, seed=1, trainable=flag) for flag in (True, False)]
    np.testing.assert_array_equal(*[train(layer, x) for layer in layers])
    assert (train(layers[1], x) != x).any()
    layers.append(case.ours(0.5, adjustable=True))
    assert not any(layer.trainable_weights for layer in layers)


@every_layer
def test_a_model_has_the_weights_of_its_dropout_twin(case):
    def weights(layer):
        ends = keras.layers.Dense(2), keras.layers.Dense(3)
        model = keras.Sequential([keras.Input(case.shape[1:]), ends[0], layer, ends[1]])
        return [(w.name, w.shape) for w in model.weights]

    assert weights(case.ours(0.5, 1.5)) == weights(case.theirs(0.5))
    assert not case.ours(0.5).weights
    assert [w.name for w in case.ours(0.5, adjustable=True).weights] == ["rate", "q"]


@pytest.mark.onednn
@every_layer
def test_symbolic_calls_take_unknown_dimensions(case):
    layer = case.make(0.5, 1.5, seed=2)
    unknown = (None,) * len(case.shape)
    assert layer.compute_output_shape(case.shape) == case.shape
    assert layer.compute_output_shape(unknown) == unknown
    inputs = keras.Input(unknown[1:])
    outputs = layer(inputs)
    assert outputs.shape == unknown
    model = keras.Model(inputs, outputs)
    spec = tf.TensorSpec(unknown)
    call = tf.function(lambda x: model(x, training=True), input_signature=[spec])
    x = normal(case.shape)
    np.testing.assert_array_equal(model(x), x)
    y = call(x).numpy()
    assert y.shape == x.shape
    assert (y != x).any()
    for batch in (1, 3, 0):
        y = call(normal((batch, *case.shape[1:]))).numpy()
        assert y.shape == (batch, *case.shape[1:])
        assert np.isfinite(y).all()


@every_layer
def test_masks_differ_between_steps_and_layers_and_follow_the_seed(case):
    x = normal(case.shape)
    first, second = case.make(0.5), case.make(0.5)
    steps = [train(first, x), train(first, x), train(second, x)]
    assert len({y.tobytes() for y in steps}) == 3
    seeded = [case.make(0.5, seed=seed) for seed in (5, 5, 6)]
    same, equal, other = ([train(s, x).tobytes() for _ in range(3)] for s in seeded)
    assert same == equal
    assert not set(same) & set(other)


@every_layer
@pytest.mark.parametrize("q", [2.0, 1.0])
def test_the_mask_is_that_of_its_noise_shape(case, q):
    x = normal(case.shape)
    layer = case.make(0.5, q, seed=4)
    y = train(layer, x)
    equal = Sparseout(0.5, q, case.noise_shape, 4, jit_compile=layer.jit_compile)
    np.testing.assert_array_equal(y, train(equal, x))
    sizes = zip(case.noise_shape, case.shape, strict=True)
    drawn = tuple(noise or size for noise, size in sizes)
    assert_drawn_for(drawn, train(case.make(0.5, q), np.ones_like(x)))


@pytest.mark.onednn
@every_image
def test_channels_first_has_one_draw_a_sample_and_channel(case):
    x = np.moveaxis(normal(case.shape), -1, 1)
    layer = case.make(0.5, q=1.0, data_format="channels_first", seed=4)
    noise_shape = (None, None, *(1,) * (x.ndim - 2))
    equal = Sparseout(0.5, 1.0, noise_shape, seed=4, jit_compile=False)
    np.testing.assert_array_equal(train(layer, x), train(equal, x))


@every_image
def test_data_format_follows_the_keras_config(case, monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert case.ours(0.5).data_format == "channels_first"


@pytest.mark.parametrize(
    ("noise_shape", "drawn", "jit_compile"),
    [
        ((None, 1, None), (8, 1, 16), False),
        ((None, None, 1), (8, 5, 1), True),
        ((8, 1, 16), (8, 1, 16), False),
        ((1, 5, None), (1, 5, 16), True),
        ([8, None, 1], (8, 5, 1), False),
    ],
)
def test_noise_shape_sets_where_draws_are_shared(noise_shape, drawn, jit_compile):
    layer = Sparseout(0.5, noise_shape=noise_shape, jit_compile=jit_compile)
    assert_drawn_for(drawn, train(layer, np.ones((8, 5, 16), "float32")))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float64"])
def test_adjustable_rate_and_q_are_float32_variables_that_read_as_assigned(policy):
    layer = Sparseout(0.3, q=1.3, adjustable=True, dtype=policy)
    assert (layer.rate, layer.q) == (0.3, 1.3)
    assert {w.dtype for w in layer.non_trainable_weights} == {"float32"}
    layer.rate, layer.q = 0.7, 2.1
    assert (layer.rate, layer.q) == (0.7, 2.1)
    assert (layer.get_config()["rate"], layer.get_config()["q"]) == (0.7, 2.1)


def test_an_adjustable_rate_is_not_rounded_to_half_precision():
    layer = Sparseout(0.9995, adjustable=True, dtype="mixed_float16")
    y = train(layer, np.ones((64, 1024), "float32"))
    # In float16 the rate would be 0.99951, and 1 / (1 - rate) 2048.
    np.testing.assert_allclose(y.max(), 1 / (1 - 0.9995), rtol=2**-11)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("case", "jit_compile"),
    [(CASES[0], False), (CASES[2], False), (CASES[0], True)],
)
def test_adjustable_and_constant_layers_agree(case, jit_compile):
    x = normal(case.shape)
    constant = case.ours(0.3, 1.5, seed=3, jit_compile=jit_compile)
    adjustable = case.ours(1, 4, seed=3, jit_compile=jit_compile, adjustable=True)
    adjustable.rate, adjustable.q = 0.3, 1.5
    # exp(c log a) on one side, roots on the other: some units in the last place.
    y, expected = train(adjustable, x), train(constant, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_fixed_batch_entry_raises_at_another_batch_size(jit_compile):
    layer = Sparseout(0.5, noise_shape=(4, None), jit_compile=jit_compile)
    spec = tf.TensorSpec((None, 6))
    call = tf.function(lambda x: layer(x, training=True), input_signature=[spec])
    assert call(normal((4, 6))).shape == (4, 6)
    for batch in (3, 1):
        with pytest.raises(ValueError, match=r"Received: noise_shape=\(4, None\)"):
            layer(normal((batch, 6)), training=True)
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(normal((batch, 6)))


def test_scalars_and_vectors_do_not_share_a_compiled_call():
    for shape in ((), (3,)):
        layer = Sparseout(0.5, q=1.25, jit_compile=True)
        assert layer(tf.ones(shape), training=True).shape == shape
