"""Reads a whole model: the rows of its table, and the products that come next."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from keras_sparseout.backend import tracing
from keras_sparseout.measure import (
    hooks,
    layer_selection,
    layer_sums,
    non_finite,
)
from keras_sparseout.summary import macs
from keras_sparseout.summary.model_macs import ModelMacs, original, tensors
from keras_sparseout.summary.table import COLUMNS, SparsityTable
from keras_sparseout.utils import validation

_SAMPLES = ("samples", "", 0, 0)


class ModelReader:
    """Traces a model, and finds the rows of its table and what multiplies them next.

    Args:
        model: A built Keras model.
        layers: List of what to list, as for `layer_selection.select`, or None.
        where: The side to measure, None for that of `layer_selection.all_layers`.
        metrics: Dict of streaming metrics by name.
    """

    def __init__(self, model, layers, where, metrics):
        self.model = model
        self.metrics = metrics
        self.named = layers is not None
        found = [
            w
            for w in layer_selection.all_layers(model)
            if not isinstance(w.layer, kl.InputLayer)
        ]
        self.inside = {
            w.name: [v.layer for v in layer_selection.all_layers(w.layer)]
            for w in found
        }
        if self.named:
            rows = layer_selection.select(model, layers, where)
        else:
            rows = [dataclasses.replace(w, side=where or w.side) for w in found]
        self.rows = {w.name: w for w in rows}
        self.found = {w.name: w for w in found}
        self.sizes, self.varying = {}, set()
        self.totals, self.uncounted = {}, {}
        self.step = tf.function(self._trace, autograph=False, reduce_retracing=True)
        # Traced once for all layers of one shape.
        self.layer_sums = tf.function(
            lambda x, mask: [
                part for m in metrics.values() for part in m.sums(x, mask=mask)
            ],
            autograph=False,
        )

    def add(self, batch):
        """Adds a batch to the totals, without the rows whose number of units varies."""
        sums = tracing.run(self.step, batch)
        sums = {k: [s.numpy() for s in parts] for k, parts in sums.items()}
        sizes = {}
        for key, parts in sums.items():
            if key[0] == "row":
                sizes.setdefault(key[1], {})[key] = [part.shape for part in parts]
        for name, size in sizes.items():
            if self.sizes.setdefault(name, size) != size:
                self.varying.add(name)
        if self.named and self.varying:
            raise ValueError(
                "`layers` must be layers with one number of units in all batches. "
                f"Received: {validation.some_of(sorted(self.varying))}. Leave it out, "
                "or give batches of one size."
            )
        for key, parts in sums.items():
            if key[0] != "row" or key[1] not in self.varying:
                layer_sums.add(self.totals, key, parts)

    def _trace(self, batch):
        graph = tracing.graph_of(batch)
        size = tf.shape(keras.tree.flatten(batch)[0])[0]
        sums, inner = {_SAMPLES: [tf.cast(size, "int64")]}, set()
        self.shapes, self.calls = {}, {}
        seen, starts, ends, self.called = {}, {}, {}, set()

        def record(watched, x, mask):
            name, side = watched.name, watched.side
            if tracing.graph_of(x) is not graph:
                inner.add(name)
                return
            self.called.add(name)
            if side == "input":
                starts.setdefault(name, []).append((x, mask))
            if side == "output":
                ends.setdefault(name, []).append(x)
            if self.rows.get(name) != watched:
                return
            if not x.dtype.is_floating or len(x.shape) < 2:
                if not self.named:
                    return
                raise ValueError(
                    "`layers` must be layers whose activations are floating-point "
                    "numbers of samples and features. Received: "
                    f"{name} with {x.dtype.name} of shape {x.shape}. Leave it out."
                )
            # One ReLU may serve layers of different size, which have rows of their own.
            key = ("row", name, len(x.shape), x.shape[-1] or 0)
            layer_sums.add(sums, key, self.layer_sums(x, mask))
            self.calls[key] = self.calls.get(key, 0) + 1
            self.shapes[key] = _common(self.shapes.get(key), tuple(x.shape[1:]))
            seen.setdefault(key, []).append(original(watched.layer, x))

        counted = ModelMacs(self.model, self.found)
        # As in measure.probe.Probe: in the scope assignments go nowhere.
        with keras.StatelessScope(), hooks.Hooks(self._hooked(), record):
            outputs = self.model(batch, training=False)
            self.called -= inner
            for name in self.called & set(starts):
                if macs.is_counted(self.found[name].layer):
                    calls = zip(starts[name], ends[name], strict=True)
                    counted.count_layer(name, [(*start, y) for start, y in calls])
        self.called -= inner
        missed = [name for name in self.rows if name not in self.called]
        if self.named and missed:
            raise layer_selection.unreadable(missed, self.model)
        counted.count_elsewhere(tensors(batch), tensors(outputs))
        self.uncounted.update(counted.uncounted)
        barriers = counted.barriers | {
            original(self.found[name].layer, tensor).ref()
            for name, outputs in ends.items()
            if self._is_barrier(name)
            for tensor in outputs
        }
        behind = {key: macs.behind(x, barriers) for key, x in counted.starts.items()}
        self.next = {
            key: [k for k, met in behind.items() if any(x.ref() in met for x in xs)]
            for key, xs in seen.items()
        }
        rows = {k: s for k, s in sums.items() if k == _SAMPLES or k[1] in self.called}
        return {**rows, **counted.sums}

    def _hooked(self):
        """Returns what to read: the rows, and both sides of layers with products."""
        hooked = list(self.rows.values())
        for w in self.found.values():
            sides = ["input"] if macs.is_counted(w.layer) else []
            if any(
                isinstance(v, macs.BARRIERS) for v in (w.layer, *self.inside[w.name])
            ):
                sides.append("output")
            hooked += [dataclasses.replace(w, side=side) for side in sides]
        return list(dict.fromkeys(hooked))

    def _is_barrier(self, name):
        """Whether a layer has products, of its own or in layers that can't be read."""
        unread = {id(w.layer) for n, w in self.found.items() if n not in self.called}
        return isinstance(self.found[name].layer, macs.BARRIERS) or any(
            isinstance(v, macs.BARRIERS) and id(v) in unread for v in self.inside[name]
        )

    def table(self):
        """Returns the `SparsityTable` of the batches that were added."""
        totals, notes = self.totals, []
        keys = [key for name in self.rows for key in self.shapes if key[1] == name]
        keys = [key for key in keys if key in totals and self._is_listed(key)]
        keys = [key for key in keys if key[1] not in self.varying]
        causes = self._erase_broken()
        rows = [self._row(key, totals) for key in keys]
        by_kind = self._by_kind()
        if self.uncounted:
            notes.append(f"Products not counted: {', '.join(self.uncounted.values())}.")
        notes += [
            f"{key[1]} is called {self.calls[key]} times, all of which count."
            for key in keys
            if self.calls[key] > 1
        ]
        for cause in dict.fromkeys(causes.values()):
            names = [key[1] for key in keys if causes.get(key[1]) == cause]
            notes.append(f"NaN, since {cause}: {validation.some_of(names)}.")
        keys = [key for key in keys if key[1] not in causes]
        nan = [key[1] for key in keys if any(np.isnan(s).any() for s in totals[key])]
        if nan:
            names = validation.some_of(nan)
            notes.append(f"NaN or infinity among the activations of: {names}.")
        if self.varying:
            notes.append(
                "Left out, since their number of units varies between batches: "
                f"{validation.some_of(sorted(self.varying))}."
            )
        unread = [
            name
            for name, w in self.found.items()
            if name not in self.called and (not self.named or macs.is_counted(w.layer))
        ]
        if unread:
            notes.append(
                "Not read, since not called, or in an RNN cell, a loop or a "
                f"tf.function of its own: {validation.some_of(unread)}."
            )
        return SparsityTable(rows, by_kind, notes)

    def _erase_broken(self):
        """Sets figures that mean nothing to NaN; returns the causes by name of row."""
        causes = non_finite.invalid_layers(self.model, list(self.rows.values()))
        inputs = [dataclasses.replace(w, side="input") for w in self.found.values()]
        fed = non_finite.invalid_layers(self.model, inputs) if causes else {}
        for (kind, name, *_), sums in self.totals.items():
            if kind == "row" and name in causes:
                sums[:] = [np.full_like(s, np.nan) for s in sums]
            elif kind == "macs" and causes and (name in fed or name not in self.found):
                sums[0] = np.full_like(sums[0], np.nan)
        return causes

    def _by_kind(self):
        """Returns dict of (effective, all) MACs a sample by kind, the largest first."""
        samples, sums = self.totals[_SAMPLES][0], {}
        for key, counts in self.totals.items():
            if key[0] != "macs":
                continue
            if self.totals.get(("changed", *key[1:]), [0])[0]:
                words = "products with the states, which do not begin at zero"
                self.uncounted[key[1]] = f"{key[1]} ({words})"
                continue
            sums[key[2]] = sums.get(key[2], 0) + np.array(counts) / samples
        largest_first = sorted(sums.items(), key=lambda item: -item[1][1])
        return {kind: (float(m - n), float(m)) for kind, (n, m) in largest_first}

    def _is_listed(self, key):
        if self.named or isinstance(self.found[key[1]].layer, macs.BARRIERS):
            return True  # As a Dense layer with an activation that is a layer.
        listed = {id(self.rows[k[1]].layer) for k in self.shapes if k[1] in self.called}
        return not any(id(layer) in listed for layer in self.inside[key[1]])

    def _row(self, key, totals):
        counts = [totals[k] for k in self.next[key]]
        needless, total = np.sum(counts, axis=0) if counts else (0.0, 0.0)
        split = layer_sums.split(totals[key], self.metrics)
        values = (
            key[1],
            type(self.rows[key[1]].layer).__name__,
            self.shapes[key],
            *(float(metric.figure(*sums)) for _, metric, sums in split),
            float(needless / total) if total else None,
        )
        return dict(zip(COLUMNS, values, strict=True))


def _common(old, shape):
    if old is None:
        return shape
    return tuple(a if a == b else None for a, b in zip(old, shape, strict=True))
