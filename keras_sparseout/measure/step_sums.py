"""Measures layers inside the model's own training and test steps."""

import contextlib
import functools
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import keras
import numpy as np

from keras_sparseout.backend import tracing, train_step
from keras_sparseout.measure import layer_sums
from keras_sparseout.measure.hooks import rank_of
from keras_sparseout.measure.layer_calls import OUTPUT, LayerCall, LayerCalls
from keras_sparseout.measure.layer_selection import unreadable
from keras_sparseout.measure.packed_sums import PackedSums
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.types import Tensor

# The name of the number of steps among the sums; no layer has an empty name.
_STEPS = ""


class Control(Protocol):
    """Something that acts on layers in each step, and gets their sums."""

    @property
    def only_inner(self) -> bool:
        """Whether it acts on no layer whose output the model returns, by default."""

    def leave_out(self, names: Collection[str]) -> None:
        """Acts no more on these layers, whose outputs the model returns."""

    def acting(self) -> AbstractContextManager[None]:
        """Acts on the layers that are called in this context."""

    def update(self, sums: Mapping[str, Tensor]) -> None:
        """Takes the sums of a batch, a vector for each layer that was called."""


class StepSums:
    """Adds up layers' metrics inside the model's own steps.

    `arm` before each batch makes the model's next step measure, as
    `backend.train_step` explains: the hooks are in place while that step is traced, and
    its graph then also adds the sums to variables of ours. Between the batches the
    model is unchanged, and our variables never belong to the model. In a training loop
    that calls no step of the model, `reading` measures what is called in its context.

    Args:
        model: A Keras model.
        kind: Which steps to measure, "train" or "test".
        watched: The layers, from `layer_selection.select`.
        metrics: Dict of streaming metrics by name.
        sample_size: How many samples of each batch are measured: the first ones.
        missing: What to do with a layer that can't be read: "raise", "leave out", or
            "keep" it with sums of 0.
        control: What acts on the layers in each step, and gets their sums. None for
            nothing.

    Attributes:
        watched: The layers that are measured.
        left_out: Dict of reasons, by name, for those that are not.
    """

    def __init__(
        self,
        model: keras.Model,
        kind: Literal["train", "test"],
        watched: Sequence[WatchedLayer],
        metrics: layer_sums.Metrics,
        sample_size: int,
        missing: Literal["raise", "leave out", "keep"] = "raise",
        control: Control | None = None,
    ) -> None:
        self.model = model
        self.watched = self._candidates = watched
        self.metrics = metrics
        self.sample_size = sample_size
        self.missing = missing
        self._control = control
        self.left_out: dict[str, str] = {}
        self._calls: dict[str, int] = {}
        whole_step = functools.partial(self.reading, whole=True)
        self._step = train_step.MeasuredStep(model, kind, whole_step)
        # Replicas are traced in threads that take turns within a step.
        self._thread = threading.local()
        self._settled = False
        self._shapes: dict[str, list[layer_sums.Shape]] = {}
        # Layers without one number of units that is known.
        self._uncounted: set[str] = set()
        with model.distribute_strategy.scope():
            self._sums = PackedSums()
            units = {w.name: w.number_of_units() for w in watched}
            self._sums.make({_STEPS: 1, **self._sizes(units)})

    def check(self) -> None:
        """Raises if the model's step function is one that can't be measured."""
        if self.model.compiled:
            self._step.check()

    def arm(self) -> None:
        """Makes the next step of the model measure."""
        if self.model.compiled:
            self._step.arm()

    def disarm(self) -> None:
        """Undoes `arm`, if the model has made no step since."""
        self._step.disarm()

    def check_reached(self) -> None:
        """Raises unless a step and each layer were measured since the last `reset`."""
        if not self.steps():
            raise self._step.not_measured()
        self._check_unread()

    def steps(self) -> int:
        """Returns how many steps were measured since the last `reset`."""
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        return int(self._sums.totals()[_STEPS][0]) // replicas

    def calls(self) -> dict[str, int]:
        """Returns how often each layer was called in the step traced last, by name."""
        return dict(self._calls)

    def totals(self) -> dict[str, list[np.ndarray]]:
        """Returns the sums since the last `reset`, by layer, over all replicas."""
        vectors, totals = self._sums.totals(), {}
        for w in self.watched:
            shapes = self._shapes.get(w.name, layer_sums.shapes(self.metrics, 1))
            vector = vectors.get(w.name, np.zeros(layer_sums.size(shapes)))
            totals[w.name] = layer_sums.unpacked(vector, shapes)
        return totals

    def reset(self) -> None:
        """Sets the sums to 0."""
        self._sums.reset()

    @contextlib.contextmanager
    def reading(self, *, whole: bool = False) -> Iterator[None]:
        """Adds the metrics of the layers that are called in this context.

        Args:
            whole: Whether this is all of a step, so that a layer that is not called in
                it is missing.
        """
        if getattr(self._thread, "reads", False):  # In a step that is measured.
            yield
            return
        step = LayerCalls(self.model, self._candidates)
        variables = len(self.model.variables)
        self._thread.reads = True
        try:
            acting = self._control.acting if self._control else contextlib.nullcontext
            with acting(), step.reading():
                yield
        finally:
            self._thread.reads = False
        reasons = self._left_out(step)
        self._settle(step.calls(), reasons)
        # A step that makes variables is traced a second time.
        if whole and not self._settled and len(self.model.variables) == variables:
            self._settled = True
            if self.missing != "keep":
                # Now, before the first step runs: so far it is only traced.
                self._check_unread()
        self._add([call for call in step.seen if call.watched.name not in reasons])

    def _left_out(self, step: LayerCalls) -> dict[str, str]:
        """Returns which layers do not count; those it acts on have to be inner ones."""
        if self.missing != "leave out":
            return {}
        if self._control is None or not self._control.only_inner:
            return step.left_out()
        reasons = step.left_out(inner=True)
        known = {**reasons, **self.left_out}
        self._control.leave_out([n for n, reason in known.items() if reason == OUTPUT])
        return reasons

    def _settle(self, calls: dict[str, int], reasons: dict[str, str]) -> None:
        """Decides which layers count, from all that was traced so far."""
        self._calls = {**self._calls, **calls}
        self.left_out = {
            name: reason
            for name, reason in {**reasons, **self.left_out}.items()
            if reason == OUTPUT or name not in self._calls
        }
        self.watched = [w for w in self._candidates if w.name not in self.left_out]

    def _check_unread(self) -> None:
        unread = [w.name for w in self._candidates if w.name not in self._calls]
        all_unread = len(unread) == len(self._candidates)
        if unread and (self.missing == "raise" or all_unread):
            named = self.missing == "raise"
            raise unreadable(unread, self.model, named=named)

    def _add(self, calls: Iterable[LayerCall]) -> None:
        calls = [
            self._first_samples(call)
            for call in calls
            if call.watched.name in self._calls
        ]
        sums = layer_sums.packed_sums(calls, self.metrics)
        of_batch: dict[str, Tensor] = {}
        self._uncounted |= layer_sums.uncounted(calls)
        for call, vector in zip(calls, sums, strict=True):
            name, units = call.watched.name, call.x.shape[-1]
            if name not in self._sums:
                # In a model that is not built, sizes are unknown until now.
                with tracing.outside_graph():
                    self._sums.make(self._sizes({name: units}, last=True))
            if name not in self._sums:
                raise ValueError(
                    "`metrics` with a figure for each unit need layers with a known "
                    f"number of units. Received: {name} with shape {call.x.shape}. "
                    "Leave it out of `layers`."
                )
            told = call, vector, self.metrics, self._shapes[name]
            vector = layer_sums.fitted(*told, counted=name not in self._uncounted)
            of_batch[name] = of_batch[name] + vector if name in of_batch else vector
        self._sums.add({_STEPS: np.ones(1), **of_batch})
        if self._control is not None:
            self._control.update(of_batch)

    def _first_samples(self, call: LayerCall) -> LayerCall:
        x, mask = call.x, call.mask
        return call._replace(
            x=x[: self.sample_size] if rank_of(x) else x,
            mask=None if mask is None else mask[: self.sample_size],
        )

    def _sizes(
        self, units: Mapping[str, int | None], *, last: bool = False
    ) -> dict[str, int]:
        """Notes the shapes of layers' sums, and returns their sizes, where known.

        Args:
            units: Dict of their numbers of units by name, None if unknown.
            last: Whether no more can be known. Optional metrics do without.
        """
        sizes = {}
        own = layer_sums.shapes(layer_sums.required(self.metrics), None)
        for name, number in units.items():
            shapes = layer_sums.shapes(self.metrics, number)
            if last and number is None and None not in sum(own, ()):
                shapes = layer_sums.shapes(self.metrics, 1)
            if not any(None in shape for shape in shapes):
                self._shapes[name] = shapes
                sizes[name] = layer_sums.size(shapes)
        return sizes
