"""What Keras expects of a layer, for all layers. A new one needs a line in CASES."""

import json
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sparseout as ks

L = keras.layers


class Case(NamedTuple):
    """A layer, and what is expected of it.

    `make` makes it, of a given dtype. `shape` and `output` are the shapes of its inputs
    and outputs. Once it was called it has so many `weights`, `seeds`, `losses`,
    and `statistics`, weights that follow the inputs in training. At
    inference it computes the layer that `plain` makes; None stands for the identity.
    """

    layer: type
    make: callable
    shape: tuple
    output: tuple
    seeds: int = 1
    losses: int = 0
    weights: int = 0
    statistics: int = 0
    plain: callable = None

    def inputs(self, dtype="float32"):
        x = np.random.default_rng(0).normal(size=self.shape)
        return x.astype(dtype)


def _noisy_cell(dtype=None, **kwargs):
    # TensorFlow has no orthogonal matrices in bfloat16.
    cell = L.LSTMCell(3, recurrent_initializer="glorot_uniform", dtype=dtype)
    cell = ks.SparseoutCellWrapper(cell, 0.3, 0.2, q=1.5, seed=1, **kwargs)
    return L.RNN(cell, return_sequences=True, dtype=dtype)


def _bridgeout(dtype=None, **kwargs):
    return ks.Bridgeout(L.Dense(3, dtype=dtype), 0.3, 1.5, seed=1, **kwargs)


def _shakeout(dtype=None, **kwargs):
    return ks.Shakeout(L.Dense(3, dtype=dtype), 0.3, 0.1, seed=1, **kwargs)


def _same(layer, *args, shape, options=(), **fields):
    def make(**kwargs):
        return layer(*args, **dict(options), **kwargs)

    return Case(layer, make, shape, shape, **fields)


def _sparseout(layer, shape, **options):
    # They all call one compiled function: to compile it for one of them is enough.
    options = {"seed": 1, "jit_compile": layer is ks.Sparseout, **options}
    return _same(layer, 0.3, 1.5, shape=shape, options=options)


CASES = [
    _sparseout(ks.Sparseout, (4, 5, 3)),
    _sparseout(ks.SpatialSparseout1D, (4, 5, 3)),
    _sparseout(ks.SpatialSparseout2D, (4, 2, 2, 3)),
    _sparseout(ks.SpatialSparseout3D, (4, 2, 2, 2, 3)),
    _sparseout(ks.SpatialSparseout2D, (4, 2, 2, 3), target_fraction=0.75),
    _same(ks.ActivationPenalty, 0.1, shape=(4, 5, 3), seeds=0, losses=1),
    _same(ks.TargetSparsity, 0.5, shape=(4, 5, 3), seeds=0, statistics=2),
    Case(
        *(ks.SparseoutCellWrapper, _noisy_cell, (4, 5, 3), (4, 5, 3)),
        seeds=2,  # LSTMCell has one of its own.
        weights=3,
        plain=lambda: L.RNN(L.LSTMCell(3), return_sequences=True),
    ),
    Case(
        *(ks.Bridgeout, _bridgeout, (4, 5, 2), (4, 5, 3)),
        weights=2,
        plain=lambda: L.Dense(3),
    ),
    Case(
        *(ks.Shakeout, _shakeout, (4, 5, 2), (4, 5, 3)),
        weights=2,
        plain=lambda: L.Dense(3),
    ),
]
AT_ONCE = [case for case in CASES if case.plain is None]
every_layer = pytest.mark.parametrize("case", CASES, ids=lambda c: c.layer.__name__)
every_stateless = pytest.mark.parametrize(
    "case", AT_ONCE, ids=lambda c: c.layer.__name__
)


def call(layer, x, training=True):
    # RNN and the penalty take `training` from the model.
    return keras.Sequential([layer])(x, training=training)


def knobs(layer):
    return getattr(layer, "cell", layer).knobs


def test_the_battery_holds_every_layer():
    public = [getattr(ks, name) for name in ks.__all__]
    layers = [c for c in public if isinstance(c, type) and issubclass(c, L.Layer)]
    assert {case.layer for case in CASES} == set(layers)


@every_layer
def test_config_and_clone_make_an_equal_layer(case):
    for adjustable in (False, True):
        layer = case.make(adjustable=adjustable)
        saved = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        loaded = keras.saving.deserialize_keras_object(saved)
        assert type(loaded) is type(layer)
        assert loaded.get_config() == layer.get_config()
        assert type(layer).from_config(layer.get_config()).name == layer.name
    model = keras.Sequential([keras.Input(case.shape[1:]), layer])
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = case.inputs()
    np.testing.assert_array_equal(clone(x, training=True), model(x, training=True))


