"""Streaming metrics over a data set, the twins of the functions of `dataset`."""

from typing import Any

import keras
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import dataset, inputs
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor

_registered = keras.saving.register_keras_serializable("keras_sparseout")


class _PerUnit(StreamingMetric):
    """Sums over samples and positions, for each unit, and the sum of the weights.

    A subclass has `_terms`, which makes the terms of the sums from activations of shape
    (rows, units), in the same shape, and `_vectors`, the number of these terms.
    """

    compiles = True

    def __init__(self, *, units: int | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units = units
        if units is not None:
            self.units = validation.check_count(
                "units",
                units,
                meaning=", the size of the last axis",
                remedy="Leave it out to take it from the first batch.",
            )
            self._create_state(self.units)

    @numerics.unchecked()
    def sums(
        self, x: Tensor, sample_weight: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        rows, weights = inputs.rows(x, sample_weight, mask)
        terms = (ops.cast(term, "float64") for term in self._terms(rows))
        sums = (ops.matmul(ops.expand_dims(weights, 0), term)[0] for term in terms)
        return *sums, ops.sum(weights)

    def shapes(self, units: int | None) -> tuple[Shape, ...]:
        return *[(units,)] * self._vectors, ()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@_registered
class FiringRate(_PerUnit):
    """The share of samples and positions at which each unit fires, `firing_rate`.

    Its result is a vector, with one value for each unit.

    Args:
        threshold: What |x| must exceed, in the units of x; a number >= 0.
        units: Number of units, to make the state before the first batch.
        name: Name of the metric.

    Raises:
        ValueError: if `threshold` is not a number >= 0, `units` is not an integer >= 1,
            or batches differ in their number of units.

    Example:

    >>> metric = FiringRate()
    >>> metric.update_state(np.array([[0.0, 1.0, 2.0]]))
    >>> metric.update_state(np.array([[0.0, 0.0, 3.0]]))
    >>> np.asarray(metric.result())
    array([0. , 0.5, 1. ])
    """

    _vectors = 1

    def __init__(
        self,
        *,
        threshold: float = 0.0,
        units: int | None = None,
        name: str | None = None,
    ) -> None:
        self.threshold = validation.check_threshold(threshold)
        super().__init__(units=units, name=name)

    def _options(self):
        return {"threshold": self.threshold}

    def _terms(self, rows):
        return (dataset.fires(rows, self.threshold),)

    def _figure(self, fired, count):
        return fired / count


@_registered
class DeadUnits(FiringRate):
    """The share of units that never fire, `dead_units`.

    Args:
        threshold: What |x| must exceed to count as firing, in the units of x; a number
            >= 0.
        units: Number of units, to make the state before the first batch.
        name: Name of the metric.

    Raises:
        ValueError: as `FiringRate`.

    Example:

    >>> metric = DeadUnits()
    >>> metric.update_state(np.array([[0.0, 1.0, 2.0, 0.0]]))
    >>> metric.update_state(np.array([[0.0, 0.0, 3.0, 4.0]]))
    >>> float(metric.result())
    0.25
    """

    def _figure(self, fired, count):
        return dataset.share_of_zeros(super()._figure(fired, count))


@_registered
class LifetimeSparseness(_PerUnit):
    """Treves and Rolls' sparseness of each unit, `lifetime_sparseness`.

    Its result is a vector, with one value for each unit, NaN for a dead one. A sample
    with the weight w counts as w samples. If the weights add up to 1 or less, all
    values are NaN.

    Args:
        units: Number of units, to make the state before the first batch.
        name: Name of the metric.

    Raises:
        ValueError: if `units` is not an integer >= 1, or batches differ in it.

    Example:

    >>> metric = LifetimeSparseness()
    >>> metric.update_state(np.array([[0.0, 4.0, 2.0]]))
    >>> metric.update_state(np.array([[0.0, 0.0, 2.0]]))
    >>> np.asarray(metric.result())
    array([nan,  1.,  0.])
    """

    _vectors = 2

    def _terms(self, rows):
        # In float64 squares of float32 numbers neither overflow nor vanish.
        rows = ops.cast(rows, "float64")
        return ops.abs(rows), ops.square(rows)

    def _figure(self, magnitudes, squares, count):
        a = ops.square(magnitudes / count) / (squares / count)
        return ops.where(count > 1, (1 - a) / (1 - 1 / count), float("nan"))


@_registered
class RMS(StreamingMetric):
    """The root mean square of all activations, `rms`.

    It sums squares in float64. Squares of activations beyond 1e154 are infinite.

    Args:
        name: Name of the metric.

    Example:

    >>> metric = RMS()
    >>> metric.update_state(np.array([[0.0, 2.0]]))
    >>> metric.update_state(np.array([[4.0, -4.0]]))
    >>> float(metric.result())
    3.0
    """

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self._create_state()

    @numerics.unchecked()
    def sums(
        self, x: Tensor, sample_weight: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        rows, weights = inputs.rows(x, sample_weight, mask)
        squares = ops.sum(ops.square(ops.cast(rows, "float64")), axis=-1)
        units = ops.cast(ops.shape(rows)[-1], "float64")
        return ops.sum(weights * squares), ops.sum(weights) * units

    def shapes(self, units: int | None) -> tuple[Shape, ...]:
        return (), ()

    def _figure(self, squares, count):
        return ops.sqrt(squares / count)
