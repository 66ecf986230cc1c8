"""The sums of the metrics of measured layers.

A layer's sums are a list: those of the first metric, then those of the second, and so
on, see `metrics.base.StreamingMetric`. Sums of several batches add up.
"""

import contextlib
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import compiling, numerics, tracing
from keras_sparseout.measure.hooks import rank_of
from keras_sparseout.measure.layer_calls import LayerCall
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.utils.types import Tensor

Metrics: TypeAlias = Mapping[str, StreamingMetric]
# Numbers, and None for an unknown number of units.
Shape: TypeAlias = tuple[Any, ...]
# Activations and their mask.
Activations: TypeAlias = tuple[Tensor, Tensor | None]

# Compiled functions, by metrics and kinds of activations.
_COMPILED: dict[tuple[Any, ...], Callable[..., list[Tensor]]] = {}
_MOST_COMPILED = 32
# Below 0 however many sums are added to it.
NOT_COUNTED = -1e15


def layer_sums(
    watched: WatchedLayer, metrics: Metrics, x: Tensor, mask: Tensor | None
) -> list[Tensor]:
    """Returns the sums of all `metrics` over one layer's activations."""
    if rank_of(x) < 2:
        raise ValueError(
            "`layers` must be layers whose activations have a batch and a feature "
            f"dimension. Received: {watched.name} with shape {getattr(x, 'shape', ())}."
            " Leave it out."
        )
    try:
        return [part for m in metrics.values() for part in m.sums(x, mask=mask)]
    except ValueError as error:
        raise ValueError(f"{error} `x` are the activations of {watched.name}.") from (
            error
        )


@numerics.unchecked()
def packed_sums(calls: Sequence[LayerCall], metrics: Metrics) -> list[Tensor]:
    """Returns the sums of all `metrics`, a vector for each call of a layer.

    Where it pays, one function computes all of them, compiled with XLA. As single
    operations they are some 20 for each metric and layer, and starting these takes
    longer than running them.
    """
    activations = [(call.x, call.mask) for call in calls]
    if (
        # In eager mode it would be compiled at each call.
        tracing.current_graph() is not None
        and all(metric.compiles for metric in metrics.values())
        and all(rank_of(x) and compiling.pays(x.shape) for x, _ in activations)
    ):
        # The code below raises the error again, with the name of the layer.
        with contextlib.suppress(ValueError):
            return _compiled(metrics, activations)(activations)
    return [_pack(layer_sums(w, metrics, x, mask)) for w, x, mask, _ in calls]


def _compiled(
    metrics: Metrics, activations: Sequence[Activations]
) -> Callable[[Sequence[Activations]], list[Tensor]]:
    """Returns a compiled function of `activations`: one for all of the same kind.

    XLA never frees what it has compiled. So new callbacks use the functions of old
    ones.
    """
    kinds: list[Any] = [(type(m), repr(m.get_config())) for m in metrics.values()]
    for tensor in keras.tree.flatten(activations):
        kinds.append(None if tensor is None else (tensor.dtype, repr(tensor.shape)))
    key = tuple(kinds)
    if key not in _COMPILED:

        @compiling.compiled
        def call(activations):
            return [
                _pack(part for m in metrics.values() for part in m.sums(x, mask=mask))
                for x, mask in activations
            ]

        _COMPILED[key] = call
        if len(_COMPILED) > _MOST_COMPILED:
            del _COMPILED[next(iter(_COMPILED))]
    return _COMPILED[key]


def _pack(sums: Iterable[Tensor]) -> Tensor:
    return ops.concatenate([ops.reshape(s, (-1,)) for s in sums])


def shapes(metrics: Metrics, units: int | None) -> list[Shape]:
    """Returns the shapes of the sums of a layer with `units` units."""
    return [shape for metric in metrics.values() for shape in metric.shapes(units)]


def size(shapes: Iterable[Shape]) -> int:
    """The length of a vector of sums that have these shapes."""
    return sum(shape[0] if shape else 1 for shape in shapes)


def unpacked(vector: Tensor, shapes: Iterable[Shape]) -> list[Tensor]:
    """Returns the sums of a layer, from their vector."""
    sums = []
    for shape in shapes:
        length = size([shape])
        sums.append(vector[:length].reshape(shape))
        vector = vector[length:]
    return sums


def uncounted(calls: Iterable[LayerCall]) -> set[str]:
    """Returns the names of layers without one number of units that is known.

    Optional metrics do without them.
    """
    widths: dict[str, set[int | None]] = {}
    for watched, x, *_ in calls:
        units = x.shape[-1] if rank_of(x) else None
        widths.setdefault(watched.name, set()).add(units)
    return {name for name, own in widths.items() if len(own) > 1 or None in own}


def required(metrics: Metrics) -> Metrics:
    """Returns the metrics that each layer must have."""
    return {name: metric for name, metric in metrics.items() if not metric.optional}


def fitted(
    call: LayerCall,
    vector: Tensor,
    metrics: Metrics,
    wanted: Sequence[Shape],
    *,
    counted: bool,
) -> Tensor:
    """Returns the sums of a layer's call as sums of the shapes `wanted`.

    Args:
        call: The call.
        vector: Its sums.
        metrics: The metrics.
        wanted: The shapes of the sums of the layer.
        counted: Whether optional metrics are possible. Otherwise, and where this call
            has other shapes, their sums are `NOT_COUNTED`.

    Raises:
        ValueError: if another metric has other shapes.
    """
    watched, x, *_ = call
    if counted and _are_same(wanted, shapes(metrics, x.shape[-1])):
        return vector
    own = shapes(required(metrics), x.shape[-1])
    needed = wanted[: len(own)]
    check_same_units(watched, needed, own)
    length = size(needed)
    if len(own) == len(wanted):
        return vector
    # The length of the vector may be unknown.
    kept = ops.reshape(vector[:length], (length,))
    return ops.concatenate([kept, np.full(size(wanted) - length, NOT_COUNTED)])


def _are_same(some: Iterable[Shape], others: Iterable[Shape]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(None in (*a, *b) or tuple(a) == tuple(b) for a, b in pairs)


def check_same_units(
    watched: WatchedLayer, shapes: Iterable[Shape], others: Iterable[Shape]
) -> None:
    """Raises unless the sums of one call of a layer have the shapes of another's."""
    for a, b in zip(shapes, others, strict=True):
        if not _are_same([a], [b]):
            raise ValueError(
                "`metrics` with a figure for each unit need layers with one number of "
                f"units. Received: {watched.name}, which is called with {a[0]} and "
                f"{b[0]} units. Leave it out of `layers`."
            )


def add(
    totals: MutableMapping[Any, list[Tensor]], name: Any, sums: list[Tensor]
) -> None:
    """Adds one layer's `sums` to its entry in `totals`."""
    old = totals.get(name)
    totals[name] = (
        sums if old is None else [a + b for a, b in zip(old, sums, strict=True)]
    )


def split(
    sums: Sequence[Tensor], metrics: Metrics
) -> Iterator[tuple[str, StreamingMetric, Sequence[Tensor]]]:
    """Yields (name, metric, the metric's own sums), from all sums of a layer."""
    start = 0
    for name, metric in metrics.items():
        stop = start + len(metric.shapes(None))
        yield name, metric, sums[start:stop]
        start = stop