@every_layer
def test_symbolic_shapes_are_those_of_eager_calls(case):
    layer = case.make()
    assert layer.compute_output_shape(case.shape) == case.output
    unknown = (None, *case.shape[1:])
    symbolic = layer(keras.Input(case.shape[1:]))
    assert tuple(symbolic.shape) == (None, *case.output[1:])
    assert tuple(layer.get_build_config()["input_shape"]) == unknown
    # All sizes but the last may be unknown.
    sizes = (None,) * (len(case.shape) - 1)
    inputs = keras.Input((*sizes[1:], case.shape[-1]))
    assert tuple(case.make()(inputs).shape) == (*sizes, case.output[-1])
    for training in (False, True):
        assert call(layer, case.inputs(), training).shape == case.output
        empty = np.zeros((0, *case.shape[1:]), "float32")
        if case.layer is not ks.SparseoutCellWrapper:
            assert call(layer, empty, training).shape == (0, *case.output[1:])


def policies_of(case):
    # All of Spatial... but the noise shape is that of Sparseout.
    spatial = case.layer.__name__.startswith("Spatial")
    return ["mixed_float16"] + ["float16", "bfloat16", "float64"] * (not spatial)


@pytest.mark.parametrize(
    ("case", "policy"), [(case, p) for case in CASES for p in policies_of(case)]
)
def test_dtypes_are_those_of_the_policy(case, policy):
    policy = keras.DTypePolicy(policy)
    layer = case.make(dtype=policy)
    symbolic = layer(keras.Input(case.shape[1:]))
    assert symbolic.dtype == policy.compute_dtype
    y = call(layer, case.inputs())
    assert keras.backend.standardize_dtype(y.dtype) == policy.compute_dtype
    assert np.isfinite(np.asarray(y, "float64")).all()
    assert {w.dtype for w in layer.trainable_weights} <= {policy.variable_dtype}
    adjustable = case.make(dtype=policy, adjustable=True)
    assert {w.dtype for w in adjustable.weights} == {"float32"}


@every_layer
def test_it_has_the_weights_and_seeds_that_are_said_and_no_more(case):
    for adjustable in (False, True):
        layer = case.make(adjustable=adjustable)
        count = case.statistics + (len(knobs(layer)) if adjustable else 0)
        for _ in range(2):
            call(layer, case.inputs())
            assert len(layer.trainable_weights) == case.weights
            assert len(layer.non_trainable_weights) == count
            assert len(layer.variables) == case.weights + count + case.seeds
            assert len(layer.losses) == case.losses


@every_layer
def test_at_inference_it_is_the_identity_or_the_plain_layer(case):
    layer, x = case.make(adjustable=True), case.inputs()
    y = call(layer, x, training=False).numpy()
    seeds = [v.numpy().tolist() for v in layer.variables if "seed" in v.name]
    if case.plain is None:
        assert y.tobytes() == x.tobytes()
    else:
        plain = case.plain()
        plain.build(case.shape)
        plain.set_weights([w.numpy() for w in layer.trainable_weights])
        np.testing.assert_allclose(y, plain(x), rtol=1e-5, atol=1e-6)
    call(layer, x, training=False)
    assert seeds == [v.numpy().tolist() for v in layer.variables if "seed" in v.name]
    if case.seeds:
        assert (call(layer, x).numpy() != y).any()


@every_layer
def test_masks_pass_through(case):
    class Probe(L.Layer):
        supports_masking = True

        def call(self, inputs, mask=None):
            self.mask = mask
            return inputs

    x, layer, probe = case.inputs(), case.make(), Probe()
    x[:, 0] = 0
    assert layer.supports_masking
    # Like all RNN layers of Keras, RNN takes a mask of timesteps.
    keras.Sequential([L.Masking(), layer, probe])(x, training=True)
    np.testing.assert_array_equal(probe.mask, (x != 0).any(-1))


@every_layer
def test_it_is_what_it_was_when_it_is_loaded(case, tmp_path):
    layer = case.make(adjustable=True)
    model = keras.Sequential([keras.Input(case.shape[1:]), layer])
    x = case.inputs()
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


@every_layer
def test_those_that_make_nothing_are_built_from_the_start(case):
    built = case.make().built, case.make(adjustable=True).built
    assert built == ((True, True) if case in AT_ONCE else (False, False))


@every_stateless
def test_a_subclass_that_makes_something_is_built_by_keras(case):
    class Scaled(case.layer):
        def build(self, input_shape):
            self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")

        def call(self, inputs):
            return super().call(inputs) * self.scale

    layer = Scaled(0.0)
    assert not layer.built
    assert layer(case.inputs()).shape == case.output
    assert [tuple(w.shape) for w in layer.trainable_weights] == [(3,)]


