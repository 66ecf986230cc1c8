"""The layers, which go into a model."""

from keras_sparseout.layers.activation_penalty import ActivationPenalty
from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout
from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper
from keras_sparseout.layers.spatial_sparseout import (
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
)
from keras_sparseout.layers.target_sparsity import TargetSparsity

__all__ = [
    "ActivationPenalty",
    "Bridgeout",
    "Shakeout",
    "Sparseout",
    "SparseoutCellWrapper",
    "SpatialSparseout1D",
    "SpatialSparseout2D",
    "SpatialSparseout3D",
    "TargetSparsity",
]
