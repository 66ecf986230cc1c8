"""The example's images, smaller: a part of Fashion-MNIST that the repository holds."""

import functools

import numpy as np

from benchmarks.jobs.job import Data
from benchmarks.models import fashion_cnn

_TEST = 1000


@functools.cache
def _all() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    (train, validation, test), _ = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    # The validation images would be a third set, which no job needs.
    x, y = (np.concatenate(parts) for parts in zip(train, validation, strict=True))
    return x, y, test[0][:_TEST], test[1][:_TEST]


def small_images(
    number: int, pool: int = 1, flat: bool = False, scaled: bool = True
) -> Data:
    """Returns the first images.

    Args:
        number: How many images to train on.
        pool: Side of the squares of pixels that become one, the mean.
        flat: Whether an image is a vector.
        scaled: Whether to bring pixels to mean 0 and variance 1, about.
    """
    x, y, x_test, y_test = _all()
    x, x_test = (_smaller(part, pool, flat, scaled) for part in (x[:number], x_test))
    return Data(x, y[:number], x_test, y_test)


def _smaller(x: np.ndarray, pool: int, flat: bool, scaled: bool) -> np.ndarray:
    side = x.shape[1] // pool
    x = x.reshape(-1, side, pool, side, pool).mean((2, 4)).astype("float32")
    if scaled:
        x = x / 90 - 0.8
    return x.reshape(len(x), -1) if flat else x[..., None]
