"""Measures a model with thresholds: zeros, and the products that they make needless."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import tracing
from keras_sparseout.measure import layer_sums
from keras_sparseout.models.thresholds.calibrator import for_all_axes
from keras_sparseout.summary import model_trace
from keras_sparseout.summary.model_layers import ModelLayers
from keras_sparseout.summary.model_macs import Products
from keras_sparseout.utils.types import Tensor


class Measured(NamedTuple):
    """The figures of a model.

    Attributes:
        samples: How many samples were read.
        macs: Multiply-accumulates a sample of the whole model.
        effective: How many of them have no zero activation as a factor.
        zeros: The share of zeros at each place.
        needless: The share of needless products that come next, at each place; NaN
            where there are none.
        next: (effective, all) multiply-accumulates that come next, at each place.
        uncounted: What is not counted, in words.
    """

    samples: int
    macs: float
    effective: float
    zeros: list[float]
    needless: list[float]
    next: list[tuple[float, float]]
    uncounted: list[str]

    @property
    def share(self) -> float:
        """The share of the multiply-accumulates that are effective."""
        return self.effective / self.macs if self.macs else 1.0


class PlaceReader:
    """Measures the outputs of layers that were inserted, and counts a model's MACs.

    Args:
        model: The model.
        inserted: The layers, in the order of the places.
    """

    def __init__(
        self, model: keras.Model, inserted: Sequence[keras.layers.Layer]
    ) -> None:
        self.model = model
        self._layers = ModelLayers(model, inserted, "output")
        paths = {id(w.layer): name for name, w in self._layers.all.items()}
        self._names = [paths[id(layer)] for layer in inserted]
        self._step = tracing.graph_function(self._traced)
        self._trace: model_trace.ModelTrace

    def measure(self, batches: Iterable[Any]) -> Measured:
        """Returns the figures on data."""
        rows: dict[str, list[np.ndarray]] = {}
        macs: dict[Products, list[np.ndarray]] = {}
        mismatches: dict[Products, float] = {}
        samples = 0
        for batch in batches:
            if not hasattr(self, "_trace"):
                tracing.prepare(self._step, self.model, batch)
            sums = tracing.run(self._step, batch)
            samples += int(sums.samples)
            for row, own in sums.rows.items():
                layer_sums.add(rows, row.layer, [_number(s) for s in own])
            for products, counted in sums.macs.items():
                layer_sums.add(macs, products, [_number(m) for m in counted])
            for products, number in sums.mismatches.items():
                mismatches[products] = mismatches.get(products, 0.0) + _number(number)
        counted = [m for p, m in macs.items() if not p.factor and not mismatches.get(p)]
        needless, total = np.sum(counted, axis=0) if counted else (0.0, 0.0)
        uncounted = dict(self._trace.uncounted)
        for products in (p for p, number in mismatches.items() if number):
            uncounted[products.layer] = f"{products.layer} (products with the states)"
        parts = [self._next(name, macs) for name in self._names]
        return Measured(
            samples,
            total / samples,
            (total - needless) / samples,
            [_ratio(rows[name][0], rows[name][1]) for name in self._names],
            [_ratio(needless, total) for needless, total in parts],
            [((t - n) / samples, t / samples) for n, t in parts],
            list(uncounted.values()),
        )

    def _traced(self, batch: Any) -> model_trace.Sums:
        self._trace = model_trace.trace(self.model, self._layers, _zeros, batch)
        return self._trace.sums

    def _next(
        self, name: str, macs: dict[Products, list[np.ndarray]]
    ) -> tuple[float, float]:
        """Returns the needless products that come next at a place, and all of them."""
        products = {
            p
            for row, facts in self._trace.rows.items()
            if row.layer == name
            for p in facts.next
        }
        own = [macs[p] for p in products]
        needless, total = np.sum(own, axis=0) if own else (0.0, 0.0)
        return float(needless), float(total)


def _zeros(x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Returns how many activations are zero, and how many there are."""
    counts = ops.ones_like(x, "float64")
    mask = for_all_axes(mask, x)
    if mask is not None:
        counts *= ops.cast(mask, "float64")
    is_zero = ops.cast(ops.equal(x, ops.zeros((), x.dtype)), "float64")
    return [ops.sum(is_zero * counts), ops.sum(counts)]


def _number(tensor: Tensor) -> Any:
    return ops.convert_to_numpy(tensor)[()]


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else float("nan")
