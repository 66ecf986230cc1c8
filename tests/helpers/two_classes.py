"""Small images of two classes, which a few steps of training tell apart."""

import numpy as np


def images(seed, count, size):
    """Returns images and labels: bright at the top, or at the bottom.

    Args:
        seed: Of all that is random in them.
        count: Number of images.
        size: Their height and width.
    """
    rng = np.random.default_rng(seed)
    x, y = rng.integers(100, size=(count, size, size, 1)), rng.integers(2, size=count)
    x[y == 0, : size // 2] += 150
    x[y == 1, size // 2 :] += 150
    return x.astype("uint8"), y
