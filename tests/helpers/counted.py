"""Counts products one by one, for the tests of `activation_sparsity`."""

import itertools

import keras
import numpy as np
from keras import layers as kl

from keras_sparseout import activation_sparsity


def rectified(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return np.maximum(x, 0).astype("float32")


def rows(table):
    return {row["layer"]: row for row in table.rows}


def behind_a_relu(layer, shape, x):
    """The `needless_macs` of a ReLU before `layer`, and the table."""
    model = keras.Sequential([keras.Input(shape), kl.ReLU(name="relu"), layer])
    # One row takes less time to trace; the MACs are those of all layers.
    table = activation_sparsity(model, x, layers="relu")
    return rows(table)["relu"]["needless_macs"], table


def padding_of(size, kernel, stride, dilation, padding):
    """Number of outputs along one axis, and of zeros in front of the input."""
    span = (kernel - 1) * dilation + 1
    if padding == "causal":
        return (size - 1) // stride + 1, span - 1
    if padding == "valid":
        return (size - span) // stride + 1, 0
    outputs = -(-size // stride)
    return outputs, max((outputs - 1) * stride + span - size, 0) // 2


def count(x, kernel, stride, dilation, padding):
    """(products with a zero, all products) of a convolution, one filter a channel."""
    axes = []
    for size in x.shape[1:-1]:
        outputs, front = padding_of(size, kernel, stride, dilation, padding)
        axes.append(
            [
                o * stride + k * dilation - front
                for o in range(outputs)
                for k in range(kernel)
                if 0 <= o * stride + k * dilation - front < size
            ]
        )
    needless = total = 0
    for sample in x:
        for position in itertools.product(*axes):
            needless += np.sum(sample[position] == 0)
            total += x.shape[-1]
    return needless, total
