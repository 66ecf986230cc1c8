"""Measures of activation sparsity: one number for each vector along an axis."""

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import targets, vectors
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

_registered = keras.saving.register_keras_serializable("keras_sparseout")


@_registered
@targets.refused
@numerics.unchecked()
def hoyer(x: Tensor, axis: int | None = -1) -> Tensor:
    """Hoyer's sparsity of each vector along `axis`.

        hoyer(x) = (sqrt(n) - sum |x_i| / sqrt(sum x_i^2)) / (sqrt(n) - 1)

    for a vector of n elements. It rises with sparsity: it is 0 if all |x_i| are equal
    and 1 if only one element is not 0. The scale of x does not matter. A Gaussian
    vector has about 0.20 (1 - sqrt(2 / pi), for n to infinity), a half-rectified
    Gaussian one 0.44 (1 - 1 / sqrt(pi)). An all-zero vector, or a vector of a single
    element, is 0/0 and gives NaN: average with `numpy.nanmean`, and count such silent
    vectors separately. A NaN or an infinity in a vector gives NaN.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis along which the vectors lie, an int. -1, the default, takes the
            features of each sample, or the channels at each position. None takes all
            axes but the first, so that each whole sample is one vector. An array of
            rank 1 is one vector in both cases.

    Returns:
        One number for each vector, in the shape of `x` without `axis`. It is float64 if
        `x` is float64, else float32, and a numpy array for a numpy array, a tensor for
        a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, or the vectors
            are empty.

    Source: Hoyer (2004), "Non-negative Matrix Factorization with Sparseness
        Constraints", JMLR 5.

    Example:

    >>> hoyer(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([0., 1.])
    """
    magnitude, restore = vectors.magnitudes(x, axis)
    norm_ratio = ops.sum(magnitude, axis=-1) / ops.sqrt(
        ops.sum(ops.square(magnitude), axis=-1)
    )
    root = ops.sqrt(vectors.size(magnitude))
    return restore(vectors.of_several(magnitude, (root - norm_ratio) / (root - 1)))


@_registered
@targets.refused
@numerics.unchecked()
def gini(x: Tensor, axis: int | None = -1) -> Tensor:
    """The Gini index of the magnitudes in each vector along `axis`.

        gini(x) = 1 - 2 sum_k |x|_(k) / (sum |x_i|) * (n - k + 1/2) / n

    for a vector of n elements, with |x|_(k) the k-th smallest magnitude. It rises with
    sparsity: it is 0 if all |x_i| are equal and 1 - 1/n if only one element is not 0.
    Neither the scale of x nor repeating all its elements matters. A Gaussian vector has
    about 0.41 (sqrt(2) - 1, for n to infinity), a half-rectified Gaussian one 0.71
    (1 / sqrt(2)). An all-zero vector is 0/0 and gives NaN, a single element gives 0. A
    NaN or an infinity gives NaN.

    Args:
        x: Real numbers, as in `hoyer`.
        axis: The axis of the vectors, as in `hoyer`.

    Returns:
        One number for each vector, as in `hoyer`.

    Raises:
        ValueError: as `hoyer`.

    Source: Hurley & Rickard (2009), "Comparing Measures of Sparsity", IEEE Trans. Inf.
        Theory 55. Of their 16 measures, this one alone has all six properties that
        they ask of a measure.

    Example:

    >>> gini(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([0.  , 0.75])
    """
    magnitude, restore = vectors.magnitudes(x, axis)
    n = vectors.size(magnitude)
    # The definition with its 1 brought into the sum, where equal elements cancel.
    k = ops.cast(ops.arange(1, ops.shape(magnitude)[-1] + 1), magnitude.dtype)
    weighted = ops.sort(magnitude, axis=-1) * ((2 * k - n - 1) / n)
    return restore(ops.sum(weighted, axis=-1) / ops.sum(magnitude, axis=-1))


