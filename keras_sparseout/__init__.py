"""Sparseout for Keras: see how sparse a network's activations are, and set it."""

import importlib
from typing import TYPE_CHECKING, Any

# Files need the layers and metrics: to import them registers them with Keras.
from keras_sparseout import layers, metrics, ops
from keras_sparseout.layers import (
    ActivationPenalty,
    Bridgeout,
    Shakeout,
    Sparseout,
    SparseoutCellWrapper,
    SpatialSparseout1D,
    SpatialSparseout2D,
    SpatialSparseout3D,
    TargetSparsity,
)

if TYPE_CHECKING:
    from keras_sparseout import callbacks, plots
    from keras_sparseout.callbacks import (
        SparseoutScheduler,
        SparsityController,
        SparsityTracker,
    )
    from keras_sparseout.summary.activation_sparsity import activation_sparsity

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
    "TargetSparsity",
    "activation_sparsity",
    "callbacks",
    "layers",
    "metrics",
    "ops",
    "plots",
]

# What is imported when it is first used, so that the import of the package is quick.
# `masks` had its place here in version 0.1.0.
_ROOMS = ("callbacks", "masks", "plots", "summary")
_NAMES = {
    "SparseoutScheduler": "callbacks",
    "SparsityController": "callbacks",
    "SparsityTracker": "callbacks",
    "activation_sparsity": "summary",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"keras_sparseout.{name}")
    if name in _NAMES:
        room = importlib.import_module(f"keras_sparseout.{_NAMES[name]}")
        globals()[name] = value = getattr(room, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
