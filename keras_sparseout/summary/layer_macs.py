"""Counts the multiply-accumulates (MACs) of a layer: products with its kernels."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers as kl
from keras import ops

from keras_sparseout.backend import convolutions, graph, operation_macs
from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper
from keras_sparseout.utils.types import Tensor

_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
_TRANSPOSED = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
_SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
_DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D, *_SEPARABLE)
_CONV_LSTM = (kl.ConvLSTM1D, kl.ConvLSTM2D, kl.ConvLSTM3D)
_RECURRENT = (kl.RNN, kl.LSTM, kl.GRU, kl.SimpleRNN, *_CONV_LSTM)
_CELLS = (kl.LSTMCell, kl.GRUCell, kl.SimpleRNNCell)
_WITH_KERNEL = (kl.Dense, kl.EinsumDense, *_CONVOLUTIONS, *_TRANSPOSED, *_DEPTHWISE)
# Their outputs are new activations, no longer those of the layers before them.
WITH_PRODUCTS = (*_WITH_KERNEL, kl.RNN)


def is_countable(layer: kl.Layer) -> bool:
    """Whether `count` counts the products of a layer with its input."""
    return _calls_as(layer, _WITH_KERNEL) or is_countable_rnn(layer)


def is_countable_rnn(layer: kl.Layer) -> bool:
    """Whether a layer is an RNN in a loop, with a cell of Keras."""
    # The products of an unrolled one are operations of the graph like others.
    if not _calls_as(layer, _RECURRENT) or layer.unroll:
        return False
    if isinstance(layer, _CONV_LSTM):
        return layer.data_format == "channels_last"
    return type(_cell(layer)) in _CELLS


def count(layer: kl.Layer, x: Tensor) -> operation_macs.Macs:
    """Counts the products of a layer with its input.

    Args:
        layer: A layer that `is_countable`.
        x: Its input, channels last.
    """
    if isinstance(layer, _CONV_LSTM):
        return _count(x, 4 * layer.filters, _kernel_axes(layer, first=2))
    if isinstance(layer, kl.RNN):
        return _count(x, _cell(layer).kernel.shape[-1])
    if isinstance(layer, kl.Dense):
        return _count(x, layer.units)
    if isinstance(layer, kl.EinsumDense):
        return _count(x, _einsum_products(layer))
    kernels = _kernel_axes(layer, first=1)
    if isinstance(layer, _DEPTHWISE):
        return _count(x, layer.depth_multiplier, kernels)
    return _count(x, layer.filters / (getattr(layer, "groups", None) or 1), kernels)


def count_pointwise(
    layer: kl.Layer, x: Tensor, y: Tensor
) -> operation_macs.Macs | None:
    """Counts the products of the second stage of a separable convolution.

    Args:
        layer: Any layer.
        x: Its input.
        y: Its output.

    Returns:
        The MACs, None for other layers.
    """
    if not isinstance(layer, _SEPARABLE):
        return None
    # Between input and output only one convolution is not depthwise.
    operations = graph.operations_between(x, y)
    inputs = {o.name: o.inputs[0] for o in operations if o.type == "Conv2D"}
    (between_stages,) = inputs.values()
    return _count(between_stages, layer.filters)


def count_states(
    layer: kl.RNN, x: Tensor, mask: Tensor | None, y: Tensor
) -> tuple[operation_macs.Macs, Tensor] | None:
    """Counts the products of an RNN with its states.

    The RNN is run a second time, from states of zero, and returns its states after all
    steps. Those after one step are those before the next one.

    Args:
        layer: An RNN that `is_countable_rnn`.
        x: Its input.
        mask: The mask of the timesteps, or None.
        y: Its output.

    Returns:
        The MACs, and the number of elements of `y` that differ in the second run. If
        there is one, the RNN began with other states, and the MACs are wrong. None for
        an RNN whose states can't be told.
    """
    cell = None if isinstance(layer, _CONV_LSTM) else _cell(layer)
    # Its recurrent kernel multiplies the states after the reset gate.
    reset_before = isinstance(cell, kl.GRUCell) and not cell.reset_after
    if layer.stateful or reset_before:
        return None
    states = _states(layer, x, mask)
    second = states if layer.return_sequences else states[:, -1]
    differs = ops.not_equal(second, y) & ~(ops.isnan(second) & ops.isnan(y))
    if layer.return_sequences and mask is not None:
        # Where it is masked, outputs may be zero. They are in the order of the steps.
        mask = ops.flip(mask, axis=1) if layer.go_backwards else mask
        more = [1] * (len(differs.shape) - 2)
        differs &= ops.reshape(ops.cast(mask, "bool"), (*ops.shape(mask), *more))
    before = ops.concatenate([ops.zeros_like(states[:, :1]), states[:, :-1]], axis=1)
    if cell is not None:
        macs = _count(before, cell.recurrent_kernel.shape[-1])
    else:
        spans = enumerate(layer.kernel_size, start=2)
        kernels = {axis: convolutions.KernelAxis(span, "same") for axis, span in spans}
        macs = _count(before, 4 * layer.filters, kernels)
    return macs, ops.sum(ops.cast(differs, "float64"))


def _states(layer: kl.RNN, x: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the states of an RNN after each step, in the order of its steps."""
    options = {
        "return_sequences": True,
        "return_state": False,
        # A masked step keeps the state.
        "zero_output_for_mask": False,
    }
    old = {name: getattr(layer, name) for name in options}
    try:
        for name, value in options.items():
            setattr(layer, name, value)
        # The call of the class, past any hooks, in a scope as Keras opens one too.
        with keras.name_scope("states"):
            return type(layer).call(layer, x, mask=mask, training=False)
    finally:
        for name, value in old.items():
            setattr(layer, name, value)


