"""The variables of a control inside the training step: what it knows, and is told."""

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import variables
from keras_sparseout.utils.types import Tensor


class StepVariables:
    """Matrices by name, which belong to no model, and are the same on all replicas.

    Between two batches each is read at most once: to fetch one takes as long as some
    ten operations of a step.
    """

    def __init__(self) -> None:
        self._variables: dict[str, keras.Variable] = {}
        self._known: dict[str, np.ndarray] = {}
        self._moved: set[str] = set()

    def __getitem__(self, name: str) -> keras.Variable:
        return self._variables[name]

    def make(self, name: str, rows: int, columns: int) -> None:
        """Makes a matrix of zeros."""
        self._variables[name] = keras.Variable(
            ops.zeros((rows, columns)),
            trainable=False,
            dtype="float32",
            aggregation="mean",
            name=name,
        )

    def tensor(self, name: str) -> Tensor:
        """Returns the matrix, in the step."""
        # A cast reads a variable.
        return ops.cast(self._variables[name], "float32")

    def move(self, name: str, value: Tensor) -> None:
        """Sets the matrix, in the step."""
        self._moved.add(name)
        self._known.pop(name, None)
        self._variables[name].assign(value)

    def forget(self) -> None:
        """Notes that there was a step, which moved some."""
        for name in self._moved:
            self._known.pop(name, None)

    def read(self, name: str) -> np.ndarray:
        """Returns the matrix, between the steps."""
        if name not in self._known:
            value = variables.to_numpy(self._variables[name])
            self._known[name] = np.array(value, "float64")
        return self._known[name].copy()

    def assign(self, name: str, value: np.ndarray) -> None:
        """Sets the matrix, between the steps."""
        self._variables[name].assign(value)
        # With its rounding.
        self._known[name] = np.array(value, "float32").astype("float64")
