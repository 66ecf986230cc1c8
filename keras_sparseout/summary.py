"""activation_sparsity: how sparse the activations of a whole model are, in one call."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from keras_sparseout import hooks, macs, measuring, validation, watching
from keras_sparseout.data import ProbeData, check_fits
from keras_sparseout.frames import dataframe

_METRICS = ("hoyer", "zero_fraction", "dead_units", "rms")
_TEXTS = ("layer", "kind", "shape")
_COLUMNS = (*_TEXTS, "hoyer", "zeros", "dead", "rms", "needless_macs")
_BATCHES_WITHOUT_BAR = 20
_SAMPLES = ("samples", "", 0, 0)


def activation_sparsity(
    model, x, *, layers=None, where=None, axis=-1, batch_size=256, steps=None, verbose=1
):
    """Measures how sparse the activations of each layer of a model are, on data `x`.

    It runs the model as at inference and changes nothing: neither weights nor seeds
    nor recurrent states. The columns of the table:

    - `layer`: its path, "encoder/dense" for a nested one; `kind`: its class;
    - `shape`: of one sample's activations, channels last; None where it varies;
    - `hoyer`, `zeros`: the means over the samples of `metrics.hoyer` and
      `metrics.zero_fraction`, by the rules of `metrics.Hoyer`;
    - `dead`, `rms`: `metrics.dead_units` and `metrics.rms` of all samples;
    - `needless_macs`: the share of the multiply-accumulates (MACs) of the next Dense
      layer or convolution whose input is zero, None if there is no such layer.

    A convolution does not use all elements of its input alike: at borders, and with
    strides, an element takes part in fewer products. With `uses_i` the number of
    products w_j * x_i that a layer forms with element i of a sample, padding left out,

        macs = sum_i uses_i
        needless_macs = sum_i [x_i = 0] * uses_i / macs
        effective MACs = (1 - needless_macs) * macs

    as means over the samples. It is what hardware or code that skips zeros could save,
    not what TensorFlow does. The next layers are those that the activations reach
    without another Dense, EinsumDense, RNN or convolution in between: through
    activations, normalization, pooling, sums and custom layers. Their own inputs are
    looked at, so the linear layer and the ReLU after it have the same `needless_macs`.
    Of several next layers the MACs are added. A separable convolution counts with its
    depthwise stage; products in other layers (EinsumDense, RNN, attention) do not.

    Args:
        model: A Keras model. One that is not built is built by this.
        x: A numpy array or tensor, a tuple or dict of them for a model of several
            inputs (so without labels), a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of batches as for `fit`.
        layers: Which layers to list, as in `SparsityTracker`: layers, paths, regular
            expressions that match a whole path, or types. None: all that the model
            calls and whose activations are floating-point numbers of samples and
            features; of models and layers that contain others, those others.
        where: "input" or "output" of the layers. None: the input of Sparseout layers,
            the output of all others.
        axis: What the vectors of `hoyer` and `zeros` lie along: -1 for the units, in a
            convolution the channels at each position; None for a sample's whole map.
        batch_size: How many samples of arrays run at once.
        steps: How many batches of a data set to take; None for all.
        verbose: 1 for a progress bar if there are more than 20 batches, 0 for none.

    Returns:
        A `SparsityTable`: to print, or as `rows` or `to_dataframe()`.

    Raises:
        ValueError: if `x` is empty, endless or does not fit the model, an argument is
            none of the above, or a layer that `layers` names can't be read, or varies
            in its number of units from batch to batch.
        RuntimeError: if TensorFlow is set to run functions eagerly.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((2,)),
    ...     keras.layers.Dense(2, "relu", kernel_initializer="identity", name="hidden"),
    ...     keras.layers.Dense(1, kernel_initializer="ones", name="head"),
    ... ])
    >>> print(activation_sparsity(model, np.array([[1.0, -1.0], [2.0, 3.0]])))
    layer   kind   shape  hoyer  zeros   dead   rms  needless_macs
    hidden  Dense  (2,)   0.533  0.250  0.000  1.87          0.250
    head    Dense  (1,)     nan  0.000  0.000  3.61              -
    5.5 of 6 multiply-accumulates a sample are effective (92 %)
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model. Received: model={model!r}. Wrap a layer: "
            "keras.Sequential([layer])."
        )
    if tf.config.functions_run_eagerly():
        raise RuntimeError(
            "activation_sparsity needs the model's graph. Received: "
            "tf.config.functions_run_eagerly()=True. Call "
            "tf.config.run_functions_eagerly(False) before it."
        )
    layers, where = watching.check_layers(layers), validation.check_where(where)
    metrics = measuring.check_metrics(_METRICS, validation.check_axis(axis))
    data = ProbeData(x, batch_size=batch_size, steps=steps)
    first = _tensors(data.first())
    check_fits(model, first)
    watching.build(model, first)
    reader = _Reader(model, layers, where, metrics)
    if all(t.shape[0] is None for t in getattr(model, "inputs", None) or []):
        # So that a last batch of another size needs no other trace.
        reader.step.get_concrete_function(keras.tree.map_structure(_spec, first))
    totals, bar = {}, None
    for count, batch in enumerate(data, 1):
        if verbose and count > _BATCHES_WITHOUT_BAR:
            bar = bar or keras.utils.Progbar(None)
            bar.update(count)
        reader.add(totals, _tensors(batch))
    if bar is not None:
        bar.update(count, finalize=True)
    return reader.table(totals, samples=int(totals.pop(_SAMPLES)[0]))


