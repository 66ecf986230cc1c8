"""Finds thresholds on data: runs a copy of the model that counts magnitudes."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import tracing, variables
from keras_sparseout.models.insert import insert
from keras_sparseout.models.thresholds.calibrator import Calibrator
from keras_sparseout.models.thresholds.places import Place, Side
from keras_sparseout.utils.types import Tensor

# Zeros may be this far from the target on the data themselves.
_CLOSE = 0.002
_MOST_PASSES = 6


class Calibration:
    """Finds the thresholds of a model at given places.

    Args:
        model: A model that can be rebuilt.
        places: List of `Place`.
        where: Whether thresholds go before or after the layers.
        axis: None for one threshold a place, -1 for one for each unit.
        batches: The data, an iterable of batches of inputs.
        tick: Called after each batch.

    Attributes:
        model: The copy, with a `Calibrator` at each place.
        calibrators: List of these, in the order of `places`.
    """

    def __init__(
        self,
        model: keras.Model,
        places: Sequence[Place],
        where: Side,
        axis: Literal[-1] | None,
        batches: Iterable[Any],
        tick: Callable[[], None],
    ) -> None:
        made: dict[int, Calibrator] = {}

        def make(layer: keras.layers.Layer) -> Calibrator:
            made[id(layer)] = Calibrator(
                axis, name=f"{layer.name}_calibrator", dtype=layer.dtype_policy
            )
            return made[id(layer)]

        self.places = places
        self.batches = batches
        with warnings.catch_warnings():
            # That of the model with the thresholds says it.
            warnings.filterwarnings("ignore", "The copy of .* is not compiled")
            self.model = insert(model, {p.layer: make for p in places}, where=where)
        self.calibrators = [made[id(p.layer)] for p in places]
        if axis is not None:
            self._check_widths()
        self._tick = tick
        self._runs: dict[str, Any] = {}
        self._change = tracing.graph_function(self._traced_change)

    def _check_widths(self) -> None:
        for place, calibrator in zip(self.places, self.calibrators, strict=True):
            if len(calibrator.widths) > 1:
                widths = " and ".join(sorted(map(str, calibrator.widths)))
                raise ValueError(
                    "`axis` must be None where a layer is called on different numbers "
                    f"of units. Received: axis=-1 for layer {place.name!r}, called on "
                    f"{widths}. Leave it out for one threshold a layer."
                )

    def thresholds(self) -> list[np.ndarray]:
        """Returns the thresholds, by place."""
        found = [variables.to_numpy(c.threshold) for c in self.calibrators]
        return [np.asarray(threshold) for threshold in found]

    def assign(self, thresholds: Iterable[Tensor | float]) -> None:
        """Sets the thresholds, by place."""
        for calibrator, threshold in zip(self.calibrators, thresholds, strict=True):
            shape = calibrator.threshold.shape
            calibrator.threshold.assign(ops.broadcast_to(threshold, shape))

    def sample(self, most: int) -> list[np.ndarray]:
        """Returns activations at each place, NaN in padding, a column for each group.

        Args:
            most: From how many batches.
        """
        found: list[list[np.ndarray]] = [[] for _ in self.calibrators]
        for batch in itertools.islice(self.batches, most):
            samples = self._run("sample", batch)
            for own, values in zip(found, samples, strict=True):
                own.append(ops.convert_to_numpy(values))
            self._tick()
        return [np.concatenate(own) for own in found]

    def count(self) -> int:
        """Counts magnitudes with the present thresholds; returns how many samples."""
        return self._pass("count")

    def find(self, targets: Sequence[float]) -> None:
        """Sets the thresholds so that the share of zeros at each place is its target.

        In the first pass each place follows the quantile of what was counted, with all
        thresholds before it in place. Its first batches were counted with the
        thresholds of these. So further passes correct the thresholds, until the zeros
        are on target.

        Args:
            targets: The share of zeros for each place.
        """
        for calibrator, target in zip(self.calibrators, targets, strict=True):
            calibrator.target.assign(target)
        self._pass("follow")
        for _ in range(_MOST_PASSES):
            self._pass("count")
            if all(map(_is_close, self.calibrators, targets)):
                break
            self.assign(
                c.threshold_for(target)
                for c, target in zip(self.calibrators, targets, strict=True)
            )

    def outputs(self, batch: Any) -> list[Tensor]:
        """Returns the outputs with the present thresholds, a flat list."""
        self._tick()
        return self._run("use", batch)

    def change(self, batch: Any, outputs: list[Tensor]) -> np.ndarray:
        """Returns how much the outputs differ from others.

        Args:
            batch: Inputs of the model.
            outputs: What `outputs` gave for them with other thresholds.

        Returns:
            An array of float64, two numbers for each output that is made of numbers:
            the sum of squared differences, and the sum of squares of `outputs`.
        """
        self._tick()
        return ops.convert_to_numpy(tracing.run(self._change, (batch, outputs)))

    def _pass(self, mode: Literal["count", "follow"]) -> int:
        """Runs the model on all data; returns the number of samples."""
        for calibrator in self.calibrators:
            calibrator.reset()
        samples = 0
        for batch in self.batches:
            self._run(mode, batch)
            samples += keras.tree.flatten(batch)[0].shape[0]
            self._tick()
        return samples

    def _run(
        self, mode: Literal["use", "count", "follow", "sample"], batch: Any
    ) -> list[Tensor]:
        """Runs the model; returns its outputs, or what was sampled."""
        if mode not in self._runs:

            def call(batch):
                for calibrator in self.calibrators:
                    calibrator.mode = mode
                try:
                    if mode == "use":
                        return self._call(batch)
                    outputs = self.model(batch, training=False)
                    if mode == "sample":
                        return [c.sampled for c in self.calibrators]
                    return keras.tree.flatten(outputs)
                finally:
                    for calibrator in self.calibrators:
                        calibrator.mode = "use"

            self._runs[mode] = tracing.graph_function(call)
            tracing.prepare(self._runs[mode], self.model, batch)
        return tracing.run(self._runs[mode], batch)

    def _traced_change(self, arguments: tuple[Any, list[Tensor]]) -> Tensor:
        batch, before = arguments
        after = self._call(batch)
        sums = [_squares(*p) for p in zip(numbers(after), numbers(before), strict=True)]
        return ops.stack(sums) if sums else ops.zeros((0, 2), "float64")

    def _call(self, batch: Any) -> list[Tensor]:
        """Returns the outputs; recurrent states stay as they are."""
        with keras.StatelessScope():
            return keras.tree.flatten(self.model(batch, training=False))


def relative(sums: np.ndarray) -> float:
    """Returns the relative mean-squared change from the sums of `Calibration.change`.

    It is the mean over the outputs of sum (y' - y)^2 / sum y^2, NaN for none.
    """
    if not len(sums):
        return float("nan")
    difference, size = sums[..., 0], sums[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(difference == 0, 0.0, difference / size)
    return float(np.mean(shares))


def numbers(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Returns the outputs that are made of numbers: others are strings."""
    return [
        output
        for output in outputs
        if keras.backend.standardize_dtype(output.dtype) != "string"
    ]


def _squares(after: Tensor, before: Tensor) -> Tensor:
    """Returns the sums of squares of the difference and of `before`, as float64."""
    after, before = ops.cast(after, "float32"), ops.cast(before, "float32")
    # Logits of what is masked may be infinite.
    counts = ops.isfinite(after) & ops.isfinite(before)
    difference = ops.where(counts, after - before, 0.0)
    size = ops.where(counts, before, 0.0)
    return ops.stack([ops.sum(ops.cast(x, "float64") ** 2) for x in (difference, size)])


def _is_close(calibrator: Calibrator, target: float) -> bool:
    """Whether the share of zeros is the target, or zeros by nature are more."""
    zeros, by_nature = calibrator.shares()
    return abs(zeros - max(target, by_nature)) <= _CLOSE
