"""Traces one call of a model: its activations, and the products that come next."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from keras_sparseout.backend import graph, operation_macs
from keras_sparseout.measure import hooks, layer_selection, layer_sums
from keras_sparseout.measure.layer_calls import LayerCall, LayerCalls
from keras_sparseout.summary import layer_macs
from keras_sparseout.summary.model_layers import ModelLayers
from keras_sparseout.summary.model_macs import ModelMacs, Products
from keras_sparseout.utils.types import Tensor

# Takes activations and their mask, returns the sums of all metrics.
MetricSums: TypeAlias = Callable[[Tensor, Tensor | None], list[Tensor]]


class Row(NamedTuple):
    """Names a row of the table.

    Attributes:
        layer: Name of the layer.
        rank: Number of dimensions of its activations.
        units: Number of their units, 0 if unknown. One ReLU may serve layers of
            different size, and has a row for each.
    """

    layer: str
    rank: int
    units: int


class Sums(NamedTuple):
    """What a batch adds to the table, in tensors.

    Attributes:
        samples: Number of samples.
        rows: Dict of the sums of all metrics, by `Row`.
        macs: Dict of `Macs`, by `Products`.
        mismatches: Dict of numbers by `Products`, as in `ModelMacs`.
    """

    samples: Tensor
    rows: dict[Row, list[Tensor]]
    macs: dict[Products, operation_macs.Macs]
    mismatches: dict[Products, Tensor]


@dataclasses.dataclass
class RowFacts:
    """What tracing the model tells about a row.

    Attributes:
        shape: Shape of one sample's activations, None where it varies.
        calls: How often the layer is called.
        tensors: Names of the activations, one a call.
        next: The products that multiply these activations next.
    """

    shape: tuple[int | None, ...]
    calls: int = 0
    tensors: set[str] = dataclasses.field(default_factory=set)
    next: list[Products] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ModelTrace:
    """A traced call of a model.

    Attributes:
        sums: The sums of the batch.
        rows: Dict of `RowFacts` by `Row`, in the order of the calls.
        called: Names of the layers that could be read.
        uncounted: Dict of products that are not counted, in words, by layer.
        inputs: Dict by `Products` of the activations that are multiplied, as in
            `ModelMacs`.
        barriers: Names of the tensors that products return: new activations.
    """

    sums: Sums
    rows: dict[Row, RowFacts]
    called: set[str]
    uncounted: dict[str, str]
    inputs: dict[Products, Tensor]
    barriers: set[str]


def trace(
    model: keras.Model, layers: ModelLayers, metric_sums: MetricSums, batch: Any
) -> ModelTrace:
    """Calls a model with a batch, within a function that is being traced."""
    step = LayerCalls(model, layers.to_read())
    counted = ModelMacs(model, layers.all)
    # In the scope assignments to variables have no effect: recurrent states, and the
    # seeds of layers that draw even at inference, do not change.
    with keras.StatelessScope():
        with step.reading(), counted.noting_scopes():
            outputs = model(batch, training=False)
        called = set(step.calls())
        unread = [name for name in layers.listed if name not in called]
        if layers.named and unread:
            raise layer_selection.unreadable(unread, model)
        _count_layers(counted, layers, step, called)
    counted.count_operations(graph.tensors_in(batch), graph.tensors_in(outputs))

    rows, row_sums = _measure_rows(layers, step, called, metric_sums)
    barriers = _barriers(layers, step, called) | counted.outputs
    _find_next(rows, counted, barriers)
    samples = ops.cast(ops.shape(keras.tree.flatten(batch)[0])[0], "int64")
    sums = Sums(samples, row_sums, counted.macs, counted.mismatches)
    return ModelTrace(sums, rows, called, counted.uncounted, counted.inputs, barriers)


def _count_layers(
    counted: ModelMacs, layers: ModelLayers, step: LayerCalls, called: set[str]
) -> None:
    """Counts the products of the layers that could be read."""
    sides: dict[tuple[str, str], list[LayerCall]] = {}
    for call in step.seen:
        w = call.watched
        sides.setdefault((w.name, w.side), []).append(call)
    for name, w in layers.all.items():
        if name in called and layer_macs.is_countable(w.layer):
            inputs, outputs = (sides[name, side] for side in ("input", "output"))
            counted.count_layer(name, zip(inputs, outputs, strict=True))


def _measure_rows(
    layers: ModelLayers, step: LayerCalls, called: set[str], metric_sums: MetricSums
) -> tuple[dict[Row, RowFacts], dict[Row, list[Tensor]]]:
    """Returns what the trace tells about each row, and the sums of its metrics."""
    rows: dict[Row, RowFacts] = {}
    sums: dict[Row, list[Tensor]] = {}
    for w, x, mask, tensor in step.seen:
        if w.name not in called or layers.listed.get(w.name) != w:
            continue
        dtype, rank = keras.backend.standardize_dtype(x.dtype), hooks.rank_of(x)
        if not keras.backend.is_float_dtype(dtype) or rank < 2:
            if not layers.named:
                continue
            raise ValueError(
                "`layers` must be layers whose activations are floating-point "
                "numbers of samples and features. Received: "
                f"{w.name} with {dtype} of shape {x.shape}. Leave it out."
            )
        row, shape = Row(w.name, rank, x.shape[-1] or 0), tuple(x.shape[1:])
        facts = rows.setdefault(row, RowFacts(shape))
        facts.shape = tuple(
            a if a == b else None for a, b in zip(facts.shape, shape, strict=True)
        )
        facts.calls += 1
        facts.tensors.add(tensor.name)
        layer_sums.add(sums, row, metric_sums(x, mask))
    return rows, sums


def _barriers(layers: ModelLayers, step: LayerCalls, called: set[str]) -> set[str]:
    """Names of the tensors that are new activations, since layers multiplied."""
    names = layers.barriers(called)
    return {
        call.tensor.name
        for call in step.seen
        if call.watched.side == "output" and call.watched.name in names
    }


def _find_next(
    rows: dict[Row, RowFacts], counted: ModelMacs, barriers: set[str]
) -> None:
    """Finds the products that multiply the activations of each row next."""
    for products, x in counted.inputs.items():
        reached = graph.activations_behind(x, barriers)
        for facts in rows.values():
            if not facts.tensors.isdisjoint(reached):
                facts.next.append(products)
