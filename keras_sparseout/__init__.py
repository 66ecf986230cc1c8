"""Sparseout for Keras: see how sparse a network's activations are, and set it."""

from keras_sparseout import metrics, ops
from keras_sparseout.callbacks import SparsityTracker
from keras_sparseout.layers import Sparseout
from keras_sparseout.spatial import (
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
)

__version__ = "0.1.0"

__all__ = [
    "Sparseout",
    "SparsityTracker",
    "SpatialSparseout1D",
    "SpatialSparseout2D",
    "SpatialSparseout3D",
    "metrics",
    "ops",
]