# Further shapes that a layer takes, of other ranks than the shape of its case.
OTHER_SHAPES = {ks.Sparseout: [(), (7,), (6, 3)], ks.ActivationPenalty: [(6, 3)]}


@every_stateless
def test_the_rank_may_be_unknown(case):
    layer = case.make(adjustable=True)
    draws = bool(case.seeds)

    @tf.function(input_signature=[tf.TensorSpec(None)])
    def unknown(x):
        y = layer(x, training=True) if draws else layer(x)
        return y, layer.losses

    shapes = [case.shape, (0, *case.shape[1:]), *OTHER_SHAPES.get(case.layer, [])]
    for shape in shapes:
        x = np.random.default_rng(1).normal(size=shape).astype("float32")
        y, losses = unknown(x)
        assert y.shape == x.shape
        if draws:
            assert (y.numpy() != x).any() == (x.size > 0)
        else:
            np.testing.assert_array_equal(y, x)
            known = case.make()
            known(x)
            np.testing.assert_allclose(losses, known.losses, rtol=1e-5)
    at_inference = tf.function(layer, [tf.TensorSpec(None)])
    np.testing.assert_array_equal(at_inference(case.inputs()), case.inputs())


def test_of_unknown_rank_each_element_or_channel_has_its_draw():
    spec = [tf.TensorSpec(None)]
    ones = np.ones((8, 5, 16), "float32")
    kept = 1 / (1 - 0.5)
    for layer, drawn in [
        (ks.Sparseout(0.5), (8, 5, 16)),
        (ks.Sparseout(0.5, noise_shape=(None, 1, None)), (8, 1, 16)),
        (ks.SpatialSparseout1D(0.5), (8, 1, 16)),
    ]:
        y = tf.function(lambda x, f=layer: f(x, training=True), spec)(ones).numpy()
        assert set(np.unique(y)) == {0, kept}
        np.testing.assert_array_equal(
            y, np.broadcast_to(y[tuple(slice(n) for n in drawn)], y.shape)
        )
        spread = 5 * np.sqrt(0.25 / np.prod(drawn))
        assert (y == 0).mean() == pytest.approx(0.5, abs=spread)
        slices = np.moveaxis(y, 1, 0)
        assert (slices != slices[0]).any() == (drawn[1] > 1)


def test_another_rank_than_the_layer_takes_is_found_out_when_it_runs():
    for layer in (ks.Sparseout(0.5, noise_shape=(None, 1)), ks.SpatialSparseout1D(0.5)):
        spec = [tf.TensorSpec(None)]
        run = tf.function(lambda x, f=layer: f(x, training=True), spec)
        with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with"):
            run(np.ones((2, 3, 4, 5), "float32"))
    penalty = tf.function(ks.ActivationPenalty(0.1, "tar"), [tf.TensorSpec(None)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="the timesteps between"):
        penalty(np.ones((2, 3), "float32"))


@pytest.mark.parametrize("kind", ["l1", "hoyer_square", "ar", "tar"])
def test_a_penalty_of_unknown_rank_counts_what_is_not_masked(kind):
    layer = ks.ActivationPenalty(1.0, kind)
    x = np.random.default_rng(0).normal(size=(3, 4, 2, 5)).astype("float32")
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)

    def loss(x, mask):
        layer(x, mask=mask)
        return layer.losses[0]

    unknown = tf.function(loss, [tf.TensorSpec(None), tf.TensorSpec(None, "bool")])
    for shape in (x.shape, (3, 4, 10)):
        x = x.reshape(shape)
        np.testing.assert_allclose(unknown(x, mask), loss(x, mask), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "rule"),
    [
        (ks.Sparseout(0.5, noise_shape=(None, 1)), (4, 3, 2), "`noise_shape` must"),
        (ks.Sparseout(0.5, noise_shape=(None, 2)), (4, 3), "`noise_shape` must"),
        (ks.SpatialSparseout2D(0.5), (4, 3, 2), "`inputs` of SpatialSparseout2D must"),
        (ks.ActivationPenalty(0.5, "tar"), (4, 3), "`inputs` must have a time"),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_a_shape_that_does_not_fit_has_one_message(layer, shape, rule):
    messages = []
    for inputs in (keras.Input(shape[1:], shape[0]), np.ones(shape, "float32")):
        with pytest.raises(ValueError, match=rule) as error:
            layer(inputs)
        lines = str(error.value).splitlines()
        messages.append([line for line in lines if "Received: " in line])
    assert messages[0] == messages[1] != []
    with pytest.raises(ValueError, match=rule):
        keras.Sequential([keras.Input(shape[1:]), layer])
    with pytest.raises(ValueError, match=rule):
        keras.Sequential([layer]).build(shape)
