"""Counts the multiply-accumulates of single operations: products of two tensors."""

import re
from typing import NamedTuple

import tensorflow as tf

from keras_sparseout.backend.tensorflow import graph
from keras_sparseout.utils.types import Tensor

_MATMULS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_CONVOLUTIONS = re.compile(r"(Depthwise)?Conv[123]D|DepthwiseConv2dNative")
_OTHERS = ("CudnnRNN", "SparseTensorDenseMatMul", "SparseMatMul", "XlaDot", "XlaConv")


class Macs(NamedTuple):
    """Multiply-accumulates (MACs) of a batch, float64 numbers.

    Attributes:
        needless: Those in which an activation is zero.
        total: All of them.
    """

    needless: Tensor
    total: Tensor


def has_products(operation: graph.Operation) -> bool:
    """Whether there are products in an operation, or in the functions it calls."""
    return any(_is_product(kind) for kind in graph.types_in(operation))


def is_countable(operation: graph.Operation) -> bool:
    """Whether `count` can count the products of an operation."""
    if operation.type != "Einsum":
        return operation.type in _MATMULS
    operands = _operands(operation)
    # Neither an ellipsis, nor the diagonal of a matrix.
    return len(operands) == 2 and all(
        letters.isalpha() and len(set(letters)) == len(letters) for letters in operands
    )


def count(
    operation: graph.Operation, active: set[str]
) -> tuple[Macs, list[tuple[Tensor, Macs]]]:
    """Counts the products of an operation.

    Args:
        operation: An operation that `is_countable`.
        active: The names of the operations that return activations. Factors from
            others, such as weights, count as nonzero.

    Returns:
        The MACs, needless if any of their factors is zero. Then for each factor of
        activations its tensor, and the MACs that are needless because of it alone.
    """
    ones = [tf.ones_like(x, "float64") for x in operation.inputs]
    nonzero = [
        tf.cast(tf.not_equal(x, tf.zeros((), x.dtype)), "float64")
        if x.op.name in active
        else one
        for x, one in zip(operation.inputs, ones, strict=True)
    ]
    total = _pairs(operation, *ones)
    alone = [(nonzero[0], ones[1]), (ones[0], nonzero[1])]
    factors = [
        (x, Macs(total - _pairs(operation, *pair), total))
        for x, pair in zip(operation.inputs, alone, strict=True)
        if x.op.name in active
    ]
    return Macs(total - _pairs(operation, *nonzero), total), factors


def _pairs(operation: graph.Operation, a: Tensor, b: Tensor) -> Tensor:
    """Returns the sum of a_i * b_j over the products that an operation computes."""
    # Axes that the other factor does not have are summed first, which is cheaper.
    if operation.type == "Einsum":
        first, second = _operands(operation)
        shared = [letter for letter in first if letter in second]
        a = tf.reduce_sum(a, [i for i, c in enumerate(first) if c not in shared])
        b = tf.reduce_sum(b, [i for i, c in enumerate(second) if c not in shared])
        left = [letter for letter in second if letter in shared]
        b = tf.transpose(b, [left.index(letter) for letter in shared])
    else:
        names = ("transpose_a", "transpose_b")
        if operation.type != "MatMul":
            names = ("adj_x", "adj_y")
        a = tf.reduce_sum(a, axis=-1 if operation.get_attr(names[0]) else -2)
        b = tf.reduce_sum(b, axis=-2 if operation.get_attr(names[1]) else -1)
    return tf.reduce_sum(a * b)


def _operands(operation: graph.Operation) -> list[str]:
    """The letters of the axes of each factor of an einsum."""
    return operation.get_attr("equation").decode().split("->")[0].split(",")


def _is_product(kind: str) -> bool:
    return (
        kind in (*_MATMULS, "Einsum")
        or _CONVOLUTIONS.match(kind) is not None
        or kind.startswith(_OTHERS)
    )
