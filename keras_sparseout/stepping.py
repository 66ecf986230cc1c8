"""Measuring activations inside the model's own training and test steps."""

import contextlib
import threading

import keras
import tensorflow as tf

from keras_sparseout import measuring, watching


class StepSums:
    """Adds up watched layers' metrics inside the model's own steps.

    `arm` before each batch makes the model run a step function of ours for that one
    call: it is traced from the model's own step with the hooks in place, and so also
    adds the sums to variables of ours. Between the batches the model is as it was,
    whatever `fit` comes to, and no variable of ours is ever one of the model's. (If a
    later callback raises at the beginning of a batch, the armed function stays until
    it is called or the model compiled.)

    Args:
        model: A compiled Keras model.
        kind: The step to measure, "train" or "test".
        watched: The layers, from `watching.select`.
        metrics: Dict of streaming metrics by name.
        sample_size: How many samples of each batch, the first ones, are measured.
    """

    def __init__(self, model, kind, watched, metrics, sample_size):
        self.model = model
        self.kind = kind
        self.watched = watched
        self.metrics = metrics
        self.sample_size = sample_size
        self._calls = {}
        self._graph = None
        self._inner = set()
        # Replicas are traced in threads that take turns within a step.
        self._replica = threading.local()
        self._built = None
        self._sums = _Sums(name="sums")
        self._shapes, self._variables = {}, {}
        with model.distribute_strategy.scope():
            self._steps = self._sums.add_variable((), "zeros", "float64")
            for w in watched:
                self._make_variable(w, watching.units(w))

    @property
    def settings(self):
        """What it was made with, as a tuple."""
        return self.model, self.kind, self.watched, self.metrics, self.sample_size

    def arm(self):
        """Makes the next step of the model measure."""
        attributes = vars(self.model)
        function = attributes[f"{self.kind}_function"]
        if not isinstance(function, _Armed):
            function = _Armed(self.model, self.kind, function)
            attributes[f"{self.kind}_function"] = function
        if self not in function.recorders:
            function.recorders.append(self)

    def check_reached(self, others=None):
        """Raises if a layer was not read in the steps so far.

        Args:
            others: `StepSums` of other steps of the model: a layer that was read in
                those may be missing in these.
        """
        called = self._calls if others is None else {**self._calls, **others._calls}
        missed = [
            w.name
            for w in self.watched
            if w.name in self._inner or w.name not in called
        ]
        if missed:
            raise watching.unreached(missed, self.model)

    def calls(self):
        """Returns how often each layer was called in the step traced last."""
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        return {name: -(-count // replicas) for name, count in self._calls.items()}

    def totals(self):
        """Returns the sums since the last `reset`, by layer."""
        totals = {}
        for name, variable in self._variables.items():
            # Summed over the replicas.
            packed = tf.convert_to_tensor(variable).numpy()
            totals[name] = []
            for shape in self._shapes[name]:
                size = shape[0] if shape else 1
                totals[name].append(packed[:size].reshape(shape))
                packed = packed[size:]
        return totals

    def steps(self):
        """Returns how many steps were measured since the last `reset`.

        Where `steps_per_execution` is above 1: only there it has to be counted.
        """
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        return int(tf.convert_to_tensor(self._steps).numpy()) // replicas

    def reset(self):
        """Sets the sums to 0."""
        self._sums.reset_state()

    def record(self, watched, x, mask):
        """Keeps the activations of one call of a layer, while a step is traced."""
        if watching.graph_of(x) is not self._graph:
            self._inner.add(watched.name)
            return
        self._calls[watched.name] = self._calls.get(watched.name, 0) + 1
        if watching.rank_of(x):
            x = x[: self.sample_size]
        mask = None if mask is None else mask[: self.sample_size]
        self._replica.seen.append((watched, x, mask))

    def begin(self, data):
        """Notes that the trace of a step on `data` begins, for one more replica."""
        graph = watching.graph_of(data)
        if graph is None or graph is not self._graph:
            self._calls, self._inner = {}, set()
        self._graph = graph
        self._replica.seen = []

    def end(self):
        """Adds the metrics of what the step's layers were called with."""
        seen = self._replica.seen
        sums = measuring.packed_sums(seen, self.metrics)
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
            shapes = measuring.shapes(self.metrics, x.shape[-1])
            measuring.check_same_units(watched, self._shapes[watched.name], shapes)
            self._variables[watched.name].assign_add(packed)
        if self.model.steps_per_execution > 1:
            self._steps.assign_add(1.0)

    def _make_variable(self, watched, units):
        shapes = measuring.shapes(self.metrics, units)
        # A model that is not built has unknown sizes until its step is traced.
        if not any(None in shape for shape in shapes):
            size = sum(shape[0] if shape else 1 for shape in shapes)
            self._shapes[watched.name] = shapes
            self._variables[watched.name] = self._sums.add_variable(
                (size,), "zeros", "float64"
            )


class _Sums(keras.metrics.Metric):
    """Holds variables that are summed over the replicas when they are read."""

    def result(self):
        return self.variables


class _Armed:
    """Stands in for the model's step function for one call, then takes itself away."""

    def __init__(self, model, kind, plain):
        self.model = model
        self.kind = kind
        self.plain = plain
        self.recorders = []

    def __call__(self, iterator):
        vars(self.model)[f"{self.kind}_function"] = self.plain
        # Callbacks that measure different layers share one step.
        owner = self.recorders[0]
        if owner._built is None or owner._built[:2] != (self.plain, self.recorders):
            owner._built = (self.plain, self.recorders, self._build())
        return owner._built[2](iterator)

    def _build(self):
        """Returns a step function of the model's own making, that is hooked."""
        attributes = vars(self.model)
        step_name = f"{self.kind}_step"
        step, own = getattr(self.model, step_name), attributes.get(step_name)
        hooks = [watching.Hooks(r.watched, r.record) for r in self.recorders]

        def hooked_step(data):
            for recorder in self.recorders:
                recorder.begin(data)
            with contextlib.ExitStack() as stack:
                for h in hooks:
                    stack.enter_context(h)
                outputs = step(data)
            for recorder in self.recorders:
                recorder.end()
            return outputs

        attributes[step_name] = hooked_step
        try:
            make = getattr(self.model, f"make_{self.kind}_function")
            make(force=True)
            return attributes[f"{self.kind}_function"]
        finally:
            attributes[f"{self.kind}_function"] = self.plain
            del attributes[step_name]
            if own is not None:
                attributes[step_name] = own
