"""Sparseout for Keras: see how sparse a network's activations are, and set it."""

from keras_sparseout import metrics, ops, plots
from keras_sparseout.controller import SparsityController
from keras_sparseout.layers import Sparseout
from keras_sparseout.penalty import ActivationPenalty
from keras_sparseout.recurrent import SparseoutCellWrapper
from keras_sparseout.scheduler import SparseoutScheduler
from keras_sparseout.spatial import (
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
)
from keras_sparseout.summary import activation_sparsity
from keras_sparseout.tracker import SparsityTracker
from keras_sparseout.weights import Bridgeout, Shakeout

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
    "metrics",
    "ops",
    "plots",
]
