"""Measures over a data set: activations of shape (samples, ..., units)."""

import keras
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import functions, inputs, targets
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

_registered = keras.saving.register_keras_serializable("keras_sparseout")


@_registered
@targets.refused
@numerics.unchecked()
def firing_rate(x: Tensor, *, threshold: float = 0.0) -> Tensor:
    """The share of samples and positions at which each unit fires.

        firing_rate(x)_j = (number of i with |x_ij| > threshold) / n

    for n samples and positions i. It falls with sparsity, from 1 to 0. Gaussian
    activations have 1, half-rectified Gaussian ones about 0.5, zeros 0. An infinite
    activation fires. A NaN gives NaN for its unit.

    Args:
        x: Numpy array or backend tensor of real numbers, (samples, ..., units).
        threshold: What |x| must exceed, in the units of x; a number >= 0.

    Returns:
        One value for each unit; float32, or float64 for float64. A numpy array for a
        numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, has no samples or units, or `threshold` is not
            a number >= 0.

    Source: Glorot, Bordes & Bengio (2011), "Deep Sparse Rectifier Neural Networks",
        AISTATS. It is 1 - their share of true zeros, for each unit.

    Example:

    >>> firing_rate(np.array([[0.0, -0.1, 2.0], [0.0, 0.0, 3.0]]))
    array([0. , 0.5, 1. ])
    """
    threshold = validation.check_threshold(threshold)
    x, restore = _prepare(x)
    return restore(ops.mean(fires(x, threshold), axis=_all_but_last(x)))


@_registered
@targets.refused
@numerics.unchecked()
def dead_units(x: Tensor, *, threshold: float = 0.0) -> Tensor:
    """The share of units that never fire, on any sample at any position.

        dead_units(x) = (number of j with max_i |x_ij| <= threshold) / units

    It goes from 0 to 1, and tells sparsity from a collapse: it stays 0 if units fire
    rarely. Gaussian activations have 0, half-rectified Gaussian ones too (0.5^n, for n
    samples and positions), zeros 1. An infinite activation fires. A NaN gives NaN.

    Args:
        x: Numpy array or backend tensor of real numbers, (samples, ..., units).
        threshold: What |x| must exceed to count as firing, in the units of x; a number
            >= 0.

    Returns:
        One number; float32, or float64 for float64. A numpy array for a numpy array, a
        tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, has no samples or units, or `threshold` is not
            a number >= 0.

    Source: Lu et al. (2020), "Dying ReLU and Initialization: Theory and Numerical
        Examples", Commun. Comput. Phys. 28.

    Example:

    >>> dead_units(np.array([[0.0, -0.1, 2.0, 0.0], [0.0, 0.0, 3.0, 4.0]]))
    array(0.25)
    """
    threshold = validation.check_threshold(threshold)
    x, restore = _prepare(x)
    rate = ops.mean(fires(x, threshold), axis=_all_but_last(x))
    return restore(share_of_zeros(rate))


@_registered
@targets.refused
@numerics.unchecked()
def lifetime_sparseness(x: Tensor) -> Tensor:
    """Treves and Rolls' sparseness of each unit over the samples and positions.

        lifetime_sparseness(x)_j = (1 - a_j) / (1 - 1/n)
        a_j = (sum_i |x_ij| / n)^2 / (sum_i x_ij^2 / n)

    for n samples and positions i. It says how selective a unit is among stimuli, while
    `population_sparseness` says how few units respond to one stimulus. It rises with
    sparsity, from 0 for a unit that always responds equally strongly to 1 for a unit
    that fires once. The scale of x does not matter. Gaussian activations have about
    0.36 (1 - 2 / pi, for n to infinity), half-rectified Gaussian ones 0.68
    (1 - 1 / pi). A dead unit, whose activations are all 0, gives NaN. With 1 sample and
    position all units do. A NaN or an infinity gives NaN for its unit.

    Args:
        x: Numpy array or backend tensor of real numbers, (samples, ..., units).

    Returns:
        One value for each unit; float32, or float64 for float64. A numpy array for a
        numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, or has no samples or units.

    Source: Rolls & Tovee (1995), "Sparseness of the Neuronal Representation of Stimuli
        in the Primate Temporal Visual Cortex", J. Neurophysiol. 73. It rises with
        sparsity as in Vinje & Gallant (2000), "Sparse Coding and Decorrelation in
        Primary Visual Cortex During Natural Vision", Science 287.

    Example:

    >>> lifetime_sparseness(np.array([[0.0, 4.0, 2.0], [0.0, 0.0, 2.0]]))
    array([nan,  1.,  0.])
    """
    x, restore = _prepare(x)
    rows = ops.reshape(x, (-1, ops.shape(x)[-1]))
    return restore(functions.population_sparseness(rows, axis=0))


@_registered
@targets.refused
@numerics.unchecked()
def rms(x: Tensor) -> Tensor:
    """The root mean square of all activations.

        rms(x) = sqrt(sum x_i^2 / n)

    for n activations i. It is no measure of sparsity, since it follows the scale of x,
    from 0 up. Look at it beside a measure: activations that shrink look sparse to any
    fixed threshold. Standard Gaussian activations have 1, half-rectified Gaussian ones
    about 0.71 (1 / sqrt(2)), zeros 0. A NaN gives NaN, an infinity without a NaN gives
    infinity.

    Args:
        x: Numpy array or backend tensor of real numbers, (samples, ..., units).

    Returns:
        One number; float32, or float64 for float64. A numpy array for a numpy array, a
        tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, or has no samples or units.

    Source: elementary.

    Example:

    >>> rms(np.array([[0.0, 2.0], [4.0, -4.0]]))
    array(3.)
    """
    x, restore = _prepare(x)
    magnitude = ops.abs(x)
    # Scaled to at most 1: squares of large numbers overflow, of small ones vanish.
    largest = ops.max(magnitude)
    usable = ops.logical_and(largest > 0, ops.isfinite(largest))
    scale = ops.where(usable, largest, 1.0)
    return restore(scale * ops.sqrt(ops.mean(ops.square(magnitude / scale))))


def fires(x: Tensor, threshold: float) -> Tensor:
    """Returns 1 where |x| > threshold, NaN where x is NaN, 0 elsewhere."""
    return ops.where(ops.isnan(x), x, ops.cast(ops.abs(x) > threshold, x.dtype))


def share_of_zeros(rates: Tensor) -> Tensor:
    """Returns the share of `rates` that are 0, NaN if one is NaN."""
    zeros = ops.cast(rates == 0, rates.dtype)
    return ops.mean(ops.where(ops.isnan(rates), rates, zeros))


def _prepare(x):
    x, restore = inputs.real_tensor(x)
    inputs.check_batch(x)
    if x.shape[0] == 0:
        raise ValueError(
            f"`x` must hold at least one sample. Received: x.shape={tuple(x.shape)}. "
            "Give the activations of a data set."
        )
    return x, restore


def _all_but_last(x):
    return tuple(range(len(x.shape) - 1))