@_registered
@targets.refused
@numerics.unchecked()
def zero_fraction(
    x: Tensor, axis: int | None = -1, *, threshold: float = 0.0, relative: bool = False
) -> Tensor:
    """The fraction of elements of each vector along `axis` that are 0.

        zero_fraction(x) = (number of i with |x_i| <= threshold) / n

    It rises with sparsity, from 0 to 1. A Gaussian vector has 0, a half-rectified
    Gaussian one about 0.5, an all-zero vector 1. A NaN gives NaN. An infinite element
    counts as not 0.

    With `relative=True` the threshold is `threshold * sqrt(sum x_i^2 / n)`, so that the
    scale of x does not matter. At 0.1 about 0.08 of a Gaussian vector counts as 0
    (erf(0.1 / sqrt(2)), for n to infinity), and 0.53 of a half-rectified Gaussian one.
    Then an infinite element gives NaN too.

    Args:
        x: Real numbers, as in `hoyer`.
        axis: The axis of the vectors, as in `hoyer`.
        threshold: The largest |x| that counts as 0, a number >= 0.
        relative: Whether `threshold` is a multiple of each vector's root mean square.

    Returns:
        One number for each vector, as in `hoyer`.

    Raises:
        ValueError: as `hoyer`, and if `threshold` is not >= 0 or `relative` no bool.

    Source: Hurley & Rickard (2009), "Comparing Measures of Sparsity", IEEE Trans. Inf.
        Theory 55: l0, or l0-epsilon with a threshold. It is also called 1 - density.

    Example:

    >>> zero_fraction(np.array([[0.0, -0.1, 0.0, 3.0]]))
    array([0.5])
    >>> zero_fraction(np.array([[0.0, -0.1, 0.0, 3.0]]), threshold=0.1)
    array([0.75])
    """
    threshold = validation.check_threshold(threshold)
    validation.check_bool("relative", relative)
    if relative:
        magnitude, restore = vectors.magnitudes(x, axis)
        threshold = threshold * vectors.power_mean(magnitude, 2, keepdims=True)
        defined = ops.isfinite(vectors.total(magnitude))
    else:
        x, restore = vectors.along_last(x, axis)
        magnitude = ops.abs(x)
        defined = ~ops.isnan(vectors.total(magnitude))
    small = ops.mean(ops.cast(magnitude <= threshold, magnitude.dtype), axis=-1)
    return restore(ops.where(defined, small, np.nan))


@_registered
@targets.refused
@numerics.unchecked()
def population_sparseness(x: Tensor, axis: int | None = -1) -> Tensor:
    """Treves and Rolls' sparseness of each vector along `axis`.

        population_sparseness(x) = (1 - a) / (1 - 1/n)
        a = (sum |x_i| / n)^2 / (sum x_i^2 / n)

    for a vector of n elements, the responses of a population of units to one stimulus.
    It rises with sparsity, while the authors' a falls: it is 0 if all |x_i| are equal
    and 1 if only one element is not 0. The scale of x does not matter. A Gaussian
    vector has about 0.36 (1 - 2 / pi, for n to infinity), a half-rectified Gaussian one
    0.68 (1 - 1 / pi). An all-zero vector, or a vector of a single element, is 0/0 and
    gives NaN. A NaN or an infinity gives NaN.

    Args:
        x: Real numbers, as in `hoyer`.
        axis: The axis of the vectors, as in `hoyer`.

    Returns:
        One number for each vector, as in `hoyer`.

    Raises:
        ValueError: as `hoyer`.

    Source: Treves & Rolls (1991), "What determines the capacity of autoassociative
        memories in the brain?", Network 2, define a; Vinje & Gallant (2000), "Sparse
        Coding and Decorrelation in Primary Visual Cortex During Natural Vision",
        Science 287, make it rise with sparsity.

    Example:

    >>> population_sparseness(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 3.0, 3.0, 0.0]]))
    array([0.        , 0.66666667])
    """
    magnitude, restore = vectors.magnitudes(x, axis)
    a = ops.square(ops.mean(magnitude, axis=-1)) / ops.mean(
        ops.square(magnitude), axis=-1
    )
    return restore(
        vectors.of_several(magnitude, (1 - a) / (1 - 1 / vectors.size(magnitude)))
    )


