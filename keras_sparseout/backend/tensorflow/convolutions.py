"""How often a convolution reads each element of its input."""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sparseout.utils.types import Tensor


class KernelAxis(NamedTuple):
    """How the kernel of a convolution moves along one axis.

    Attributes:
        span: Number of elements from its first weight to its last one.
        padding: "valid", "same" or "causal".
        strides: How far it moves at a time.
        dilation: Distance between two of its weights.
        transposed: Whether the convolution is a transposed one.
        output_padding: As in the transposed convolutions of Keras.
    """

    span: int
    padding: str
    strides: int = 1
    dilation: int = 1
    transposed: bool = False
    output_padding: int | None = None


def times_read(x: Tensor, axis: int, kernel: KernelAxis) -> Tensor | np.ndarray:
    """Returns how often each element along an axis of `x` is read, in float64."""
    if x.shape[axis] is None:
        return _times_read(tf.shape(x)[axis], kernel)
    with tf.init_scope():
        return _times_read_of(x.shape[axis], kernel)


@functools.lru_cache(maxsize=1024)
def _times_read_of(size: int, kernel: KernelAxis) -> np.ndarray:
    function = tf.function(lambda: _times_read(size, kernel), autograph=False)
    return function.get_concrete_function()().numpy()


def _times_read(size: int | Tensor, kernel: KernelAxis) -> Tensor:
    # It is the gradient of the sum over a convolution with ones. The kernel has its
    # holes as zeros, since dilated convolutions have no gradient on CPUs.
    weights = np.zeros((kernel.span, 1, 1), "float32")
    weights[:: kernel.dilation] = 1.0
    line = tf.ones((1, size, 1))
    padded, padding = line, kernel.padding
    if padding == "causal":
        padded, padding = tf.pad(line, [(0, 0), (kernel.span - 1, 0), (0, 0)]), "valid"
    options = {"strides": kernel.strides, "data_format": "channels_last"}
    convolve = keras.ops.conv
    if kernel.transposed:
        convolve = keras.ops.conv_transpose
        options["output_padding"] = kernel.output_padding
    read = tf.reduce_sum(convolve(padded, weights, padding=padding, **options))
    # A tape would record nothing in `init_scope`.
    return tf.cast(tf.gradients(read, line)[0][0, :, 0], "float64")
