"""Streaming metrics: means over samples of the measures of a vector."""

import functools
import inspect

import keras
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import functions, inputs
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.utils import validation

_registered = keras.saving.register_keras_serializable("keras_sparseout")


@_registered
class SampleMean(StreamingMetric):
    """Mean over samples of any measure of a vector.

    The figure of a sample is the mean over its positions, that of the data the mean
    over the samples, however they are split into batches:

        sum_s w_s (mean over t of f(x_st)) / sum_s w_s

    A position does not count if the measure is NaN because the vector there is constant
    (as an all-zero one is, and one of a single element); nor does a sample without any
    position that counts. Where a NaN or an infinity makes the measure of a position
    NaN, the figure of the data is NaN.

    Args:
        function: f(x) or f(x, axis): one number for each vector along the last axis of
            a tensor. To be saved with the metric, it is registered with
            `keras.saving.register_keras_serializable`, as those of
            `keras_sparseout.metrics` are.
        axis: What the vectors lie along: -1, the default, for the units at each
            position, another axis but the first, or None for the whole of each sample.
        name: Name of the metric.

    Raises:
        ValueError: if `function` can't be called or returns another shape, `axis` is
            neither an int but 0 nor None, or in a call `x`, `sample_weight` or `mask`
            do not fit. A mask can't leave out a part of a vector.

    Example:

    >>> metric = SampleMean(keras.ops.max)
    >>> metric.update_state(np.array([[1.0, 4.0], [0.0, 2.0]]))
    >>> metric.update_state(np.array([[0.0, 6.0]]))
    >>> float(metric.result())
    4.0
    """

    def __init__(self, function, *, axis=-1, name=None):
        super().__init__(name=name)
        if not callable(function):
            raise ValueError(
                "`function` must be a function f(x), one number for each vector along "
                f"the last axis. Received: function={function!r}. Give for example "
                "keras_sparseout.metrics.hoyer."
            )
        if axis is not None and (not inputs.is_int(axis) or axis == 0):
            raise ValueError(
                "`axis` must be an int but not 0, which is that of the samples, or "
                f"None for the whole of each sample. Received: axis={axis!r}. Give -1 "
                "for the units at each position."
            )
        self.function = function
        self.axis = axis
        self._create_state()

    @numerics.unchecked()
    def sums(self, x, sample_weight=None, mask=None):
        x, _ = inputs.real_tensor(x)
        inputs.check_batch(x)
        weights = inputs.check_sample_weight(sample_weight, x)
        vectors = inputs.along_last(x, self.axis)
        first = 1 if self.axis is None else self.axis % len(x.shape)
        if first == 0:
            raise ValueError(
                "`axis` must not be that of the samples. Received: "
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
                raise ValueError(
                    "`mask` must not leave out a part of a vector, the size of which "
                    f"counts. Received: mask.shape={tuple(mask.shape)} with "
                    f"axis={self.axis}. Give axis=-1, or no mask."
                )
            counts = ops.logical_and(counts, inputs.expand_to(mask, len(figures.shape)))
        positions = tuple(range(1, len(figures.shape)))
        counted = ops.sum(ops.cast(counts, "float64"), axis=positions)
        total = ops.sum(ops.where(counts, figures, 0.0), axis=positions)
        weights = ops.where(counted > 0, weights, 0.0)
        weighted = weights * total / ops.maximum(counted, 1.0)
        # Not the product alone, which for a NaN of weight 0 is NaN.
        return ops.sum(ops.where(weights == 0, 0.0, weighted)), ops.sum(weights)

    def _counts(self, figures, vectors):
        """Whether each vector counts: not if it is constant and its figure NaN."""
        first = vectors[..., :1]
        constant = ops.all(vectors == first, axis=-1)
        # Vectors of infinities do count, since their NaN is to be seen.
        constant = ops.logical_and(constant, ops.isfinite(first[..., 0]))
        return ~ops.logical_and(ops.isnan(figures), constant)

    def shapes(self, units):
        return (), ()

    @classmethod
    def from_config(cls, config):
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


class _Own(SampleMean):
    """The mean of a function of this library, whose options are the metric's own."""

    def __init__(self, function, *, axis, name, **options):
        super().__init__(functools.partial(function, **options), axis=axis, name=name)

    compiles = True

    def _counts(self, figures, vectors):
        # Of a single element they may be undefined whatever it is.
        if vectors.shape[-1] in (1, None):
            return super()._counts(figures, vectors)
        return functions.total(vectors) != 0

    def _options(self):
        # Without the function, which the class stands for.
        return {"axis": self.axis, **self.function.keywords}


@_registered
class Hoyer(_Own):
    """Mean over samples of Hoyer's sparsity, `hoyer`.

    Args:
        axis: What the vectors lie along, and the rules of the mean: as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = Hoyer()
    >>> metric.update_state(np.array([[1.0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 2, 0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, *, axis=-1, name=None):
        super().__init__(functions.hoyer, axis=axis, name=name)


@_registered
class Gini(_Own):
    """Mean over samples of the Gini index, `gini`.

    Args:
        axis: What the vectors lie along, and the rules of the mean: as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = Gini()
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.25
    """

    compiles = False  # It sorts.

    def __init__(self, *, axis=-1, name=None):
        super().__init__(functions.gini, axis=axis, name=name)


@_registered
class ZeroFraction(_Own):
    """Mean over samples of the fraction of zeros, `zero_fraction`.

    Args:
        threshold: What counts as 0, a number >= 0: in the units of x, or as a multiple
            of the root mean square of each vector.
        relative: Whether `threshold` is such a multiple.
        axis: What the vectors lie along, and the rules of the mean: as in `SampleMean`.
        name: Name of the metric.

    Raises:
        ValueError: if `threshold` is not a number >= 0, or `relative` not a bool.

    Example:

    >>> metric = ZeroFraction()
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, *, threshold=0.0, relative=False, axis=-1, name=None):
        super().__init__(
            functions.zero_fraction,
            axis=axis,
            name=name,
            threshold=validation.check_threshold(threshold),
            relative=validation.check_bool("relative", relative),
        )

    def _counts(self, figures, vectors):
        return ops.ones_like(figures, "bool")  # It is defined for all vectors.


