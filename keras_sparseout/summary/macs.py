"""Counting the multiply-accumulates of layers that a zero input makes needless."""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper

_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
_TRANSPOSED = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
_SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
_DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D, *_SEPARABLE)
_CONV_LSTM = (kl.ConvLSTM1D, kl.ConvLSTM2D, kl.ConvLSTM3D)
_RECURRENT = (kl.RNN, kl.LSTM, kl.GRU, kl.SimpleRNN, *_CONV_LSTM)
_CELLS = (kl.LSTMCell, kl.GRUCell, kl.SimpleRNNCell)
_CONSUMERS = (kl.Dense, kl.EinsumDense, *_CONVOLUTIONS, *_TRANSPOSED, *_DEPTHWISE)
# Behind these, activations are no longer those of the layers before them.
BARRIERS = (*_CONSUMERS, kl.RNN)
# Of these operations' inputs, none is passed on as activations: either only its shape
# counts, or the place of its largest or smallest element, or it goes into a loop, where
# layers can't be read.
_ENDS = (
    *("Shape", "ShapeN", "Size", "ZerosLike", "OnesLike"),
    *("ArgMax", "ArgMin", "While", "StatelessWhile"),
)


def is_counted(layer):
    """Whether `count` counts the products of a layer with its input."""
    return _calls_as(layer, _CONSUMERS) or is_recurrent(layer)


def is_recurrent(layer):
    """Whether a layer is an RNN in a loop, whose cell is one of Keras."""
    if not _calls_as(layer, _RECURRENT) or layer.unroll:
        return False  # Unrolled, its products stand in the graph.
    if isinstance(layer, _CONV_LSTM):
        return layer.data_format == "channels_last"
    return type(_cell(layer)) in _CELLS


def count(layer, x):
    """Returns the MACs of a batch whose input is zero, and all of them, in float64.

    `uses` of a convolution is the outer product of one vector for each axis, and the
    same for all channels.
    """
    if isinstance(layer, _CONV_LSTM):
        filters = 4 * layer.filters
        return _sums(x, filters, {a + 2: _geometry(layer, a) for a in _axes(layer)})
    if isinstance(layer, kl.RNN):
        return _sums(x, _cell(layer).kernel.shape[-1])
    if isinstance(layer, kl.Dense):
        return _sums(x, layer.units)
    if isinstance(layer, kl.EinsumDense):
        return _sums(x, _einsum_products(layer))
    geometry = {a + 1: _geometry(layer, a) for a in _axes(layer)}
    if isinstance(layer, _DEPTHWISE):
        return _sums(x, layer.depth_multiplier, geometry)
    return _sums(x, layer.filters / (getattr(layer, "groups", None) or 1), geometry)


def count_states(layer, x, mask, outputs):
    """Returns the MACs of an RNN with its states, None if they can't be counted.

    The states before each step are those that it gives after the step before, once it
    runs anew over its whole input from states of zero.

    Args:
        layer: An RNN that `is_recurrent`.
        x: Its input.
        mask: The mask of the timesteps, or None.
        outputs: What it returned.

    Returns:
        As `count`; and how many elements of `outputs` are others if it is run anew:
        then it began with other states, and the sums do not hold.
    """
    cell = None if isinstance(layer, _CONV_LSTM) else _cell(layer)
    reset_before = isinstance(cell, kl.GRUCell) and not cell.reset_after
    if layer.stateful or reset_before:
        return None
    states = _states(layer, x, mask)
    again = states if layer.return_sequences else states[:, -1]
    both_nan = tf.math.is_nan(again) & tf.math.is_nan(outputs)
    others = tf.not_equal(again, outputs) & ~both_nan
    if layer.return_sequences and mask is not None:
        # There the outputs may be zero. They are in the order of the steps.
        mask = tf.reverse(mask, [1]) if layer.go_backwards else mask
        size = tf.concat([tf.shape(mask), [1] * (len(others.shape) - 2)], axis=0)
        others &= tf.reshape(tf.cast(mask, "bool"), size)
    others = tf.reduce_sum(tf.cast(others, "float64"))
    before = tf.concat([tf.zeros_like(states[:, :1]), states[:, :-1]], axis=1)
    if cell is not None:
        return _sums(before, cell.recurrent_kernel.shape[-1]), others
    geometry = {}
    for axis in _axes(layer):
        span = layer.kernel_size[axis]
        geometry[axis + 2] = (False, span, 1, 1, "same", None)
    return _sums(before, 4 * layer.filters, geometry), others


