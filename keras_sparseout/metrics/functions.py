"""Measures of activation sparsity: one value for each vector along an axis."""

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import inputs
from keras_sparseout.utils import validation

_registered = keras.saving.register_keras_serializable("keras_sparseout")


@_registered
@numerics.unchecked()
def hoyer(x, axis=-1):
    """Hoyer's sparsity of each vector along `axis`.

        hoyer(x) = (sqrt(n) - sum |x_i| / sqrt(sum x_i^2)) / (sqrt(n) - 1)

    for a vector of n elements. It rises with sparsity: 0 where all |x_i| are equal, 1
    where one alone is not 0; the scale of x does not matter. Of a Gaussian vector it is
    about 0.20 (1 - sqrt(2 / pi), for n to infinity), of a half-rectified one 0.44
    (1 - 1 / sqrt(pi)). An all-zero vector, or one of a single element, is 0/0 and gives
    NaN: average with `numpy.nanmean`, and count such silent vectors apart. A NaN or an
    infinity in a vector gives NaN.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along: -1, the default, for the
            features of each sample, or the channels at each position. None: all axes
            but the first, so that the whole of each sample is one vector; an array of
            rank 1 is one vector either way.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, or the vectors
            are empty.

    Source: Hoyer (2004), "Non-negative Matrix Factorization with Sparseness
        Constraints", JMLR 5.

    Example:

    >>> hoyer(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([0., 1.])
    """
    magnitude, restore = _magnitude(x, axis)
    norm_ratio = ops.sum(magnitude, axis=-1) / ops.sqrt(
        ops.sum(ops.square(magnitude), axis=-1)
    )
    root = ops.sqrt(_size(magnitude))
    return restore(_of_several(magnitude, (root - norm_ratio) / (root - 1)))


@_registered
@numerics.unchecked()
def gini(x, axis=-1):
    """The Gini index of the magnitudes in each vector along `axis`.

        gini(x) = 1 - 2 sum_k |x|_(k) / (sum |x_i|) * (n - k + 1/2) / n

    for a vector of n elements, with |x|_(k) the k-th smallest magnitude. It rises with
    sparsity: 0 where all |x_i| are equal, 1 - 1/n where one alone is not 0; neither the
    scale of x nor repeating all its elements matters. Of a Gaussian vector it is about
    0.41 (sqrt(2) - 1, for n to infinity), of a half-rectified one 0.71 (1 / sqrt(2)).
    An all-zero vector is 0/0 and gives NaN, one of a single element 0. A NaN or an
    infinity gives NaN.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along; None for the whole of each
            sample, as in `hoyer`.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, or the vectors
            are empty.

    Source: Hurley & Rickard (2009), "Comparing Measures of Sparsity", IEEE Trans. Inf.
        Theory 55; the one of their 16 measures that has all six properties they ask of
        one.

    Example:

    >>> gini(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([0.  , 0.75])
    """
    magnitude, restore = _magnitude(x, axis)
    n = _size(magnitude)
    # The definition with its 1 brought into the sum, where equal elements cancel.
    k = ops.cast(ops.arange(1, ops.shape(magnitude)[-1] + 1), magnitude.dtype)
    weighted = ops.sort(magnitude, axis=-1) * ((2 * k - n - 1) / n)
    return restore(ops.sum(weighted, axis=-1) / ops.sum(magnitude, axis=-1))


