"""Centres of activations: where they are dense, and how a bias makes up for them.

A threshold around the mode c instead of 0 is SCAP's (Chua et al. 2024, arXiv
2412.07174). The next layer then gets x - c, and c times its kernel goes into its bias.
"""

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from keras_sparseout.backend import variables
from keras_sparseout.utils.types import Tensor

_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
_DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
_SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
# The share of the values whose shortest interval has the mode in it.
_TENTH = 0.1


def mode(values: np.ndarray) -> np.ndarray:
    """Returns the middle of the shortest interval that holds a tenth of the values.

    Args:
        values: Array with a column for each group. NaN does not count.

    Returns:
        A number for each group, 0 where nothing counts.
    """
    ordered = np.sort(values.astype("float32"), axis=0)  # NaN comes last.
    counts = np.sum(~np.isnan(ordered), axis=0)
    modes = np.zeros(values.shape[1], "float32")
    for group, n in enumerate(counts):
        if n:
            own, span = ordered[:n, group], int(np.ceil(n * _TENTH))
            start = int(np.argmin(own[span - 1 :] - own[: n - span + 1]))
            modes[group] = np.median(own[start : start + span])
    return modes


def can_fold(layer: keras.layers.Layer, *, per_unit: bool) -> bool:
    """Whether the bias of a layer can make up for a centre that its input lacks.

    Args:
        layer: The layer that gets x - c in place of x.
        per_unit: Whether each unit has a centre of its own.
    """
    if getattr(layer, "bias", None) is None:
        return False
    if type(layer) is kl.Dense:
        return True
    if type(layer) is kl.EinsumDense:
        return _einsum(layer, per_unit=per_unit) is not None
    # What padding adds is 0, which is not the centre.
    is_convolution = type(layer) in (*_CONVOLUTIONS, *_DEPTHWISE, *_SEPARABLE)
    return (
        is_convolution
        and layer.padding == "valid"
        and (not per_unit or layer.data_format == "channels_last")
    )


def fold(layer: keras.layers.Layer, centre: Tensor) -> None:
    """Adds to the bias of a layer what it makes of an input that is `centre`.

    Args:
        layer: A layer that `can_fold`.
        centre: A number, or one for each unit of the input.
    """
    centre = variables.to_numpy(ops.convert_to_tensor(centre)).astype("float64")
    response = _response(layer, centre)
    bias = variables.to_numpy(layer.bias).astype("float64")
    layer.bias.assign((bias + response).astype("float32"))


def _response(layer: keras.layers.Layer, centre: np.ndarray) -> np.ndarray:
    """Returns what a layer makes of a constant input, without its bias."""
    if isinstance(layer, kl.Dense):
        kernel = _value(layer.kernel)
        return np.broadcast_to(centre, kernel.shape[:1]) @ kernel
    if isinstance(layer, kl.EinsumDense):
        equation = _einsum(layer, per_unit=centre.ndim > 0) or ""
        kernel = _value(layer.kernel)
        summed = np.einsum(equation, *([centre] if centre.ndim else []), kernel)
        summed = summed if centre.ndim else centre * summed
        return np.reshape(summed, layer.bias.shape)
    if isinstance(layer, _CONVOLUTIONS):
        return _of_convolution(_value(layer.kernel), centre, layer.groups)
    depthwise = isinstance(layer, _DEPTHWISE)
    kernel = _value(layer.kernel if depthwise else layer.depthwise_kernel)
    summed = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
    response = (np.broadcast_to(centre, summed.shape[:1])[:, None] * summed).reshape(-1)
    if depthwise:
        return response
    return _of_convolution(_value(layer.pointwise_kernel), response, 1)


def _of_convolution(kernel: np.ndarray, centre: np.ndarray, groups: int) -> np.ndarray:
    summed = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
    inputs, outputs = summed.shape
    centres = np.broadcast_to(centre, (inputs * groups,)).reshape(groups, inputs)
    kernels = summed.reshape(inputs, groups, outputs // groups)
    return np.einsum("gi,igo->go", centres, kernels).reshape(-1)


def _einsum(layer: kl.EinsumDense, *, per_unit: bool) -> str | None:
    """Returns the equation of a constant input's response, in the axes of the bias.

    None if it is not the same all along the axes that the bias does not have.
    """
    inputs, output = layer.equation.replace(" ", "").split("->")
    x, kernel = inputs.split(",")
    if "." in layer.equation or len(set(x)) < len(x):
        return None
    from_kernel = [letter for letter in output if letter in kernel]
    bias = [letter for letter in output if letter in (layer.bias_axes or "")]
    # An axis of the input that the product keeps has another kernel at each place.
    if from_kernel != bias:
        return None
    if not per_unit:
        return f"{kernel}->{''.join(bias)}"
    return f"{x[-1]},{kernel}->{''.join(bias)}" if x[-1] in kernel else None


def _value(variable: keras.Variable) -> np.ndarray:
    return np.asarray(variables.to_numpy(variable), "float64")
