"""The callbacks, which go into `fit`."""

from keras_sparseout.callbacks.sparseout_scheduler import SparseoutScheduler
from keras_sparseout.callbacks.sparsity_controller import SparsityController
from keras_sparseout.callbacks.sparsity_tracker import SparsityTracker

__all__ = [
    "SparseoutScheduler",
    "SparsityController",
    "SparsityTracker",
]
