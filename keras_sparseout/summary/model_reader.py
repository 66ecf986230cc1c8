"""Reads a model batch by batch, and makes its table."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_sparseout.backend import tracing
from keras_sparseout.measure import layer_sums, non_finite
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.summary import layer_macs, model_trace
from keras_sparseout.summary.model_layers import ModelLayers
from keras_sparseout.summary.model_macs import Products
from keras_sparseout.summary.model_trace import ModelTrace, Row, Sums
from keras_sparseout.summary.table import COLUMNS, SparsityTable
from keras_sparseout.utils.types import Tensor
from keras_sparseout.utils.validation import some_of


class ModelReader:
    """Adds up the figures of a model over batches, and makes its table.

    Args:
        model: A built Keras model.
        layers: List of layers to list, as for `layer_selection.select`, or None.
        where: The side to measure, None for the default of each layer.
        metrics: Dict of streaming metrics by name.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[LayerChoice] | None,
        where: Literal["input", "output"] | None,
        metrics: Mapping[str, StreamingMetric],
    ) -> None:
        self.model = model
        self.layers = ModelLayers(model, layers, where)
        self.metrics = metrics
        self._trace: ModelTrace
        self._step = tracing.graph_function(self._traced_sums)
        # Many layers have activations of the same shape.
        self._metric_sums = tracing.traced_per_shape(
            lambda x, mask: [s for m in metrics.values() for s in m.sums(x, mask=mask)]
        )
        self._samples = 0
        self._rows: dict[Row, list[np.ndarray]] = {}
        self._macs: dict[Products, list[np.ndarray]] = {}
        self._mismatches: dict[Products, float] = {}
        self._uncounted: dict[str, str] = {}
        self._sizes: dict[str, dict[Row, list[tuple[int, ...]]]] = {}
        self._varying: set[str] = set()

    def prepare(self, batch: Any) -> None:
        """Traces the model for batches like `batch` of any size, if it takes them."""
        tracing.prepare(self._step, self.model, batch)

    def add(self, batch: Any) -> None:
        """Adds a batch, without the rows whose number of units varies."""
        sums = tracing.run(self._step, batch)
        rows = {row: _arrays(own) for row, own in sums.rows.items()}
        self._find_varying(rows)
        self._samples += int(sums.samples)
        for row, arrays in rows.items():
            if row.layer not in self._varying:
                layer_sums.add(self._rows, row, arrays)
        for products, macs in sums.macs.items():
            layer_sums.add(self._macs, products, _arrays(macs))
        for products, number in sums.mismatches.items():
            before = self._mismatches.get(products, 0.0)
            self._mismatches[products] = before + float(number)

    def table(self) -> SparsityTable:
        """Returns the `SparsityTable` of the batches that were added."""
        measured = {row.layer for row in self._trace.rows}
        rows = [
            row
            for name in self.layers.listed
            for row in self._trace.rows
            if row.layer == name
            and row in self._rows
            and name not in self._varying
            and self.layers.has_row(name, measured)
        ]
        causes = self._erase_invalid()
        return SparsityTable(
            [self._cells(row) for row in rows],
            self._macs_by_kind(),
            self._notes(rows, causes),
        )

    def _traced_sums(self, batch: Any) -> Sums:
        self._trace = model_trace.trace(
            self.model, self.layers, self._metric_sums, batch
        )
        self._uncounted.update(self._trace.uncounted)
        return self._trace.sums

    def _find_varying(self, rows: dict[Row, list[np.ndarray]]) -> None:
        """Finds the layers whose number of units is not that in the first batch."""
        sizes: dict[str, dict[Row, list[tuple[int, ...]]]] = {}
        for row, arrays in rows.items():
            sizes.setdefault(row.layer, {})[row] = [a.shape for a in arrays]
        for name, size in sizes.items():
            if self._sizes.setdefault(name, size) != size:
                self._varying.add(name)
        if self.layers.named and self._varying:
            raise ValueError(
                "`layers` must be layers with one number of units in all batches. "
                f"Received: {some_of(sorted(self._varying))}. Leave it out, "
                "or give batches of one size."
            )

    def _erase_invalid(self) -> dict[str, str]:
        """Replaces figures that mean nothing with NaN; returns the causes by layer."""
        listed = list(self.layers.listed.values())
        causes = non_finite.invalid_layers(self.model, listed)
        if not causes:
            return {}
        inputs = [
            dataclasses.replace(w, side="input") for w in self.layers.all.values()
        ]
        invalid_inputs = non_finite.invalid_layers(self.model, inputs)
        for row, sums in self._rows.items():
            if row.layer in causes:
                sums[:] = [np.full_like(s, np.nan) for s in sums]
        for products, macs in self._macs.items():
            invalid = (
                products.layer in invalid_inputs
                or products.layer not in self.layers.all
            )
            if invalid and not products.factor:
                macs[0] = np.full_like(macs[0], np.nan)
        return causes

    def _macs_by_kind(self) -> dict[str, tuple[float, float]]:
        """Returns dict of (effective, all) MACs a sample by kind, the largest first."""
        by_kind: dict[str, tuple[float, float]] = {}
        for products, (needless, total) in self._macs.items():
            if not products.factor and not self._mismatches.get(products):
                effective, all_macs = by_kind.get(products.kind, (0.0, 0.0))
                by_kind[products.kind] = (
                    effective + float(total - needless) / self._samples,
                    all_macs + float(total) / self._samples,
                )
        return dict(sorted(by_kind.items(), key=lambda item: -item[1][1]))

    def _cells(self, row: Row) -> dict[str, Any]:
        """Returns a row of the table, by column."""
        facts = self._trace.rows[row]
        macs = [self._macs[products] for products in facts.next]
        needless, total = np.sum(macs, axis=0) if macs else (0.0, 0.0)
        figures = layer_sums.split(self._rows[row], self.metrics)
        cells = (
            row.layer,
            type(self.layers.all[row.layer].layer).__name__,
            facts.shape,
            *(float(metric.figure(*sums)) for _, metric, sums in figures),
            float(needless / total) if total else None,
        )
        return dict(zip(COLUMNS, cells, strict=True))

    def _notes(self, rows: Sequence[Row], causes: Mapping[str, str]) -> list[str]:
        """Returns the lines below the table."""
        notes = []
        states = "products with the states, which do not begin at zero"
        begun = {
            c.layer: f"{c.layer} ({states})" for c, n in self._mismatches.items() if n
        }
        uncounted = {**self._uncounted, **begun}
        if uncounted:
            notes.append(f"Products not counted: {', '.join(uncounted.values())}.")
        calls = [(row.layer, self._trace.rows[row].calls) for row in rows]
        notes += [
            f"{name} is called {number} times, all of which count."
            for name, number in calls
            if number > 1
        ]
        for cause in dict.fromkeys(causes.values()):
            names = [row.layer for row in rows if causes.get(row.layer) == cause]
            notes.append(f"NaN, since {cause}: {some_of(names)}.")
        nan = [
            row.layer
            for row in rows
            if row.layer not in causes
            and any(np.isnan(sums).any() for sums in self._rows[row])
        ]
        if nan:
            notes.append(f"NaN or infinity among the activations of: {some_of(nan)}.")
        if self._varying:
            notes.append(
                "Left out, since their number of units varies between batches: "
                f"{some_of(sorted(self._varying))}."
            )
        unread = [
            name
            for name, w in self.layers.all.items()
            if name not in self._trace.called
            and (not self.layers.named or layer_macs.is_countable(w.layer))
        ]
        if unread:
            notes.append(
                "Not read, since not called, or in an RNN cell, a loop or a "
                f"tf.function of its own: {some_of(unread)}."
            )
        return notes


def _arrays(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]