class SparsityTable:
    """The figures of `activation_sparsity`.

    Attributes:
        rows: List of dicts by column, one a layer.
        macs: Multiply-accumulates a sample of all Dense layers and convolutions of the
            model that could be read, listed or not.
        effective_macs: How many of them have an input other than zero.
        notes: List of lines on what the figures leave out or hold.
    """

    def __init__(self, rows, macs, effective_macs, notes=()):
        self.rows = rows
        self.macs = macs
        self.effective_macs = effective_macs
        self.notes = list(notes)

    def to_dataframe(self):
        """Returns `rows` as a pandas.DataFrame, with NaN for None."""
        return dataframe(
            {
                c: [math.nan if row[c] is None else row[c] for row in self.rows]
                for c in _COLUMNS
            }
        )

    def __str__(self):
        cells = [
            _COLUMNS,
            *([_shown(c, row[c]) for c in _COLUMNS] for row in self.rows),
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if column in _TEXTS else cell.rjust(width)
                for column, cell, width in zip(_COLUMNS, line, widths, strict=True)
            ).rstrip()
            for line in cells
        ]
        if self.macs:
            lines.append(
                f"{_large(self.effective_macs)} of {_large(self.macs)} "
                "multiply-accumulates a sample are effective "
                f"({self.effective_macs / self.macs:.0%})".replace("%", " %")
            )
        return "\n".join([*lines, *self.notes])


