"""Statistics of BatchNormalization layers, recomputed by a pass over data."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import tracing, variables
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.call_arguments import first, named
from keras_sparseout.measure.hooks import Around, Overrides
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.types import Tensor

# Of one batch, for each call of a layer: counts, means and variances of the channels.
Moments: TypeAlias = dict[str, list[tuple[Tensor, Tensor, Tensor]]]


class Statistics(NamedTuple):
    """What a layer normalises by at inference, with a number for each channel."""

    mean: np.ndarray
    variance: np.ndarray


class BatchStatistics:
    """Recomputes what the BatchNormalization layers of a model normalise by.

    A layer's inputs x, over all samples, positions and calls, have the statistics

        mean = E[x],    variance = E[x^2] - E[x]^2

    where masked timesteps do not count. In the pass each of these layers normalises by
    its batch, as in training, and all else is as at inference: no noise is drawn, and
    no variable of the model changes. The batches are weighted by their samples.

    These are the layers that a training step of the model normalises by the batch: not
    those with `trainable=False`, and not those that are called with `training=False`.
    The model is traced as in training once, without running it, to tell which.

    Args:
        model: A built Keras model.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._traced: list[WatchedLayer] = []
        # Whether each call of a layer in a training step normalises by the batch.
        self._by_batch: dict[str, list[bool]] = {}
        self._step: tracing.GraphFunction = None

    def layers(self) -> list[WatchedLayer]:
        """Returns the BatchNormalization layers that training may move."""
        kind = keras.layers.BatchNormalization
        every = layer_selection.all_layers(self.model)
        norms = [w for w in every if isinstance(w.layer, kind) and w.layer.built]
        return [w for w in norms if w.layer.trainable]

    def obstacle(self) -> str | None:
        """Returns the name of a layer with a tf.function of its own, None without one.

        It would keep the graph of this pass for its later calls.
        """
        inside = [w.layer for w in layer_selection.all_layers(self.model)]
        for layer in (self.model, *inside):
            if tracing.is_tf_function(layer.call) and layer.non_trainable_variables:
                return layer.name
        return None

    def measure(self, batches: Iterable[Any]) -> dict[str, Statistics]:
        """Returns the statistics over `batches` of model inputs, by layer.

        Layers that such batches do not reach are missing, and those that are called in
        a loop, as an RNN's cell is.
        """
        sums: dict[str, np.ndarray] = {}
        for batch in batches:
            self._prepare(batch)
            if not any(map(any, self._by_batch.values())):
                return {}
            for name, calls in tracing.run(self._step, batch).items():
                for call in calls:
                    count, mean, variance = (_float64(part) for part in call)
                    added = count * [np.ones_like(mean), mean, variance + mean**2]
                    sums[name] = sums.get(name, 0) + added
        return {name: _statistics(s) for name, s in sums.items() if np.all(s[0])}

    def assign(self, statistics: Mapping[str, Statistics]) -> None:
        """Gives the layers of these names these statistics."""
        for w in self.layers():
            if w.name in statistics:
                _set_values(w.layer, statistics[w.name])

    def present(self) -> dict[str, Statistics]:
        """Returns the statistics that the layers have, by name."""
        return {
            w.name: Statistics(
                *(np.array(variables.to_numpy(v)) for v in _moving(w.layer))
            )
            for w in self.layers()
        }

    @contextlib.contextmanager
    def in_place(self, statistics: Mapping[str, Statistics]) -> Iterator[None]:
        """Gives the layers `statistics` for this context, and then their own back."""
        own = self.present()
        self.assign(statistics)
        try:
            yield
        finally:
            self.assign(own)

    def _prepare(self, batch: Any) -> None:
        """Traces the model, unless it was traced with the same layers."""
        layers = self.layers()
        if self._step is None or layers != self._traced:
            self._traced, self._by_batch = layers, {}
            with keras.StatelessScope():
                # Keras makes its global generator, which it can't while it traces.
                keras.random.randint((), 0, 2)
            tracing.traced(tracing.graph_function(self._in_training), batch)
            self._step = tracing.graph_function(self._by_batches)

    def _in_training(self, batch: Any) -> None:
        """Notes how a training step calls the layers."""
        noted: dict[str, list[bool]] = {}
        in_loops: set[str] = set()
        graph = tracing.current_graph()
        own = {w.name: _values(w.layer) for w in self._traced}

        def note(w: WatchedLayer, call: Around, /, *args: Any, **kwargs: Any) -> Any:
            if tracing.graph_of(first(w.layer, args, kwargs)) is not graph:
                # Their tensors can't be had. An RNN also calls its cell once outside of
                # its loop, and one timestep would stand for all.
                in_loops.add(w.name)
                outputs = call(*args, **kwargs)
                _set_values(w.layer, own[w.name])
                return outputs
            before = scope.get_current_value(w.layer.moving_mean)
            outputs = call(*args, **kwargs)
            moved = scope.get_current_value(w.layer.moving_mean) is not before
            noted.setdefault(w.name, []).append(moved)
            return outputs

        # In the scope assignments to variables have no effect outside of it.
        with keras.StatelessScope() as scope, Overrides(self._around_calls(note)):
            self.model(batch, training=True)
        self._by_batch = {n: calls for n, calls in noted.items() if n not in in_loops}

    def _by_batches(self, batch: Any) -> Moments:
        """Returns the moments of a batch, in which the layers normalise by it."""
        moments: Moments = {}
        left = {name: list(flags) for name, flags in self._by_batch.items()}
        graph = tracing.current_graph()

        def normalise(
            w: WatchedLayer, call: Around, /, *args: Any, **kwargs: Any
        ) -> Any:
            flags, inputs = left.get(w.name), first(w.layer, args, kwargs)
            by_batch = flags and flags.pop(0)
            if not by_batch or tracing.graph_of(inputs) is not graph:
                return call(*args, **kwargs)
            mask = named(w.layer, "mask", args, kwargs)
            count, mean, variance = _moments(inputs, mask, w.layer.axis)
            moments.setdefault(w.name, []).append((count, mean, variance))
            own = _values(w.layer)
            _set_values(w.layer, (mean, variance))
            outputs = call(*args, **kwargs)
            _set_values(w.layer, own)
            return outputs

        with keras.StatelessScope(), Overrides(self._around_calls(normalise)):
            self.model(batch, training=False)
        return moments

    def _around_calls(
        self, function: Around
    ) -> list[tuple[keras.layers.Layer, str, Around]]:
        return [(w.layer, "call", functools.partial(function, w)) for w in self._traced]