def _states(layer, x, mask):
    """Returns the states of an RNN after each step, in the order of its steps."""
    options = {
        "return_sequences": True,
        "return_state": False,
        # Of a step that is masked, the state stays what it was.
        "zero_output_for_mask": False,
    }
    old = {name: getattr(layer, name) for name in options}
    try:
        for name, value in options.items():
            setattr(layer, name, value)
        # Past the hooks of its call; in a scope, as Keras opens one.
        with tf.name_scope("states"):
            return type(layer).call(layer, x, mask=mask, training=False)
    finally:
        for name, value in old.items():
            setattr(layer, name, value)


def count_pointwise(layer, x, outputs):
    """Returns the MACs of the second stage of a separable convolution, else None."""
    if not isinstance(layer, _SEPARABLE):
        return None
    # Between its input and output there is one convolution that is not depthwise.
    ops = [ref.deref().op for ref in behind(outputs, {x.ref()}) - {x.ref()}]
    (middle,) = {op.inputs[0].ref() for op in ops if op.type == "Conv2D"}
    return _sums(middle.deref(), layer.filters)


def _sums(x, products, geometry=None):
    """Returns the MACs with the zeros of `x`, and all of them.

    Args:
        x: What the products are formed with.
        products: How many each time that an element is read.
        geometry: Dict by axis of the arguments of `_uses`, where a kernel moves along
            it. Along the others each element is read once.
    """
    geometry = geometry or {}
    still = [axis for axis in range(len(x.shape)) if axis not in geometry]
    zeros = tf.reduce_sum(tf.cast(tf.equal(x, tf.zeros((), x.dtype)), "int64"), still)
    zeros = tf.cast(zeros, "float64") * products
    sizes = tf.cast(tf.gather(tf.shape(x), still), "float64")
    macs = tf.reduce_prod(sizes) * products
    for axis in reversed(geometry):
        uses = _uses(x.shape[axis], tf.shape(x)[axis], *geometry[axis])
        zeros = tf.reduce_sum(zeros * uses, axis=-1)
        macs *= tf.reduce_sum(uses)
    return [zeros, macs]


def _calls_as(layer, classes):
    """Whether a layer is of one of `classes`, and its `call` is not another."""
    return any(isinstance(layer, c) and type(layer).call is c.call for c in classes)


def _cell(layer):
    cell = layer.cell
    return cell.cell if isinstance(cell, SparseoutCellWrapper) else cell


def _einsum_products(layer):
    """How many elements of the kernel each element of the input meets."""
    inputs, kernel = layer.equation.split("->")[0].split(",")
    sizes = zip(kernel.strip(), layer.kernel.shape, strict=True)
    return math.prod(size for letter, size in sizes if letter not in inputs)


def _axes(layer):
    return range(len(layer.kernel_size))


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


def _uses(static, size, *geometry):
    """How often a convolution reads each element along one axis, a float64 vector.

    Args:
        static: The size of the axis, None if it is not known yet.
        size: The same as a tensor.
        geometry: What `_geometry` returns.
    """
    if static is None:
        return _computed_uses(size, *geometry)
    with tf.init_scope():
        return _known_uses(static, *geometry)


@functools.lru_cache(maxsize=1024)
def _known_uses(size, *geometry):
    uses = functools.partial(_computed_uses, size, *geometry)
    function = tf.function(uses, autograph=False)
    return function.get_concrete_function()().numpy()


def _computed_uses(size, transposed, span, dilation, strides, padding, extra):
    # It is the gradient of the sum over a convolution with ones. Holes are in the
    # kernel itself: dilated convolutions have no gradient on CPUs.
    kernel = np.zeros((span, 1, 1), "float32")
    kernel[::dilation] = 1.0
    options = {"strides": strides, "data_format": "channels_last"}
    line = tf.ones((1, size, 1))
    padded = line
    if padding == "causal":
        padded, padding = tf.pad(line, [(0, 0), (span - 1, 0), (0, 0)]), "valid"
    if transposed:
        options["output_padding"] = extra
    convolve = keras.ops.conv_transpose if transposed else keras.ops.conv
    read = tf.reduce_sum(convolve(padded, kernel, padding=padding, **options))
    # Not by a tape, which records nothing in `init_scope`.
    return tf.cast(tf.gradients(read, line)[0][0, :, 0], "float64")


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
