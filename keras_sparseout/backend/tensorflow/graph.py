"""Walks through a traced graph, from tensors to what they are made of.

A name is enough to identify a tensor or an operation, since a graph has it only once.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeAlias

import keras

from keras_sparseout.utils.types import Tensor

# A tf.Operation, and the tf.Graph that it stands in.
Operation: TypeAlias = Any
Graph: TypeAlias = Any

# These use the shape of their input, not its values.
_SHAPE_ONLY = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
# These return no activations of their input: a position among them, or what a loop
# makes of them, where layers can't be read.
_NO_ACTIVATIONS = (*_SHAPE_ONLY, "ArgMax", "ArgMin", "While", "StatelessWhile")


def tensors_in(structure: Any) -> list[Tensor]:
    """Returns the tensors of a structure that an operation of a graph makes."""
    return [x for x in keras.tree.flatten(structure) if hasattr(x, "op")]


def activations_behind(tensor: Tensor, barriers: Collection[str] = ()) -> set[str]:
    """Returns the names of the tensors whose activations reach `tensor`.

    Args:
        tensor: Where the walk begins. Its own name is among those returned.
        barriers: Names of tensors that the walk does not go behind.
    """
    return {x.name for x in _behind([tensor], _NO_ACTIVATIONS, barriers)}


def operations_between(start: Tensor, end: Tensor) -> list[Operation]:
    """Returns the operations through which activations reach `end`, up to `start`."""
    met = _behind([end], _NO_ACTIVATIONS, {start.name})
    return [x.op for x in met if x.name != start.name]


def operations_behind(tensors: Iterable[Tensor]) -> list[Operation]:
    """Returns all operations whose values `tensors` need, each once."""
    operations = (x.op for x in _behind(tensors, _SHAPE_ONLY))
    return list({operation.name: operation for operation in operations}.values())


def dependents(graph: Graph, tensors: Iterable[Tensor]) -> set[str]:
    """Returns the names of the operations that depend on `tensors`.

    A dependence on shapes counts, such as that of the zeros that an RNN begins with.
    """
    names = {tensor.op.name for tensor in tensors}
    # While a graph is traced, an operation comes after those that it needs.
    for operation in graph.get_operations():
        if any(x.op.name in names for x in operation.inputs):
            names.add(operation.name)
    return names


def variables(graph: Graph) -> list[Tensor]:
    """Returns the handles of the variables that the operations of a graph read."""
    tensors = (x for operation in graph.get_operations() for x in operation.outputs)
    return [x for x in tensors if x.dtype == "resource" and not x.op.inputs]


def types_in(operation: Operation) -> Iterator[str]:
    """Yields the type of an operation and of all in the functions that it calls."""
    yield operation.type
    waiting, met = _functions(operation.node_def), set()
    if not waiting:
        return
    library = operation.graph.as_graph_def().library.function
    by_name = {function.signature.name: function for function in library}
    while waiting:
        name = waiting.pop()
        if name not in met:
            met.add(name)
            for node in by_name[name].node_def:
                yield node.op
                waiting.extend(_functions(node))


def _behind(
    tensors: Iterable[Tensor], ends: Collection[str], barriers: Collection[str] = ()
) -> Iterator[Tensor]:
    """Yields `tensors` and what they are made of, each tensor once.

    Args:
        tensors: Where the walk begins.
        ends: Types of operations that it does not go behind.
        barriers: Names of tensors that it does not go behind.
    """
    met, waiting = set(), list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor.name in met:
            continue
        met.add(tensor.name)
        yield tensor
        if tensor.name not in barriers and tensor.op.type not in ends:
            waiting.extend(tensor.op.inputs)


def _functions(node: Any) -> list[str]:
    """Returns the names of the functions that a node calls."""
    names = []
    for attribute in node.attr.values():
        functions = [attribute.func, *attribute.list.func]
        names += [function.name for function in functions if function.name]
    return names
