"""Tells activations from data: they come from products with weights."""

from collections.abc import Sequence
from typing import Any

from keras_sparseout.backend import graph, operation_macs


def behind_weights(inputs: Sequence[Any], outputs: Sequence[Any]) -> set[str]:
    """Names of the operations whose values come from products with weights.

    Or from rows of a table of them, as an Embedding takes. Products with constants, as
    in a spectrogram or where patches are cut out, or of the data with themselves, leave
    data what they are. Weights that the data scale are weights.
    """
    if not outputs:
        return set()
    traced = outputs[0].graph
    active = graph.dependents(traced, inputs)
    weights = _weights(traced, active)
    sources = [
        operation.outputs[0]
        for operation in traced.get_operations()
        if operation.name in active
        and operation.outputs
        and any(x.op.name in weights for x in _factors(operation))
    ]
    return graph.dependents(traced, sources)


def _weights(traced: graph.Graph, active: set[str]) -> set[str]:
    """Names of the operations that return weights.

    Where data are repeated along weights, as the scale of a kernel is, these are still
    weights. Where weights are repeated along data, as in a normalization, the data are
    still data.

    Args:
        traced: The graph.
        active: Names of the operations that depend on the data.
    """
    weights = {handle.op.name for handle in graph.variables(traced)}
    for operation in traced.get_operations():
        if any(x.op.name in weights for x in operation.inputs) and all(
            _is_repeated(x, y)
            for x in operation.inputs
            if x.op.name in active and x.op.name not in weights
            for y in operation.outputs
        ):
            weights.add(operation.name)
    return weights


def _is_repeated(x: Any, y: Any) -> bool:
    """Whether `y` has an axis, of more than one element, along which `x` has one."""
    if x.shape.rank is None or y.shape.rank is None or x.shape.rank > y.shape.rank:
        return False
    sizes = [1] * (y.shape.rank - x.shape.rank) + list(x.shape)
    return any(a == 1 and b != 1 for a, b in zip(sizes, y.shape, strict=True))


def _factors(operation: graph.Operation) -> Sequence[Any]:
    """The factors of the products in an operation, or the table that it looks up in."""
    if operation.type in ("Gather", "GatherV2", "ResourceGather"):
        return operation.inputs[:1]
    return operation.inputs if operation_macs.has_products(operation) else ()
