"""Jobs whose activations are no ReLU: a bidirectional LSTM, and a transformer."""

import keras
import numpy as np
from keras import ops

from benchmarks.jobs.images import small_images
from benchmarks.jobs.job import Data, Job

_LENGTH, _TOKENS, _KINDS = 14, 20, 4


def _counted_tokens() -> Data:
    """Sequences of 6 to 14 tokens: which of the first four kinds comes most often?"""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, _TOKENS + 1, (2400, _LENGTH))
    # More of those that count.
    common = rng.random(tokens.shape) < 0.5
    tokens = np.where(common, rng.integers(1, _KINDS + 1, tokens.shape), tokens)
    lengths = rng.integers(6, _LENGTH + 1, (len(tokens), 1))
    x = np.where(np.arange(_LENGTH) < lengths, tokens, 0)
    y = np.stack([(x == kind).sum(1) for kind in range(1, _KINDS + 1)]).argmax(0)
    return Data(x[:1600], y[:1600], x[1600:], y[1600:])


def _bidirectional() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input((_LENGTH,), dtype="int32")
    x = layers.Embedding(_TOKENS + 1, 16, mask_zero=True)(inputs)
    lstm = layers.LSTM(32, return_sequences=True)
    x = layers.Bidirectional(lstm, name="lstm")(x)
    x = layers.GlobalAveragePooling1D()(x)
    outputs = layers.Dense(_KINDS, activation="softmax")(x)
    return _compiled(keras.Model(inputs, outputs), 5e-3)


def _encoder() -> keras.Model:
    """Two blocks of attention on the 16 squares of an image, each of 7 by 7 pixels."""
    layers = keras.layers
    width = 32
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(width, 7, 7)(inputs)
    x = layers.Reshape((16, width))(x)
    x = x + layers.Embedding(16, width)(ops.arange(16))
    for block in ("1", "2"):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4)(y, y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(2 * width, activation="gelu", name="gelu" + block)(y)
        x = x + layers.Dense(width)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    outputs = layers.Dense(10, activation="softmax")(x)
    return _compiled(keras.Model(inputs, outputs), 2e-3)


def _compiled(model: keras.Model, learning_rate: float) -> keras.Model:
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    return model


JOBS = (
    Job(
        name="lstm",
        what="bidirectional LSTM of 32 units on sequences with masks",
        build=_bidirectional,
        data=_counted_tokens,
        layers=("lstm",),
        epochs=8,
        batch_size=32,
        metric="hoyer",
        targets=(0.3, 0.4, 0.5),
        shares=(0.5, 0.65, 0.8),
        weights=(1e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    ),
    Job(
        name="transformer",
        what="transformer encoder, two blocks with GELU",
        build=_encoder,
        data=lambda: small_images(1600),
        layers=("gelu1", "gelu2"),
        epochs=8,
        batch_size=32,
        metric="hoyer",
        targets=(0.55, 0.65, 0.75),
        shares=(0.5, 0.65, 0.8),
        weights=(1e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    ),
)