def _count(
    x: Tensor,
    products: float,
    kernels: Mapping[int, convolutions.KernelAxis] | None = None,
) -> operation_macs.Macs:
    """Counts products with `x`.

    Args:
        x: One of the factors.
        products: Number of products each time that an element is read.
        kernels: How a kernel moves, by axis. Along the other axes it reads each element
            once.
    """
    kernels = kernels or {}
    once = [axis for axis in range(len(x.shape)) if axis not in kernels]
    is_zero = ops.equal(x, ops.zeros((), x.dtype))
    zeros = ops.sum(ops.cast(is_zero, "int64"), axis=once)
    needless = ops.cast(zeros, "float64") * products
    sizes = ops.shape(x)
    total = ops.cast(products, "float64")
    for axis in once:
        total *= ops.cast(sizes[axis], "float64")
    # Last axis first, so that it is always the last one that is summed over.
    for axis in sorted(kernels, reverse=True):
        times = convolutions.times_read(x, axis, kernels[axis])
        needless = ops.sum(needless * times, axis=-1)
        total *= ops.sum(times)
    return operation_macs.Macs(needless, total)


def _calls_as(layer: kl.Layer, classes: tuple[Any, ...]) -> bool:
    """Whether a layer has the `call` of one of `classes`, not one of its own."""
    return any(isinstance(layer, c) and type(layer).call is c.call for c in classes)


def _cell(layer: kl.RNN) -> kl.Layer:
    cell = layer.cell
    return cell.cell if isinstance(cell, SparseoutCellWrapper) else cell


def _einsum_products(layer: kl.EinsumDense) -> int:
    """How many elements of the kernel each element of the input is multiplied with."""
    inputs, kernel = layer.equation.split("->")[0].split(",")
    sizes = zip(kernel.strip(), layer.kernel.shape, strict=True)
    return math.prod(size for letter, size in sizes if letter not in inputs)


def _kernel_axes(layer: kl.Layer, first: int) -> dict[int, convolutions.KernelAxis]:
    """How the kernel of a convolution moves, by axis; `first` is its first axis."""
    extra = getattr(layer, "output_padding", None)
    return {
        first + i: convolutions.KernelAxis(
            span=(size - 1) * layer.dilation_rate[i] + 1,
            padding=layer.padding,
            strides=layer.strides[i],
            dilation=layer.dilation_rate[i],
            transposed=isinstance(layer, _TRANSPOSED),
            output_padding=extra[i] if isinstance(extra, (list, tuple)) else extra,
        )
        for i, size in enumerate(layer.kernel_size)
    }
