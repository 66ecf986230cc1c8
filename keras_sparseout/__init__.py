"""Sparseout for Keras: see how sparse a network's activations are, and set it."""

from keras_sparseout import callbacks, layers, metrics, ops, plots
from keras_sparseout.callbacks import (
    SparseoutScheduler,
    SparsityController,
    SparsityTracker,
)
from keras_sparseout.layers import (
    ActivationPenalty,
    Bridgeout,
    Shakeout,
    Sparseout,
    SparseoutCellWrapper,
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
)
from keras_sparseout.summary import activation_sparsity

__version__ = "0.1.0"

__all__ = [
    "ActivationPenalty",
    "Bridgeout",
    "Shakeout",
    "Sparseout",
    "SparseoutCellWrapper",
    "SparseoutScheduler",
    "SparsityController",
    "SparsityTracker",
    "SpatialSparseout1D",
    "SpatialSparseout2D",
    "SpatialSparseout3D",
    "activation_sparsity",
    "callbacks",
    "layers",
    "metrics",
    "ops",
    "plots",
]
