"""Measuring activations inside the model's own training and test steps."""

import contextlib
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_sparseout.backend import train_step
from keras_sparseout.measure import hooks, layer_selection, layer_sums
from keras_sparseout.measure.trace import OUTPUT, Trace


class StepSums:
    """Adds up watched layers' metrics inside the model's own steps.

    `arm` before each batch makes the model run a step function of ours for that one
    call: it is traced from the model's own step with the hooks in place, and so also
    adds the sums to variables of ours. Between the batches the model is as it was, and
    no variable of ours is ever one of the model's. In a loop that calls no step of the
    model `reading` does the same for what is called in its context.

    Args:
        model: A Keras model.
        kind: The step to measure, "train" or "test".
        watched: The layers, from `watching.select`.
        metrics: Dict of streaming metrics by name.
        sample_size: How many samples of each batch, the first ones, are measured.
        missing: What becomes of a layer that can't be read: "raise", "leave out", or
            "keep" it with sums of 0.

    Attributes:
        watched: The layers that are measured.
        left_out: Dict of reasons, by name, of those that are not.
    """

    def __init__(self, model, kind, watched, metrics, sample_size, missing="raise"):
        self.settings = model, kind, watched, metrics, sample_size, missing
        self.model = model
        self.kind = kind
        self.watched = self._candidates = watched
        self.metrics = metrics
        self.sample_size = sample_size
        self.missing = missing
        self.left_out, self._calls = {}, {}
        # Of `step_functions`: the function made last, and of what; whether the one that
        # was armed last was called.
        self.built, self.called = None, False
        # Replicas are traced in threads that take turns within a step.
        self._thread = threading.local()
        self._checked = None
        self._settled = False
        self._sums = _Sums(name="sums")
        self._shapes, self._variables = {}, {}
        with model.distribute_strategy.scope():
            self._steps = self._sums.add_variable((), "zeros", "float64")
            for w in watched:
                self._make_variable(w, layer_selection.units(w))

    def check(self):
        """Raises if the model's step function is one that can't be measured."""
        if self.model.compiled:
            function = train_step.present(self.model, self.kind)
            if function is not self._checked:
                train_step.check(self.model, self.kind)
                self._checked = function

    def arm(self):
        """Makes the next step of the model measure."""
        if self.model.compiled:
            train_step.arm(self.model, self.kind, self)

    def disarm(self):
        """Undoes `arm`, where the model made no step since."""
        train_step.disarm(self.model, self.kind)

    def check_reached(self):
        """Raises if no step was measured since the last `reset`, or not each layer."""
        if not self.steps():
            raise train_step.unread(self.model, self.kind, self.called)
        self._check_missed()

    def steps(self):
        """Returns how many steps were measured since the last `reset`."""
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        return int(tf.convert_to_tensor(self._steps).numpy()) // replicas

    def calls(self):
        """Returns how often each layer was called in the step traced last."""
        return dict(self._calls)

    def totals(self):
        """Returns the sums since the last `reset`, by layer."""
        totals = {}
        for w in self.watched:
            shapes = self._shapes.get(w.name, layer_sums.shapes(self.metrics, 1))
            packed = np.zeros(_size(shapes))
            if w.name in self._variables:
                # Summed over the replicas.
                packed = tf.convert_to_tensor(self._variables[w.name]).numpy()
            totals[w.name] = []
            for shape in shapes:
                size = shape[0] if shape else 1
                totals[w.name].append(packed[:size].reshape(shape))
                packed = packed[size:]
        return totals

    def reset(self):
        """Sets the sums to 0."""
        self._sums.reset_state()

    @contextlib.contextmanager
    def reading(self, *, whole=False):
        """Adds the metrics of what the layers are called with in this context.

        Args:
            whole: Whether this is all of a step, so that what it lacks is missing.
        """
        if getattr(self._thread, "reads", False):  # In a step that is measured.
            yield
            return
        trace = Trace(self.model, self._candidates)
        variables = len(self.model.variables)
        self._thread.reads = True
        try:
            with trace.reading():
                yield
        finally:
            self._thread.reads = False
        reasons = trace.left_out() if self.missing == "leave out" else {}
        self._settle(trace.calls(), reasons)
        # A step that makes variables is traced anew.
        if whole and not self._settled and len(self.model.variables) == variables:
            self._settled = True
            if self.missing != "keep":
                # Now, before the first step: it is only traced yet.
                self._check_missed()
        self._add([s for s in trace.seen if s[0].name not in reasons])

    def _settle(self, calls, reasons):
        """Decides which layers count, from all that was traced so far."""
        self._calls = {**self._calls, **calls}
        self.left_out = {
            name: reason
            for name, reason in {**reasons, **self.left_out}.items()
            if reason == OUTPUT or name not in self._calls
        }
        self.watched = [w for w in self._candidates if w.name not in self.left_out]

    def _check_missed(self):
        missed = [w.name for w in self._candidates if w.name not in self._calls]
        all_missed = len(missed) == len(self._candidates)
        if missed and (self.missing == "raise" or all_missed):
            named = self.missing == "raise"
            raise layer_selection.unreached(missed, self.model, named=named)

    def _add(self, seen):
        seen = [
            (
                w,
                x[: self.sample_size] if hooks.rank_of(x) else x,
                None if mask is None else mask[: self.sample_size],
            )
            for w, x, mask in seen
            if w.name in self._calls
        ]
        sums = layer_sums.packed_sums(seen, self.metrics)
        for (watched, x, _), packed in zip(seen, sums, strict=True):
            if watched.name not in self._variables:
                with tf.init_scope():
                    self._make_variable(watched, x.shape[-1])
            if watched.name not in self._variables:
                raise ValueError(
                    "`metrics` with a figure for each unit need layers with a known "
                    f"number of units. Received: {watched.name} with shape {x.shape}. "
                    "Leave it out of `layers`."
                )
            shapes = layer_sums.shapes(self.metrics, x.shape[-1])
            layer_sums.check_same_units(watched, self._shapes[watched.name], shapes)
            self._variables[watched.name].assign_add(packed)
        self._steps.assign_add(1.0)

    def _make_variable(self, watched, units):
        shapes = layer_sums.shapes(self.metrics, units)
        # A model that is not built has unknown sizes until its step is traced.
        if not any(None in shape for shape in shapes):
            self._shapes[watched.name] = shapes
            self._variables[watched.name] = self._sums.add_variable(
                (_size(shapes),), "zeros", "float64"
            )


class _Sums(keras.metrics.Metric):
    """Holds variables that are summed over the replicas when they are read."""

    def result(self):
        return self.variables


def _size(shapes):
    return sum(shape[0] if shape else 1 for shape in shapes)
