"""Counting the products of a traced model that belong to no layer known to `macs`.

Those of attention, of custom layers and of operations, as they stand in the graph.
"""

import re

import tensorflow as tf

_MATMULS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_CONVOLUTIONS = re.compile(r"(Depthwise)?Conv[123]D|DepthwiseConv2dNative")
_OTHERS = ("CudnnRNN", "SparseTensorDenseMatMul", "SparseMatMul", "XlaDot", "XlaConv")
# Of the inputs of these, the values are not needed.
_OF_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")


def needed(outputs):
    """Returns the operations that the tensors `outputs` are made with, by name."""
    met, waiting = {}, [tensor.op for tensor in outputs]
    while waiting:
        op = waiting.pop()
        if op.name not in met:
            met[op.name] = op
            if op.type not in _OF_SHAPES:
                waiting.extend(tensor.op for tensor in op.inputs)
    return met


def depending(graph, inputs):
    """Returns the names of the operations that depend on `inputs`.

    On their shapes too, as the zeros that the states of an RNN begin with.
    """
    names = {tensor.op.name for tensor in inputs}
    # In a graph that is traced, operations stand after those that they need.
    for op in graph.get_operations():
        if any(tensor.op.name in names for tensor in op.inputs):
            names.add(op.name)
    return names


def is_countable(op):
    """Whether `count` can count the products of an operation."""
    if op.type != "Einsum":
        return op.type in _MATMULS
    parts = _parts(op)
    # Neither an ellipsis, nor the diagonal of a matrix.
    return len(parts) == 2 and all(p.isalpha() and len(set(p)) == len(p) for p in parts)


def has_products(op, library):
    """Whether there are products in an operation, or in the functions it calls.

    Args:
        op: A tf.Operation.
        library: Returns the functions of the graph by name.
    """
    if _is_product(op.type):
        return True
    waiting, met = _functions(op.node_def), set()
    while waiting:
        name = waiting.pop()
        if name not in met:
            met.add(name)
            for node in library()[name].node_def:
                if _is_product(node.op):
                    return True
                waiting.extend(_functions(node))
    return False


def count(op, active):
    """Returns how many products of an operation have a zero for a factor.

    Args:
        op: An operation that `is_countable`.
        active: The names of the operations that give activations. Factors of others,
            such as weights, count as other than zero.

    Returns:
        Two float64 sums, needless products and all of them; and a list of (tensor, the
        same two sums where it alone is looked at), for each factor of activations.
    """
    ones = [tf.ones_like(x, "float64") for x in op.inputs]
    there = [
        tf.cast(tf.not_equal(x, tf.zeros((), x.dtype)), "float64")
        if x.op.name in active
        else one
        for x, one in zip(op.inputs, ones, strict=True)
    ]
    total = _pairs(op, *ones)
    alone = [(there[0], ones[1]), (ones[0], there[1])]
    factors = [
        (x, [total - _pairs(op, *pair), total])
        for x, pair in zip(op.inputs, alone, strict=True)
        if x.op.name in active
    ]
    return [total - _pairs(op, *there), total], factors


def _pairs(op, a, b):
    """Returns the sum of a_i * b_j over the products that an operation forms."""
    # Summed over what the other factor does not have, before it is multiplied.
    if op.type == "Einsum":
        first, second = _parts(op)
        shared = [letter for letter in first if letter in second]
        a = tf.reduce_sum(a, [i for i, c in enumerate(first) if c not in shared])
        b = tf.reduce_sum(b, [i for i, c in enumerate(second) if c not in shared])
        left = [letter for letter in second if letter in shared]
        b = tf.transpose(b, [left.index(letter) for letter in shared])
    else:
        names = ("transpose_a", "transpose_b")
        if op.type != "MatMul":
            names = ("adj_x", "adj_y")
        a = tf.reduce_sum(a, axis=-1 if op.get_attr(names[0]) else -2)
        b = tf.reduce_sum(b, axis=-2 if op.get_attr(names[1]) else -1)
    return tf.reduce_sum(a * b)


def _parts(op):
    return op.get_attr("equation").decode().split("->")[0].split(",")


def _is_product(kind):
    return (
        kind in (*_MATMULS, "Einsum")
        or _CONVOLUTIONS.match(kind) is not None
        or kind.startswith(_OTHERS)
    )


def _functions(node):
    """Returns the names of the functions that a node calls."""
    names = []
    for attribute in node.attr.values():
        functions = [attribute.func, *attribute.list.func]
        names += [function.name for function in functions if function.name]
    return names
