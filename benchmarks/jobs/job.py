"""What a job is: a plain Keras model, its data, and what it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import keras
import numpy as np


class Data(NamedTuple):
    """Inputs and labels to train on, and those that nothing is tuned on."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def probe(self) -> np.ndarray:
        """The part of the training data that a controller gets as `x`."""
        return self.x[:500]


@dataclass(frozen=True)
class Job:
    """A model to train, and the figures that it is asked for.

    Attributes:
        name: Its name on the command line and in tables.
        what: What it is, in a few words.
        build: Function that returns the model, compiled, without layers of the package.
        data: Function that returns its `Data`, always the same.
        layers: Names of the layers that are controlled.
        epochs: Number of epochs.
        batch_size: Samples a batch.
        targets: Figures of `metric` to ask penalties for, above those of the plain
            model.
        shares: Shares of zeros to ask thresholds for.
        weights: The grid of five fixed weights, as of `ActivationPenalty`.
        metric: What penalties and q are asked for.
        rate: Rate of the Sparseout layers.
        trained: Number of epochs that the plain model has been trained before.
    """

    name: str
    what: str
    build: Callable[[], keras.Model]
    data: Callable[[], Data]
    layers: tuple[str, ...]
    epochs: int
    batch_size: int
    targets: tuple[float, ...]
    shares: tuple[float, ...]
    weights: tuple[float, ...]
    metric: Literal["zero_fraction", "hoyer"] = "zero_fraction"
    rate: float = 0.3
    trained: int = 0

    @property
    def kind(self) -> Literal["l1", "hoyer_square"]:
        """The penalty of the fixed weights: L1 lowers Hoyer where no unit is 0."""
        return "l1" if self.metric == "zero_fraction" else "hoyer_square"