@_registered
@numerics.unchecked()
def zero_fraction(x, axis=-1, *, threshold=0.0, relative=False):
    """The fraction of elements of each vector along `axis` that are 0.

        zero_fraction(x) = (number of i with |x_i| <= threshold) / n

    It rises with sparsity, from 0 to 1. Of a Gaussian vector it is 0, of a
    half-rectified one about 0.5, of an all-zero vector 1. A NaN gives NaN, an infinite
    element counts as one that is not 0.

    With `relative=True` the threshold is `threshold * sqrt(sum x_i^2 / n)`, so that the
    scale of x does not matter: of a Gaussian vector a threshold of 0.1 takes in about
    0.08 (erf(0.1 / sqrt(2)), for n to infinity), of a half-rectified one 0.53. Then an
    infinite element gives NaN too.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along; None for the whole of each
            sample, as in `hoyer`.
        threshold: What counts as 0, a number >= 0: in the units of x, or as a multiple
            of the root mean square of each vector.
        relative: Whether `threshold` is such a multiple.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, the vectors are
            empty, `threshold` is not a number >= 0, or `relative` not a bool.

    Source: "1 - density"; Hurley & Rickard (2009), "Comparing Measures of Sparsity",
        IEEE Trans. Inf. Theory 55, list it as the l0 measure (with a threshold:
        l0-epsilon).

    Example:

    >>> zero_fraction(np.array([[0.0, -0.1, 0.0, 3.0]]))
    array([0.5])
    >>> zero_fraction(np.array([[0.0, -0.1, 0.0, 3.0]]), threshold=0.1)
    array([0.75])
    """
    threshold = validation.check_threshold(threshold)
    validation.check_bool("relative", relative)
    if relative:
        magnitude, restore = _magnitude(x, axis)
        mean_square = ops.mean(ops.square(magnitude), axis=-1, keepdims=True)
        threshold = threshold * ops.sqrt(mean_square)
    else:
        x, restore = _prepare(x, axis)
        magnitude = ops.abs(x)
    small = ops.mean(ops.cast(magnitude <= threshold, magnitude.dtype), axis=-1)
    sums = total(magnitude)
    defined = ops.isfinite(sums) if relative else ~ops.isnan(sums)
    return restore(ops.where(defined, small, np.nan))


@_registered
@numerics.unchecked()
def population_sparseness(x, axis=-1):
    """Treves and Rolls' sparseness of each vector along `axis`.

        population_sparseness(x) = (1 - a) / (1 - 1/n)
        a = (sum |x_i| / n)^2 / (sum x_i^2 / n)

    for a vector of n elements: a population of units' answers to one stimulus. It rises
    with sparsity, unlike the a of the authors: 0 where all |x_i| are equal, 1 where one
    alone is not 0; the scale of x does not matter. Of a Gaussian vector it is about
    0.36 (1 - 2 / pi, for n to infinity), of a half-rectified one 0.68 (1 - 1 / pi). An
    all-zero vector, or one of a single element, is 0/0 and gives NaN. A NaN or an
    infinity gives NaN.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along; None for the whole of each
            sample, as in `hoyer`.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, or the vectors
            are empty.

    Source: Treves & Rolls (1991), "What determines the capacity of autoassociative
        memories in the brain?", Network 2, define a; Vinje & Gallant (2000), "Sparse
        Coding and Decorrelation in Primary Visual Cortex During Natural Vision",
        Science 287, turn it round.

    Example:

    >>> population_sparseness(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 3.0, 3.0, 0.0]]))
    array([0.        , 0.66666667])
    """
    magnitude, restore = _magnitude(x, axis)
    a = ops.square(ops.mean(magnitude, axis=-1)) / ops.mean(
        ops.square(magnitude), axis=-1
    )
    return restore(_of_several(magnitude, (1 - a) / (1 - 1 / _size(magnitude))))


@_registered
@numerics.unchecked()
def pq_index(x, axis=-1, *, p=1.0, q=2.0):
    """The PQ Index of each vector along `axis`.

        pq_index(x) = 1 - n^(1/q - 1/p) (sum |x_i|^p)^(1/p) / (sum |x_i|^q)^(1/q)

    for a vector of n elements. It rises with sparsity: 0 where all |x_i| are equal,
    1 - n^(1/q - 1/p) where one alone is not 0; neither the scale of x nor repeating all
    its elements matters. With p = 1 and q = 2 it is that of a Gaussian vector about
    0.20 (1 - sqrt(2 / pi), for n to infinity), of a half-rectified one 0.44
    (1 - 1 / sqrt(pi)), as `hoyer` is. An all-zero vector is 0/0 and gives NaN, one of a
    single element 0. A NaN or an infinity gives NaN.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along; None for the whole of each
            sample, as in `hoyer`.
        p: The power of the norm that is compared, a number > 0.
        q: The power of the norm that it is compared with, a finite number > p.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, the vectors are
            empty, or `p` and `q` are not numbers with 0 < p < q.

    Source: Diao et al. (2023), "Pruning Deep Neural Networks from a Sparsity
        Perspective", ICLR.

    Example:

    >>> pq_index(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([0. , 0.5])
    """
    validation.check_powers(p, q)
    magnitude, restore = _magnitude(x, axis, power=q)
    return restore(1 - _power_mean(magnitude, p) / _power_mean(magnitude, q))


