"""Types that signatures share."""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import keras

# A tensor of the back end or a NumPy array. Neither Keras nor TensorFlow has types.
Tensor: TypeAlias = Any
# A `tf.data.Dataset`.
Dataset: TypeAlias = Any
# Inputs of a model: for several inputs a tuple or dict, or batches as for `fit`.
Data: TypeAlias = (
    Tensor | tuple[Tensor, ...] | Mapping[str, Tensor] | Dataset | keras.utils.PyDataset
)
PathLike: TypeAlias = str | os.PathLike[str]
# Sizes, None where one is not known.
Shape: TypeAlias = tuple[int | None, ...]
