"""Jobs of dense layers."""

import keras
import numpy as np

from benchmarks.jobs.images import small_images
from benchmarks.jobs.job import Data, Job


def _classifier(
    units: dict[str, int], optimizer: keras.Optimizer, **policy: str
) -> keras.Model:
    """ReLU layers of these names and widths, and ten classes."""
    hidden = [
        keras.layers.Dense(width, activation="relu", name=name, **policy)
        for name, width in units.items()
    ]
    head = keras.layers.Dense(10, activation="softmax", dtype="float32")
    model = keras.Sequential([*hidden, head])
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    return model


def _first_model() -> keras.Model:
    return _classifier({"features": 256}, keras.optimizers.Adam(0.01))


def _random_rows() -> Data:
    """README's: the class is the largest of ten columns."""
    x = np.random.default_rng(0).normal(size=(4000, 20)).astype("float32")
    y = x[:, :10].argmax(axis=1)
    return Data(x[:2000], y[:2000], x[2000:], y[2000:])


def _regression() -> keras.Model:
    model = keras.Sequential(
        [
            keras.layers.Dense(256, activation="relu", name="features"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "mse", jit_compile=False)
    return model


def _smooth_rows() -> Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 20)).astype("float32")
    y = np.sin(x[:, 0] + x[:, 1]) + x[:, 2] * np.tanh(x[:, 3]) + x[:, 4:8].sum(1)
    y = (y + 0.1 * rng.normal(size=len(y))).astype("float32")[:, None]
    return Data(x[:2000], y[:2000], x[2000:], y[2000:])


def _two_layers() -> keras.Model:
    return _classifier({"first": 100, "second": 100}, keras.optimizers.Adam())


def _autoencoder() -> keras.Model:
    pixels = 14 * 14
    model = keras.Sequential(
        [
            keras.layers.Dense(128, activation="relu", name="encoder"),
            keras.layers.Dense(64, activation="relu", name="code"),
            keras.layers.Dense(128, activation="relu", name="decoder"),
            keras.layers.Dense(pixels),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "mse", jit_compile=False)
    return model


def _own_images() -> Data:
    x, _, x_test, _ = small_images(1536, pool=2, flat=True)
    return Data(x, x, x_test, x_test)


def _wide() -> keras.Model:
    return _classifier(
        {"wide": 4096}, keras.optimizers.Adam(3e-4), dtype="mixed_float16"
    )


def _large_steps() -> keras.Model:
    return _classifier(
        {"first": 256, "second": 128}, keras.optimizers.SGD(0.1, momentum=0.9)
    )


JOBS = (
    Job(
        name="readme",
        what="README's first model: 256 ReLU on 2,000 random rows",
        build=_first_model,
        data=_random_rows,
        layers=("features",),
        epochs=8,
        batch_size=32,
        targets=(0.65, 0.75, 0.85),
        shares=(0.65, 0.75, 0.85),
        weights=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        rate=0.5,
    ),
    Job(
        name="regression",
        what="one output from 256 ReLU on 2,000 random rows",
        build=_regression,
        data=_smooth_rows,
        layers=("features",),
        epochs=8,
        batch_size=32,
        targets=(0.6, 0.7, 0.8),
        shares=(0.6, 0.7, 0.8),
        weights=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        rate=0.5,
    ),
    Job(
        name="digits",
        what="MLP of two layers of 100 ReLU on images of 7 by 7, 44 batches an epoch",
        build=_two_layers,
        data=lambda: small_images(1408, pool=4, flat=True),
        layers=("first", "second"),
        epochs=12,
        batch_size=32,
        targets=(0.6, 0.7, 0.8),
        shares=(0.6, 0.7, 0.8),
        weights=(1e-3, 3e-3, 1e-2, 2e-2, 5e-2),
        rate=0.5,
    ),
    Job(
        name="autoencoder",
        what="autoencoder of 14 by 14 pixels, 96 batches in all",
        build=_autoencoder,
        data=_own_images,
        layers=("code",),
        epochs=4,
        batch_size=64,
        targets=(0.7, 0.8, 0.9),
        shares=(0.7, 0.8, 0.9),
        weights=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        rate=0.2,
    ),
    Job(
        name="wide",
        what="MLP of 4,096 ReLU, policy mixed_float16",
        build=_wide,
        data=lambda: small_images(2000, pool=4, flat=True),
        layers=("wide",),
        epochs=6,
        batch_size=32,
        targets=(0.65, 0.75, 0.85),
        shares=(0.65, 0.75, 0.85),
        weights=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        rate=0.5,
    ),
    Job(
        name="large-steps",
        what="MLP, batches of 1,024 and a learning rate of .1 with momentum",
        build=_large_steps,
        data=lambda: small_images(9216, pool=2, flat=True),
        layers=("first", "second"),
        epochs=14,
        batch_size=1024,
        targets=(0.7, 0.8, 0.9),
        shares=(0.7, 0.8, 0.9),
        weights=(1e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    ),
)