@_registered
@numerics.unchecked()
def kurtosis(x, axis=-1):
    """The excess kurtosis of each vector along `axis`.

        kurtosis(x) = (sum (x_i - m)^4 / n) / (sum (x_i - m)^2 / n)^2 - 3

    for a vector of n elements of mean m. It rises with the weight of the tails, and so
    with sparsity where most elements are near the mean: from -2, where half are at one
    value and half at another, to n^2 / (n - 1) - 6, where one differs from all others.
    Neither the scale of x nor adding a constant to it matters. Of a Gaussian vector it
    is 0 (for n to infinity), of a half-rectified one about 2.41. A constant vector, so
    also an all-zero one or one of a single element, is 0/0 and gives NaN. A NaN or an
    infinity gives NaN.

    It is about the mean, as in statistics. The kappa_4 of Hurley & Rickard (2009) is
    about 0 and not divided by n.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along; None for the whole of each
            sample, as in `hoyer`.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, or the vectors
            are empty.

    Source: Field (1994), "What Is the Goal of Sensory Coding?", Neural Computation 6,
        has it as a measure of sparsity.

    Example:

    >>> kurtosis(np.array([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([-2.        , -0.66666667])
    """
    x, restore = _prepare(x, axis)
    x = x / _largest(ops.abs(x))
    # The first element goes before the mean, so that of a constant vector zeros are
    # left and not what the mean was rounded by.
    x = x - x[..., :1]
    x = x - ops.mean(x, axis=-1, keepdims=True)
    square = ops.square(x / _largest(ops.abs(x)))
    fourth = ops.mean(ops.square(square), axis=-1)
    return restore(fourth / ops.square(ops.mean(square, axis=-1)) - 3)


def _prepare(x, axis):
    """Returns `x` with its vectors along the last axis, and what restores its kind."""
    x, restore = inputs.real_tensor(x)
    return inputs.along_last(x, axis), restore


def _magnitude(x, axis, power=2):
    """Returns |x| along the last axis, with room for a power, and what restores.

    Squares of large ones would overflow, of small ones vanish: in float64 those of
    float32 do not, nor do their fourth powers. Elsewhere, and for higher powers, the
    largest of each vector is scaled to 1.
    """
    x, restore = _prepare(x, axis)
    dtype = keras.backend.standardize_dtype(x.dtype)
    magnitude = ops.abs(x)
    roomy = dtype == "float32" and keras.backend.backend() == "tensorflow"
    if roomy and power <= 4:
        magnitude = ops.cast(magnitude, "float64")
    else:
        largest = _largest(magnitude)
        magnitude = magnitude / ops.where(largest == 0, 1.0, largest)
    return magnitude, lambda figure: restore(ops.cast(figure, dtype))


def total(x):
    """The sum of |x| along the last axis: 0 where all are, NaN where one is."""
    # As in `_magnitude`, so that XLA computes it once for both.
    if keras.backend.backend() == "tensorflow":
        return ops.sum(ops.cast(ops.abs(x), "float64"), axis=-1)
    return ops.sum(ops.abs(x), axis=-1)


def _largest(magnitude):
    # Without `initial` Keras refuses a batch of 0 samples.
    return ops.max(magnitude, axis=-1, keepdims=True, initial=0)


def _of_several(x, figures):
    """Returns `figures`, NaN where the vectors are of a single element.

    There they are 0/0, which by rounding may become infinite.
    """
    return ops.where(_size(x) > 1, figures, np.nan)


def _size(x):
    return ops.cast(ops.shape(x)[-1], x.dtype)


def _power_mean(magnitude, power):
    if power == 1:
        return ops.mean(magnitude, axis=-1)
    if power == 2:
        return ops.sqrt(ops.mean(ops.square(magnitude), axis=-1))
    return ops.power(ops.mean(ops.power(magnitude, power), axis=-1), 1 / power)
