"""Types that signatures share."""

import os
from typing import Any, TypeAlias

# A tensor of the back end or a NumPy array. Neither Keras nor TensorFlow has types.
Tensor: TypeAlias = Any
PathLike: TypeAlias = str | os.PathLike[str]
# Sizes, None where one is not known.
Shape: TypeAlias = tuple[int | None, ...]