class _Reader:
    """Traces a model once, and knows what of it is a row and what is next to it."""

    def __init__(self, model, layers, where, metrics):
        self.model = model
        self.metrics = metrics
        self.named = layers is not None
        found = [
            w for w in watching.find(model) if not isinstance(w.layer, kl.InputLayer)
        ]
        self.inside = {w.name: [v.layer for v in watching.find(w.layer)] for w in found}
        if self.named:
            rows = watching.select(model, layers, where)
        else:
            rows = [dataclasses.replace(w, side=where or w.side) for w in found]
        self.rows = {w.name: w for w in rows}
        self.found = {w.name: w for w in found}
        self.sizes, self.varying = {}, set()
        self.step = tf.function(self._trace, autograph=False, reduce_retracing=True)
        # Traced once for all layers of one shape.
        self.layer_sums = tf.function(
            lambda x, mask: [
                part for m in metrics.values() for part in m.sums(x, mask=mask)
            ],
            autograph=False,
        )

    def add(self, totals, batch):
        """Adds a batch to `totals`, without the rows whose number of units varies."""
        sums = {k: [s.numpy() for s in parts] for k, parts in self.step(batch).items()}
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
                f"Received: {', '.join(sorted(self.varying))}. Leave it out, or give "
                "batches of one size."
            )
        for key, parts in sums.items():
            if key[0] != "row" or key[1] not in self.varying:
                measuring.add(totals, key, parts)

    def _trace(self, batch):
        graph = hooks.graph_of(batch)
        size = tf.shape(keras.tree.flatten(batch)[0])[0]
        sums, inner = {_SAMPLES: [tf.cast(size, "int64")]}, set()
        self.shapes, self.calls = {}, {}
        tensors, starts, ends, self.called = {}, {}, {}, set()

        def record(watched, x, mask):
            name, side = watched.name, watched.side
            if hooks.graph_of(x) is not graph:
                inner.add(name)
                return
            self.called.add(name)
            if side == "input" and isinstance(watched.layer, macs.CONSUMERS):
                key = ("macs", name, len([k for k in starts if k[1] == name]), 0)
                starts[key] = x
                sums[key] = macs.count(watched.layer, x)
            if side == "output":
                ends.setdefault(name, []).append(_original(watched, x))
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
            measuring.add(sums, key, self.layer_sums(x, mask))
            self.calls[key] = self.calls.get(key, 0) + 1
            self.shapes[key] = _common(self.shapes.get(key), tuple(x.shape[1:]))
            tensors.setdefault(key, []).append(_original(watched, x))

        # As in measuring.Probe: in the scope assignments go nowhere.
        with keras.StatelessScope(), hooks.Hooks(self._hooked(), record):
            self.model(batch, training=False)
        self.called -= inner
        missed = [name for name in self.rows if name not in self.called]
        if self.named and missed:
            raise watching.unreached(missed, self.model)
        barriers = {
            tensor.ref()
            for name, outputs in ends.items()
            if self._is_barrier(name)
            for tensor in outputs
        }
        behind = {
            key: macs.behind(x, barriers)
            for key, x in starts.items()
            if key[1] in self.called
        }
        self.next = {
            key: [k for k, met in behind.items() if any(x.ref() in met for x in xs)]
            for key, xs in tensors.items()
        }
        return {k: s for k, s in sums.items() if k == _SAMPLES or k[1] in self.called}

    def _hooked(self):
        """Returns what to read: the rows, and both sides of layers with products."""
        hooked = list(self.rows.values())
        for w in self.found.values():
            sides = ["input"] if isinstance(w.layer, macs.CONSUMERS) else []
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

    def table(self, totals, samples):
        """Returns the `SparsityTable` of sums over all batches."""
        keys = [key for name in self.rows for key in self.shapes if key[1] == name]
        keys = [key for key in keys if key in totals and self._is_listed(key)]
        keys = [key for key in keys if key[1] not in self.varying]
        rows = [self._row(key, totals) for key in keys]
        counts = [sums for key, sums in totals.items() if key[0] == "macs"]
        needless, total = np.sum(counts, axis=0) if counts else (0.0, 0.0)
        notes = [
            f"{key[1]} is called {self.calls[key]} times, all of which count."
            for key in keys
            if self.calls[key] > 1
        ]
        nan = [key[1] for key in keys if any(np.isnan(s).any() for s in totals[key])]
        if nan:
            notes.append(f"NaN or infinity among the activations of: {', '.join(nan)}.")
        if self.varying:
            notes.append(
                "Left out, since their number of units varies between batches: "
                f"{', '.join(sorted(self.varying))}."
            )
        unread = [
            name
            for name, w in self.found.items()
            if name not in self.called
            and (not self.named or isinstance(w.layer, macs.CONSUMERS))
        ]
        if unread:
            notes.append(
                "Not read, since not called, or in an RNN cell, a loop or a "
                f"tf.function of its own: {', '.join(unread)}."
            )
        return SparsityTable(
            rows, float(total / samples), float((total - needless) / samples), notes
        )

    def _is_listed(self, key):
        if self.named or isinstance(self.found[key[1]].layer, macs.BARRIERS):
            return True  # As a Dense layer with an activation that is a layer.
        listed = {id(self.rows[k[1]].layer) for k in self.shapes if k[1] in self.called}
        return not any(id(layer) in listed for layer in self.inside[key[1]])

    def _row(self, key, totals):
        counts = [totals[k] for k in self.next[key]]
        needless, total = np.sum(counts, axis=0) if counts else (0.0, 0.0)
        split = measuring.split(totals[key], self.metrics)
        values = (
            key[1],
            type(self.rows[key[1]].layer).__name__,
            self.shapes[key],
            *(float(metric.figure(*sums)) for _, metric, sums in split),
            float(needless / total) if total else None,
        )
        return dict(zip(_COLUMNS, values, strict=True))


def _original(watched, x):
    """Returns the layer's own tensor, of which `Hooks` moved the channels last."""
    first = getattr(watched.layer, "data_format", None) == "channels_first"
    return x.op.inputs[0] if first and len(x.shape) > 2 else x


def _common(old, shape):
    if old is None:
        return shape
    return tuple(a if a == b else None for a, b in zip(old, shape, strict=True))


def _tensors(batch):
    return keras.tree.map_structure(tf.convert_to_tensor, batch)


def _spec(tensor):
    return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)


def _shown(column, value):
    if value is None:
        return "-"
    if column in _TEXTS:
        return str(value)
    return f"{value:.3g}" if column == "rms" else f"{value:.3f}"


def _large(number):
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.3g}"
