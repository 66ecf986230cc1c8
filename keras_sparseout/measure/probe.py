"""Measures layers on probe data, without training."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import tracing
from keras_sparseout.measure.layer_calls import LayerCalls
from keras_sparseout.measure.layer_selection import unreadable
from keras_sparseout.measure.layer_sums import (
    Metrics,
    add,
    check_same_units,
    layer_sums,
    required,
)
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.types import Tensor


class Probe:
    """Measures layers on given data, without training.

    The hooks are in place only while one function is traced. It returns the sums and
    not the activations. So the hooks cost nothing when it runs.

    Args:
        model: A built Keras model.
        watched: The layers, from `layer_selection.select`.
        metrics: Dict of streaming metrics by name. Optional ones are not measured.
        named: Whether the user named the layers. One that can't be read is then an
            error; otherwise it is left out.

    Attributes:
        watched: The layers that are measured.
        left_out: Dict of reasons, by name, for those that are not.
    """

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[WatchedLayer],
        metrics: Metrics,
        *,
        named: bool = True,
    ) -> None:
        self.model = model
        self.watched = watched
        self.metrics = required(metrics)
        self.named = named
        self.left_out: dict[str, str] = {}
        self._calls: dict[str, int] = {}
        self._step = tracing.graph_function(self._trace)

    def calls(self) -> dict[str, int]:
        """Returns how often the model calls each layer, by name."""
        return dict(self._calls)

    def measure(self, batches: Iterable[Any]) -> dict[str, list[np.ndarray]]:
        """Returns the sums over `batches` of model inputs, by layer."""
        totals: dict[str, list[np.ndarray]] = {}
        for batch in batches:
            for name, sums in tracing.run(self._step, batch).items():
                own = [ops.convert_to_numpy(s) for s in sums]
                # The step does not always know its number of units.
                watched = next(w for w in self.watched if w.name == name)
                shapes = [s.shape for s in totals.get(name, own)]
                check_same_units(watched, shapes, [s.shape for s in own])
                add(totals, name, own)
        return totals

    def _trace(self, batch: Any) -> dict[str, list[Tensor]]:
        step = LayerCalls(self.model, self.watched)
        # In the scope assignments to variables have no effect: recurrent states, and
        # the seeds of layers that draw even at inference, do not change.
        with keras.StatelessScope(), step.reading():
            self.model(batch, training=False)
        if not self.named:
            self.left_out.update(step.left_out())
            self.watched = [w for w in self.watched if w.name not in self.left_out]
        unread = step.unread()
        if unread and (self.named or not self.watched):
            raise unreadable(unread, self.model, named=self.named)
        self._calls = step.calls()
        totals: dict[str, list[Tensor]] = {}
        for watched, x, mask, _ in step.seen:
            if watched.name in self.left_out:
                continue
            sums = layer_sums(watched, self.metrics, x, mask)
            before = totals.get(watched.name, sums)
            check_same_units(
                watched, [s.shape for s in before], [s.shape for s in sums]
            )
            add(totals, watched.name, sums)
        return totals
