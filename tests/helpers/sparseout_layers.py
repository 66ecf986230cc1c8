"""Sparseout and its spatial layers, for tests over all of them; one line each."""

from typing import NamedTuple

import keras
import numpy as np
import pytest

from keras_sparseout import (
    Sparseout,
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
)


class Case(NamedTuple):
    ours: type
    shape: tuple
    noise_shape: tuple

    @property
    def theirs(self):
        return getattr(keras.layers, self.ours.__name__.replace("Sparseout", "Dropout"))

    def make(self, *args, **kwargs):
        # They all call one compiled function: to compile it for one of them is enough.
        if self.ours is not Sparseout:
            kwargs = {"jit_compile": False, **kwargs}
        return self.ours(*args, **kwargs)


CASES = [
    Case(Sparseout, (8, 5, 16), (None, None, None)),
    Case(SpatialSparseout1D, (8, 5, 16), (None, 1, None)),
    Case(SpatialSparseout2D, (8, 3, 2, 16), (None, 1, 1, None)),
    Case(SpatialSparseout3D, (8, 3, 2, 2, 16), (None, 1, 1, 1, None)),
]


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda c: c.ours.__name__)


every_layer = over(CASES)
every_spatial = over(CASES[1:])
# Those with a data format.
every_image = over(CASES[2:])


def normal(shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")