@_registered
@targets.refused
@numerics.unchecked()
def pq_index(
    x: Tensor, axis: int | None = -1, *, p: float = 1.0, q: float = 2.0
) -> Tensor:
    """The PQ Index of each vector along `axis`.

        pq_index(x) = 1 - n^(1/q - 1/p) (sum |x_i|^p)^(1/p) / (sum |x_i|^q)^(1/q)

    for a vector of n elements. It rises with sparsity: it is 0 if all |x_i| are equal
    and 1 - n^(1/q - 1/p) if only one element is not 0. Neither the scale of x nor
    repeating all its elements matters. With p = 1 and q = 2 a Gaussian vector has about
    0.20 (1 - sqrt(2 / pi), for n to infinity) and a half-rectified Gaussian one 0.44
    (1 - 1 / sqrt(pi)), the limits of `hoyer` too. An all-zero vector is 0/0 and gives
    NaN, a single element gives 0. A NaN or an infinity gives NaN.

    Args:
        x: Real numbers, as in `hoyer`.
        axis: The axis of the vectors, as in `hoyer`.
        p: The power of the norm above the line, a number > 0.
        q: The power of the norm below the line, a finite number > p.

    Returns:
        One number for each vector, as in `hoyer`.

    Raises:
        ValueError: as `hoyer`, and unless `p` and `q` are numbers with 0 < p < q.

    Source: Diao et al. (2023), "Pruning Deep Neural Networks from a Sparsity
        Perspective", ICLR.

    Example:

    >>> pq_index(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([0. , 0.5])
    """
    validation.check_powers(p, q)
    magnitude, restore = vectors.magnitudes(x, axis, power=q)
    return restore(
        1 - vectors.power_mean(magnitude, p) / vectors.power_mean(magnitude, q)
    )


@_registered
@targets.refused
@numerics.unchecked()
def kurtosis(x: Tensor, axis: int | None = -1) -> Tensor:
    """The excess kurtosis of each vector along `axis`.

        kurtosis(x) = (sum (x_i - m)^4 / n) / (sum (x_i - m)^2 / n)^2 - 3

    for a vector of n elements with the mean m. It rises with the weight of the tails,
    and so with sparsity where most elements are near the mean. It is -2 if half of the
    elements have one value and half another, and n^2 / (n - 1) - 6 if one differs from
    all others. Neither the scale of x nor adding a constant to it matters. A Gaussian
    vector has 0 (for n to infinity), a half-rectified Gaussian one about 2.41. A
    constant vector is 0/0 and gives NaN, also an all-zero one or a single element. A
    NaN or an infinity gives NaN.

    The moments are about the mean, as in statistics. The kappa_4 of Hurley & Rickard
    (2009) is about 0 and not divided by n.

    Args:
        x: Real numbers, as in `hoyer`.
        axis: The axis of the vectors, as in `hoyer`.

    Returns:
        One number for each vector, as in `hoyer`.

    Raises:
        ValueError: as `hoyer`.

    Source: Field (1994), "What Is the Goal of Sensory Coding?", Neural Computation 6,
        uses it as a measure of sparsity.

    Example:

    >>> kurtosis(np.array([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([-2.        , -0.66666667])
    """
    x, restore = vectors.along_last(x, axis)
    x = x / vectors.largest(ops.abs(x))
    # The first element is subtracted before the mean. So a constant vector becomes
    # zeros, and not the rounding error of its mean.
    x = x - x[..., :1]
    x = x - ops.mean(x, axis=-1, keepdims=True)
    square = ops.square(x / vectors.largest(ops.abs(x)))
    fourth = ops.mean(ops.square(square), axis=-1)
    return restore(fourth / ops.square(ops.mean(square, axis=-1)) - 3)