@_registered
class PopulationSparseness(_Own):
    """Mean over samples of Treves and Rolls' `population_sparseness`.

    Args:
        axis: What the vectors lie along, and the rules of the mean: as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = PopulationSparseness()
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, *, axis=-1, name=None):
        super().__init__(functions.population_sparseness, axis=axis, name=name)


@_registered
class PQIndex(_Own):
    """Mean over samples of the PQ Index, `pq_index`.

    Args:
        p: The power of the norm that is compared, a number > 0.
        q: The power of the norm that it is compared with, a finite number > p.
        axis: What the vectors lie along, and the rules of the mean: as in `SampleMean`.
        name: Name of the metric.

    Raises:
        ValueError: if `p` and `q` are not numbers with 0 < p < q.

    Example:

    >>> metric = PQIndex(p=0.5, q=1)
    >>> metric.update_state(np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.25
    """

    def __init__(self, *, p=1.0, q=2.0, axis=-1, name=None):
        validation.check_powers(p, q)
        super().__init__(functions.pq_index, axis=axis, name=name, p=p, q=q)


@_registered
class Kurtosis(_Own):
    """Mean over samples of the excess kurtosis, `kurtosis`.

    Constant vectors, of which it is undefined, do not count.

    Args:
        axis: What the vectors lie along, and the rules of the mean: as in `SampleMean`.
        name: Name of the metric.

    Example:

    >>> metric = Kurtosis()
    >>> metric.update_state(np.array([[1.0, -1.0, 1.0, -1.0], [5.0, 5.0, 5.0, 5.0]]))
    >>> float(metric.result())
    -2.0
    """

    _counts = SampleMean._counts

    def __init__(self, *, axis=-1, name=None):
        super().__init__(functions.kurtosis, axis=axis, name=name)
