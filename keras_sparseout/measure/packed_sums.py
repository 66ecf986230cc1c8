"""Variables for the sums of many layers, few of them: each costs time in each step."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import variables
from keras_sparseout.utils.types import Tensor


class PackedSums:
    """Adds up vectors by name, in one variable for all whose sizes are known at once.

    The variables are float64, and summed over the replicas when they are read.
    """

    def __init__(self) -> None:
        self._sums = _Sums(name="sums")
        # For each variable, the sizes of its parts by name.
        self._blocks: list[tuple[keras.Variable, dict[str, int]]] = []

    def make(self, sizes: Mapping[str, int]) -> None:
        """Makes a variable for vectors of these names and sizes.

        Args:
            sizes: Dict of sizes by name.
        """
        length = sum(sizes.values())
        if length:
            variable = self._sums.add_variable((length,), "zeros", "float64")
            self._blocks.append((variable, dict(sizes)))

    def __contains__(self, name: str) -> bool:
        return any(name in sizes for _, sizes in self._blocks)

    def add(self, vectors: Mapping[str, Tensor]) -> None:
        """Adds vectors to the sums of their names. Of names left out nothing changes.

        Args:
            vectors: Dict of vectors in float64.
        """
        for variable, sizes in self._blocks:
            if any(name in vectors for name in sizes):
                parts = [
                    vectors[name] if name in vectors else np.zeros(size)
                    for name, size in sizes.items()
                ]
                variable.assign_add(ops.concatenate(parts))

    def totals(self) -> dict[str, np.ndarray]:
        """Returns the sums by name."""
        totals: dict[str, np.ndarray] = {}
        for variable, sizes in self._blocks:
            ends = np.cumsum([*sizes.values()])[:-1]
            parts = np.split(np.array(variables.to_numpy(variable)), ends)
            totals.update(zip(sizes, parts, strict=True))
        return totals

    def reset(self) -> None:
        """Sets the sums to 0."""
        for variable, sizes in self._blocks:
            variable.assign(np.zeros(sum(sizes.values())))


class _Sums(keras.metrics.Metric):
    """Holds variables that are summed over the replicas when they are read."""

    def result(self):
        return self.variables
