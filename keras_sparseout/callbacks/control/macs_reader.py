"""What share of a model's multiply-accumulates the zeros of its layers save."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import graph, tracing
from keras_sparseout.measure import call_arguments
from keras_sparseout.measure.hooks import Around, Overrides
from keras_sparseout.measure.layer_calls import LayerCall, LayerCalls
from keras_sparseout.measure.probe_data import as_tensor
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.summary import model_trace
from keras_sparseout.summary.model_layers import ModelLayers
from keras_sparseout.summary.model_macs import Products
from keras_sparseout.utils.types import Tensor

# Trained, they make something else of zeros.
_MOVING_ZEROS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
)
# Numbers of (needless, all) products, by name.
_Counts: TypeAlias = dict[Products, np.ndarray]


@dataclasses.dataclass(frozen=True)
class InputProducts:
    """Products of a layer with its input in one call: a training step counts them.

    Attributes:
        layer: The layer.
        place: Where the input is read: the first layer that has the same activations at
            inference. Before noise, whose zeros are none at inference.
        call: Which call of the place it is.
        calls: How often the place is called in a pass through the model.
        shape: The shape that the layer gets a sample in, None if it is that of the
            place.
        share: Share of the model's MACs.
        needless: Share of these products that had a zero as a factor, at inference.
    """

    layer: WatchedLayer
    place: WatchedLayer
    call: int
    calls: int
    shape: tuple[int, ...] | None
    share: float = 0.0
    needless: float = 0.0


@dataclasses.dataclass(frozen=True)
class MacsShares:
    """What the zeros of layers save.

    Attributes:
        of_layers: Dict of the share of the model's MACs that zeros of a layer alone can
            make needless, by name. What several layers save together is split evenly.
        zeros: Dict of the layers' shares of zeros, by name.
        products: What a training step counts.
        rest: The needless share of the model's MACs among all others.
        most: The needless share of the model's MACs, if all activations of the layers
            are zero.
    """

    of_layers: dict[str, float]
    zeros: dict[str, float]
    products: tuple[InputProducts, ...]
    rest: float
    most: float


class MacsReader:
    """Counts a model's multiply-accumulates (MACs) as `activation_sparsity` does.

    Args:
        model: A built model.
        watched: The layers whose zeros are to save them.
    """

    def __init__(self, model: keras.Model, watched: Sequence[WatchedLayer]) -> None:
        self.model = model
        self.watched = watched
        self._layers = ModelLayers(model, None, None)
        self._step = tracing.graph_function(self._traced)
        self._silent_step = tracing.graph_function(self._traced_silent)
        self._trace: model_trace.ModelTrace
        self._sources: dict[Products, set[str]] = {}
        self._places: dict[Products, InputProducts] = {}

    def shares(self, batch: Any) -> MacsShares:
        """Returns what the layers' zeros save, from a batch of the model's inputs."""
        batch = keras.tree.map_structure(as_tensor, batch)
        zeros, counts = _run(self._step, batch)
        _, silent = _run(self._silent_step, batch)
        total = sum(macs[1] for p, macs in counts.items() if not p.factor) or 1.0
        of_layers = dict.fromkeys((w.name for w in self.watched), 0.0)
        for products, names in self._sources.items():
            if products in counts and names:
                # With zeros in all layers: less than 1 behind BatchNormalization, say.
                saved = silent.get(products, np.zeros(2))[0]
                for name in names:
                    of_layers[name] += float(saved / total / len(names))
        counted = tuple(
            dataclasses.replace(
                place, share=float(own[1] / total), needless=float(own[0] / own[1])
            )
            for p, place in self._places.items()
            if (own := counts.get(p)) is not None and own[1]
        )
        return MacsShares(
            of_layers,
            {name: float(a / b) if b else 0.0 for name, (a, b) in zeros.items()},
            counted,
            _needless(counts) - sum(p.share * p.needless for p in counted),
            _needless(silent),
        )

    def measure(self, batches: Iterable[Any]) -> float:
        """Returns the share of the MACs that have a zero as a factor, on data."""
        sums: _Counts = {}
        for batch in batches:
            batch = keras.tree.map_structure(as_tensor, batch)
            for products, own in _run(self._step, batch)[1].items():
                sums[products] = sums.get(products, 0.0) + own
        return _needless(sums)

    def _traced(self, batch: Any) -> Any:
        both = [
            dataclasses.replace(w, side=side)
            for w in self._layers.all.values()
            for side in ("input", "output")
        ]
        step = LayerCalls(self.model, list(dict.fromkeys([*both, *self.watched])))
        with step.reading():
            self._trace = model_trace.trace(self.model, self._layers, _no_sums, batch)
        self._sources = self._find_sources(step)
        self._places = _find_places(self._trace, step)
        zeros: dict[str, list[Tensor]] = {w.name: [] for w in self.watched}
        for w, x, *_ in step.seen:
            if w in self.watched:
                is_zero = ops.equal(x, ops.zeros((), x.dtype))
                zeros[w.name].append(_mean_and_one(is_zero))
        sums = {name: sum(own[1:], own[0]) for name, own in zeros.items() if own}
        return sums, self._trace.sums.macs, self._trace.sums.mismatches

    def _traced_silent(self, batch: Any) -> Any:
        layers = (w.layer for w in self._layers.all.values())
        moved = [v for v in layers if isinstance(v, _MOVING_ZEROS)]
        changes = [(w.layer, "call", _silenced(w)) for w in self.watched]
        # Before training they may leave zeros where they are.
        with Overrides([*changes, *((v, "call", _add_one) for v in moved)]):
            sums = model_trace.trace(self.model, self._layers, _no_sums, batch).sums
        return {}, sums.macs, sums.mismatches

    def _find_sources(self, step: LayerCalls) -> dict[Products, set[str]]:
        """Returns the layers of `watched` whose activations come next to products."""
        names = {
            call.tensor.name: call.watched.name
            for call in step.seen
            if call.watched in self.watched
        }
        # Up to the nearest of them: a shortcut also leads to earlier ones.
        barriers = self._trace.barriers | set(names)
        return {
            products: {
                names[tensor]
                for tensor in graph.activations_behind(x, barriers)
                if tensor in names
            }
            for products, x in self._trace.inputs.items()
        }


def _find_places(
    trace: model_trace.ModelTrace, step: LayerCalls
) -> dict[Products, InputProducts]:
    """Returns the products that a training step can count, without their shares."""
    inputs: dict[str, list[Any]] = {}
    outputs: list[tuple[int, LayerCall]] = []
    calls: dict[WatchedLayer, int] = {}
    for own in step.seen:
        w = own.watched
        if w.name not in trace.called:
            continue
        number = calls[w] = calls.get(w, 0) + 1
        if w.side == "input":
            inputs.setdefault(w.name, []).append((w, own.x))
        else:
            outputs.append((number - 1, own))
    places: dict[Products, InputProducts] = {}
    for products in trace.inputs:
        if products.factor or products.layer not in inputs:
            continue
        number = int(products.part.rsplit(" ", 1)[-1])
        layer, x = inputs[products.layer][number]
        origins, sizes = tracing.origins([x]), tuple(x.shape[1:])
        place: tuple[WatchedLayer, int, Any] = (layer, number, None)
        for call, own in outputs:
            same = tuple(own.x.shape[1:]) == sizes
            if own.tensor.ref() in origins and (same or None not in sizes):
                place = (own.watched, call, None if same else sizes)
                break
        where, call, shape = place
        places[products] = InputProducts(layer, where, call, calls[where], shape)
    return places


def _run(step: Any, batch: Any) -> tuple[dict[str, np.ndarray], _Counts]:
    """Returns zeros by layer, and the counts that hold."""
    zeros, macs, mismatches = keras.tree.map_structure(
        ops.convert_to_numpy, tracing.run(step, batch)
    )
    counts = {p: np.array(own, "float64") for p, own in macs.items()}
    return zeros, {p: own for p, own in counts.items() if not mismatches.get(p)}


def _needless(counts: _Counts) -> float:
    sums = sum((own for p, own in counts.items() if not p.factor), np.zeros(2))
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def _silenced(watched: WatchedLayer) -> Around:
    """Returns a function around a layer's call, with zeros for its activations."""

    def call_silenced(call: Any, *args: Any, **kwargs: Any) -> Any:
        if watched.side == "input":
            args, kwargs = call_arguments.with_first(
                watched.layer, _first_silenced, args, kwargs
            )
            return call(*args, **kwargs)
        return _first_silenced(call(*args, **kwargs))

    return call_silenced


def _add_one(call: Any, *args: Any, **kwargs: Any) -> Any:
    return call(*args, **kwargs) + 1


def _first_silenced(structure: Any) -> Any:
    flat = keras.tree.flatten(structure)
    # A product, not zeros: so it depends on what it comes from, as before.
    flat[0] = flat[0] * ops.zeros((), flat[0].dtype)
    return keras.tree.pack_sequence_as(structure, flat)


def _mean_and_one(is_zero: Tensor) -> Tensor:
    return ops.stack([ops.mean(ops.cast(is_zero, "float32")), ops.ones(())])


def _no_sums(x: Tensor, mask: Tensor | None) -> list[Tensor]:
    return []
