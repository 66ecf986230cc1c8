"""Sparseout with one mask per sequence between recurrent layers, and padding."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sparseout import Sparseout

QS = (0, 1, 1.3, 2, 4)
LOCKED = (None, 1, None)


def padded(batch=4, steps=6, features=8, padding=2):
    x = np.random.default_rng(0).normal(size=(batch, steps, features))
    x[:, steps - padding :] = 0
    return x.astype("float32")


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("q", "policy", "jit_compile"),
    [
        *((q, "float32", False) for q in QS),
        *((q, "mixed_float16", False) for q in (0, 1.3, 4)),
        (1, "mixed_bfloat16", False),
        (0, "float32", "auto"),
        (1.3, "mixed_float16", "auto"),
        (4, "mixed_bfloat16", "auto"),
    ],
)
def test_padded_steps_stay_0_with_a_finite_gradient(q, policy, jit_compile):
    layer = Sparseout(0.5, q, LOCKED, dtype=policy, jit_compile=jit_compile)
    x = tf.cast(padded(), layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    dx = tape.gradient(y, x, output_gradients=tf.fill(x.shape, tf.cast(8, x.dtype)))
    padding = np.asarray(x) == 0
    assert padding.any()
    assert not y.numpy()[padding].any()
    assert np.isfinite(y.numpy().astype("float32")).all()
    assert np.isfinite(dx.numpy().astype("float32")).all()
    assert (y != x).numpy().any()


@pytest.mark.parametrize(
    ("q", "jit_compile"),
    [*((q, False) for q in QS), (1.3, "auto"), (2, "auto")],
)
def test_the_mask_is_the_same_at_all_timesteps(q, jit_compile):
    layer = Sparseout(0.5, q, LOCKED, jit_compile=jit_compile)
    # Powers of 4 below 1: where kept |y| > |x|, where not |y| < |x| or the sign turns.
    x = np.repeat(4.0 ** -np.arange(1, 7)[None, :, None], 5, 0).repeat(16, 2)
    x = x.astype("float32")
    y = layer(x, training=True).numpy()
    kept = y > x
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:, :1], kept.shape))
    assert len(np.unique(kept[:, 0], axis=0)) == 5
    # The multiplier follows |x|.
    n = y / x
    changes = ~np.isclose(n[:, 1:], n[:, :-1], rtol=1e-5)
    assert changes.all() == (q != 2)
    assert changes.any() == (q != 2)


def test_a_model_of_padded_sequences_trains():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(7, 8, mask_zero=True),
            Sparseout(0.5, 0, LOCKED),
            layers.LSTM(8, return_sequences=True, zero_output_for_mask=True),
            Sparseout(0.5, 0, LOCKED),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.SGD(0.01, clipnorm=1.0)
    model.compile(optimizer, "mse", jit_compile=False)
    words = np.random.default_rng(0).integers(1, 7, (16, 6))
    words[::2, 3:] = 0
    history = batched.fit(model, words, words.mean(1), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
