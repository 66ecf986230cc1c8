"""Counting the multiply-accumulates that a zero input makes needless."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
_TRANSPOSED = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
_DEPTHWISE = (
    kl.DepthwiseConv1D,
    kl.DepthwiseConv2D,
    kl.SeparableConv1D,
    kl.SeparableConv2D,
)
CONSUMERS = (kl.Dense, *_CONVOLUTIONS, *_TRANSPOSED, *_DEPTHWISE)
# Behind these, activations are no longer those of the layers before them.
BARRIERS = (*CONSUMERS, kl.EinsumDense, kl.RNN)
# Of these operations' inputs, none is passed on as activations: either only its shape
# counts, or the place of its largest or smallest element, or it goes into a loop, where
# layers can't be read.
_ENDS = (
    *("Shape", "ShapeN", "Size", "ZerosLike", "OnesLike"),
    *("ArgMax", "ArgMin", "While", "StatelessWhile"),
)


def count(layer, x):
    """Returns the MACs of a batch whose input is zero, and all of them, in float64.

    `uses` of a convolution is the outer product of one vector for each axis, and the
    same for all channels.
    """
    zeros = tf.cast(tf.equal(x, 0), "int64")
    zeros = tf.cast(tf.reduce_sum(zeros, axis=(0, -1)), "float64") * _products(layer)
    macs = tf.cast(tf.shape(x)[0] * tf.shape(x)[-1], "float64") * _products(layer)
    for axis in reversed(range(1, len(x.shape) - 1)):
        size = x.shape[axis] or tf.shape(x)[axis]
        uses = tf.ones((size,), "float64")
        if not isinstance(layer, kl.Dense):
            uses = _uses(size, *_geometry(layer, axis - 1))
        zeros = tf.reduce_sum(zeros * uses, axis=-1)
        macs *= tf.reduce_sum(uses)
    return [zeros, macs]


def _products(layer):
    """How many products a layer forms with an element each time that it reads it."""
    if isinstance(layer, kl.Dense):
        return layer.units
    if isinstance(layer, _DEPTHWISE):
        return layer.depth_multiplier
    return layer.filters / (getattr(layer, "groups", None) or 1)


def _geometry(layer, axis):
    """Returns the arguments of `_uses` that a convolution has along an axis."""
    extra = getattr(layer, "output_padding", None)
    return (
        isinstance(layer, _TRANSPOSED),
        (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1,
        layer.dilation_rate[axis],
        layer.strides[axis],
        layer.padding,
        extra[axis] if isinstance(extra, (list, tuple)) else extra,
    )


# A function, so that it is traced but once for all layers alike.
@tf.function(autograph=False)
def _uses(size, transposed, span, dilation, strides, padding, extra):
    """How often a convolution reads each element along one axis, a float64 vector.

    It is the gradient of the sum over a convolution with ones.
    """
    # Holes in the kernel itself: dilated convolutions have no gradient on CPUs.
    kernel = np.zeros((span, 1, 1), "float32")
    kernel[::dilation] = 1.0
    options = {"strides": strides, "data_format": "channels_last"}
    line = tf.ones((1, size, 1))
    with tf.GradientTape() as tape:
        tape.watch(line)
        padded = line
        if padding == "causal":
            padded, padding = tf.pad(line, [(0, 0), (span - 1, 0), (0, 0)]), "valid"
        if transposed:
            options["output_padding"] = extra
        convolve = keras.ops.conv_transpose if transposed else keras.ops.conv
        read = convolve(padded, kernel, padding=padding, **options)
        read = tf.reduce_sum(read)
    return tf.cast(tape.gradient(read, line)[0, :, 0], "float64")


def behind(start, barriers):
    """Returns references to the tensors that `start` is made of, up to `barriers`."""
    met, waiting = set(), [start]
    while waiting:
        tensor = waiting.pop()
        if tensor.ref() in met:
            continue
        met.add(tensor.ref())
        if tensor.ref() not in barriers and tensor.op.type not in _ENDS:
            waiting.extend(tensor.op.inputs)
    return met
