"""Penalties of inputs without elements: all are 0, and so are their gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import ActivationPenalty

KINDS = ("l1", "hoyer_square", "ar", "tar")
# Without features, timesteps, samples, pairs of timesteps; and more dimensions.
EMPTY = [(2, 3, 0), (2, 0, 4), (0, 3, 4), (0, 0, 0), (2, 3, 0, 4), (2, 3, 5, 0)]


@pytest.mark.onednn
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("policy", "adjustable"), [("float32", False), ("mixed_float16", True)]
)
def test_without_elements_it_adds_0(kind, policy, adjustable):
    layer = ActivationPenalty(0.5, kind, dtype=policy, adjustable=adjustable)
    for shape in [*EMPTY, *([(2, 1, 4)] if kind == "tar" else [])]:
        x = tf.zeros(shape, layer.compute_dtype)
        for mask in (None, np.ones(shape[:2], bool)):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, mask=mask)
            (loss,) = layer.losses
            assert float(loss) == 0
            np.testing.assert_array_equal(tape.gradient(loss, x), x)
            np.testing.assert_array_equal(y, x)


@pytest.mark.onednn
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_sizes_that_are_known_when_it_runs_may_be_0(kind, jit_compile):
    layer = ActivationPenalty(0.5, kind)

    def loss(x):
        layer(x)
        return layer.losses[0]

    spec = [tf.TensorSpec((None, None, None))]
    loss = tf.function(loss, spec, jit_compile=jit_compile)
    for shape in ((2, 3, 0), (2, 0, 4), (0, 3, 4)):
        assert float(loss(tf.zeros(shape))) == 0
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    known = ActivationPenalty(0.5, kind)
    known(x)
    np.testing.assert_allclose(loss(x), known.losses[0], rtol=1e-5)


def test_a_branch_without_units_does_not_make_the_loss_nan():
    inputs = keras.Input((4,))
    # As after a selection that selects nothing.
    nothing = ActivationPenalty(1.0, "ar")(inputs[:, :0])
    x = keras.layers.Concatenate()([inputs, nothing])
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(model.get_weights()[0]).all()