def _values(layer: keras.layers.BatchNormalization) -> list[Tensor]:
    """Returns the moving statistics of a layer as tensors."""
    # A cast reads a variable.
    return [ops.cast(variable, variable.dtype) for variable in _moving(layer)]


def _set_values(
    layer: keras.layers.BatchNormalization, values: Iterable[Tensor]
) -> None:
    for variable, value in zip(_moving(layer), values, strict=True):
        variable.assign(value)


def _moving(layer: keras.layers.BatchNormalization) -> tuple[keras.Variable, ...]:
    return layer.moving_mean, layer.moving_variance


def _moments(x: Tensor, mask: Tensor | None, axis: int) -> tuple[Tensor, ...]:
    """Returns the counts, means and variances of the channels of x."""
    x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    axes = [i for i in range(len(x.shape)) if i != axis % len(x.shape)]
    counted = ops.ones_like(x)
    if mask is not None:
        # As Keras has it: a mask has all axes but the last.
        mask = ops.broadcast_to(ops.expand_dims(mask, -1), ops.shape(x))
        counted = ops.cast(mask, x.dtype)
        x = ops.where(ops.cast(mask, "bool"), x, 0.0)
    count = ops.sum(counted, axes)
    whole = ops.maximum(count, 1.0)
    mean = ops.sum(x, axes) / whole
    shape = [1] * len(x.shape)
    shape[axis] = -1
    deviation = (x - ops.reshape(mean, shape)) * counted
    return count, mean, ops.sum(ops.square(deviation), axes) / whole


def _statistics(sums: np.ndarray) -> Statistics:
    count, total, squares = sums
    mean = total / count
    return Statistics(mean, np.maximum(squares / count - mean**2, 0.0))


def _float64(x: Tensor) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(x), "float64")
