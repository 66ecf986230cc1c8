"""Jobs of convolutions: the example's CNN, and a small ResNet."""

import functools

import keras

from benchmarks.jobs.images import small_images
from benchmarks.jobs.job import Job
from benchmarks.models import fashion_cnn


def _example() -> keras.Model:
    model = fashion_cnn.build_model(
        (14, 14, 1), 10, lambda name: keras.layers.Identity(name=name)
    )
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return model


def _resnet(momentum: float) -> keras.Model:
    layers = keras.layers

    def normalized(x, filters, strides=1):
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=momentum)(x)

    inputs = keras.Input((14, 14, 1))
    x = layers.ReLU(name="relu1")(normalized(inputs, 8))
    for block, filters in enumerate((8, 16, 16), 1):
        strides = 2 if filters != x.shape[-1] else 1
        y = layers.ReLU(name=f"relu{2 * block}")(normalized(x, filters, strides))
        y = normalized(y, filters)
        if strides == 2:
            x = layers.Conv2D(filters, 1, strides)(x)
        x = layers.ReLU(name=f"relu{2 * block + 1}")(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile(
        keras.optimizers.Adam(2e-3),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    return model


def _resnet_job(momentum: float) -> Job:
    return Job(
        name=f"resnet{momentum:g}".replace("0.", "-"),
        what=f"trained ResNet, 7 ReLU, BatchNormalization of momentum {momentum:g}",
        build=functools.partial(_resnet, momentum),
        data=lambda: small_images(1600, pool=2),
        layers=tuple(f"relu{number}" for number in range(1, 8)),
        epochs=8,
        batch_size=32,
        targets=(0.6, 0.7, 0.8),
        shares=(0.6, 0.7, 0.8),
        weights=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        rate=0.1,
        trained=8,
    )


JOBS = (
    Job(
        name="cnn",
        what="the example's CNN on images of 14 by 14",
        build=_example,
        # The model brings pixels to scale itself.
        data=lambda: small_images(3200, pool=2, scaled=False),
        layers=fashion_cnn.PLACES,
        epochs=6,
        batch_size=64,
        targets=(0.6, 0.7, 0.8),
        shares=(0.6, 0.7, 0.8),
        weights=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    ),
    _resnet_job(0.99),
    _resnet_job(0.9),
)
