"""Streaming metrics: means over samples of the measures of vectors."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import functions, inputs
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.metrics.vectors import total
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor

_registered = keras.saving.register_keras_serializable("keras_sparseout")


@_registered
class SampleMean(StreamingMetric):
    """Mean over samples of any measure of a vector.

    It averages the measure over the positions of a sample, and then over the samples.
    The split into batches does not matter:

        sum_s w_s (mean over t of f(x_st)) / sum_s w_s

    A position does not count if its measure is NaN because its vector is constant, as
    an all-zero vector or a single element is. A sample does not count if none of its
    positions does. If a NaN or an infinity makes the measure of a position NaN, the
    result is NaN.

    Args:
        function: f(x) or f(x, axis): one number for each vector along the last axis of
            a tensor. To be saved with the metric, it has to be registered with
            `keras.saving.register_keras_serializable`, as the functions of
            `keras_sparseout.metrics` are.
        axis: The axis along which the vectors lie: -1, the default, for the units at
            each position, another axis but the first, or None for the whole of each
            sample.
        name: Name of the metric.

    Raises:
        ValueError: if `function` can't be called or returns another shape, `axis` is
            neither None nor an int other than 0, or `x`, `sample_weight` or `mask` in a
            call do not fit. A mask can't leave out a part of a vector.

    Example:

    >>> metric = SampleMean(keras.ops.max)
    >>> metric.update_state(np.array([[1.0, 4.0], [0.0, 2.0]]))
    >>> metric.update_state(np.array([[0.0, 6.0]]))
    >>> float(metric.result())
    4.0
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        axis: int | None = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not callable(function):
            raise ValueError(
                "`function` must be a function f(x), one number for each vector along "
                f"the last axis. Received: function={function!r}. Give for example "
                "keras_sparseout.metrics.hoyer."
            )
        if axis is not None and (not validation.is_int(axis) or axis == 0):
            raise ValueError(
                "`axis` must be an int but not 0, the axis of the samples, or None "
                f"for the whole of each sample. Received: axis={axis!r}. Give -1 "
                "for the units at each position."
            )
        self.function = function
        self.axis = axis
        self._create_state()

    @numerics.unchecked()
    def sums(
        self, x: Tensor, sample_weight: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        x, _ = inputs.real_tensor(x)
        inputs.check_batch(x)
        weights = inputs.check_sample_weight(sample_weight, x)
        vectors = inputs.along_last(x, self.axis)
        first = 1 if self.axis is None else self.axis % len(x.shape)
        if first == 0:
            raise ValueError(
                "`axis` must not be the axis of the samples. Received: "
                f"axis={self.axis} for x.shape={tuple(x.shape)}. Give -1."
            )
        if x.shape[0] == 0:
            # Some functions refuse it, as keras.ops.max does outside a graph.
            return ops.zeros((), "float64"), ops.zeros((), "float64")
        figures = self._figures(vectors)
        counts = self._counts(figures, vectors)
        if mask is not None:
            mask = inputs.check_mask(mask, x)
            if len(mask.shape) > first:
                raise self._leaves_out(mask, "", "no mask")
            counts = ops.logical_and(counts, inputs.expand_to(mask, len(figures.shape)))
        positions = tuple(range(1, len(figures.shape)))
        counted = ops.sum(ops.cast(counts, "float64"), axis=positions)
        total = ops.sum(ops.where(counts, figures, 0.0), axis=positions)
        weights = ops.where(counted > 0, weights, 0.0)
        weighted = weights * total / ops.maximum(counted, 1.0)
        # Not the product alone: a NaN with the weight 0 would give NaN.
        return ops.sum(ops.where(weights == 0, 0.0, weighted)), ops.sum(weights)

    def _check_kept_mask(self, x, mask):
        first = 1 if self.axis is None else self.axis % len(x.shape)
        if len(mask.shape) > first:
            received = ", which Keras keeps with `x`,"
            raise self._leaves_out(
                mask, received, "keras.ops.stop_gradient(x), without it"
            )

    def _leaves_out(self, mask, received, remedy):
        return ValueError(
            "`mask` must not leave out a part of a vector, since the size of a vector "
            f"counts. Received: mask.shape={tuple(mask.shape)}{received} with axis="
            f"{self.axis}. Give axis=-1, or {remedy}."
        )

    def _counts(self, figures, vectors):
        """Whether each vector counts: not if it is constant and its figure is NaN."""
        first = vectors[..., :1]
        constant = ops.all(vectors == first, axis=-1)
        # Vectors of infinities do count, so that their NaN shows.
        constant = ops.logical_and(constant, ops.isfinite(first[..., 0]))
        return ~ops.logical_and(ops.isnan(figures), constant)

    def shapes(self, units: int | None) -> tuple[Shape, ...]:
        return (), ()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SampleMean":
        return cls(**keras.saving.deserialize_keras_object(config))

    def _options(self):
        return {"function": self.function, "axis": self.axis}

    def _figure(self, total, count):
        return total / count

    def _figures(self, vectors):
        """Returns the function's values of the vectors along the last axis, float64."""
        options = {"axis": -1} if _takes_axis(self.function) else {}
        figures = ops.convert_to_tensor(self.function(vectors, **options))
        if len(figures.shape) != len(vectors.shape) - 1:
            raise ValueError(
                "`function` must return one number for each vector along the last "
                f"axis. Received: function={self.function!r}, which returned shape "
                f"{tuple(figures.shape)} for shape {tuple(vectors.shape)}. Reduce the "
                "last axis, and no other."
            )
        return ops.cast(figures, "float64")


def _takes_axis(function):
    try:
        return "axis" in inspect.signature(function).parameters
    except ValueError:  # A builtin may have no signature.
        return False


class _OwnMean(SampleMean):
    """The mean of a function of this package, whose options the metric takes."""

    def __init__(self, function, *, axis, name, **options):
        super().__init__(functools.partial(function, **options), axis=axis, name=name)

    compiles = True
    function: functools.partial[Tensor]

    def _counts(self, figures, vectors):
        # The figure of a single element may be undefined whatever its value.
        if vectors.shape[-1] in (1, None):
            return super()._counts(figures, vectors)
        return total(vectors) != 0

    def _options(self):
        # Without the function: the class stands for it.
        return {"axis": self.axis, **self.function.keywords}


@_registered
class Hoyer(_OwnMean):
    """Mean over samples of Hoyer's sparsity, `hoyer`.

    Args:
        axis: The axis along which the vectors lie, as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = Hoyer()
    >>> metric.update_state(np.array([[1.0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 2, 0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, *, axis: int | None = -1, name: str | None = None) -> None:
        super().__init__(functions.hoyer, axis=axis, name=name)


@_registered
class Gini(_OwnMean):
    """Mean over samples of the Gini index, `gini`.

    Args:
        axis: The axis along which the vectors lie, as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = Gini()
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.25
    """

    compiles = False  # It sorts.

    def __init__(self, *, axis: int | None = -1, name: str | None = None) -> None:
        super().__init__(functions.gini, axis=axis, name=name)


@_registered
class ZeroFraction(_OwnMean):
    """Mean over samples of the fraction of zeros, `zero_fraction`.

    Args:
        threshold: The largest |x| that counts as 0, a number >= 0.
        relative: Whether `threshold` is a multiple of each vector's root mean square.
        axis: The axis along which the vectors lie, as in `SampleMean`.
        name: Name of the metric.

    Raises:
        ValueError: if `threshold` is not a number >= 0, or `relative` not a bool.

    Example:

    >>> metric = ZeroFraction()
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        *,
        threshold: float = 0.0,
        relative: bool = False,
        axis: int | None = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(
            functions.zero_fraction,
            axis=axis,
            name=name,
            threshold=validation.check_threshold(threshold),
            relative=validation.check_bool("relative", relative),
        )

    def _counts(self, figures, vectors):
        return ops.ones_like(figures, "bool")  # Each vector has one.


@_registered
class PopulationSparseness(_OwnMean):
    """Mean over samples of Treves and Rolls' `population_sparseness`.

    Args:
        axis: The axis along which the vectors lie, as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = PopulationSparseness()
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, *, axis: int | None = -1, name: str | None = None) -> None:
        super().__init__(functions.population_sparseness, axis=axis, name=name)


@_registered
class PQIndex(_OwnMean):
    """Mean over samples of the PQ Index, `pq_index`.

    Args:
        p: The power of the norm above the line, a number > 0.
        q: The power of the norm below the line, a finite number > p.
        axis: The axis along which the vectors lie, as in `SampleMean`.
        name: Name of the metric.

    Raises:
        ValueError: if `p` and `q` are not numbers with 0 < p < q.

    Example:

    >>> metric = PQIndex(p=0.5, q=1)
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.25
    """

    def __init__(
        self,
        *,
        p: float = 1.0,
        q: float = 2.0,
        axis: int | None = -1,
        name: str | None = None,
    ) -> None:
        validation.check_powers(p, q)
        super().__init__(functions.pq_index, axis=axis, name=name, p=p, q=q)


@_registered
class Kurtosis(_OwnMean):
    """Mean over samples of the excess kurtosis, `kurtosis`.

    It is undefined for constant vectors, which do not count.

    Args:
        axis: The axis along which the vectors lie, as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = Kurtosis()
    >>> metric.update_state(np.array([[1.0, -1.0, 1.0, -1.0], [5.0, 5.0, 5.0, 5.0]]))
    >>> float(metric.result())
    -2.0
    """

    _counts = SampleMean._counts

    def __init__(self, *, axis: int | None = -1, name: str | None = None) -> None:
        super().__init__(functions.kurtosis, axis=axis, name=name)
