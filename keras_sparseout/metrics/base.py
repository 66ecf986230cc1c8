"""What all streaming metrics share."""

import keras
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import inputs


class StreamingMetric(keras.metrics.Metric):
    """Base of the metrics of activations that come batch by batch.

    What a metric is lies in three methods that leave its state alone, so that sums can
    be kept elsewhere, for several layers or replicas:

    - `sums(x, sample_weight=None, mask=None)`: a tuple of float64 tensors that are
      added up over the batches, zeros for a batch of no samples;
    - `shapes(units)`: a tuple of their shapes, where the last axis of `x` has `units`
      units;
    - `figure(*totals)`: the result, of sums added up over all batches: an array for
      arrays, a tensor for tensors. NaN where nothing was counted.

    `compiles` says whether the sums are faster when compiled with XLA, and can be.

    The state is float64, in which counts stay exact up to 2^53.

    Call arguments:
        x: Activations, real numbers of shape (samples, ..., units).
        sample_weight: What each sample counts, of shape (samples,). None: 1.
        mask: Boolean, False at the positions that do not count: of the shape of `x`
            without the last axis, or the beginning of that, as (samples, timesteps).
            None: in `update_state` the mask that Keras keeps with `x`, if any.
    """

    compiles = False

    def __init__(self, *, name=None):
        super().__init__(dtype="float64", name=name)

    @numerics.unchecked()
    def figure(self, *totals):
        result = self._figure(*(ops.convert_to_tensor(t, "float64") for t in totals))
        if any(ops.is_tensor(total) for total in totals):
            return result
        return ops.convert_to_numpy(result)

    @numerics.unchecked()
    def update_state(self, x, sample_weight=None, mask=None):
        if mask is None:
            mask = getattr(x, "_keras_mask", None)
        x, _ = inputs.real_tensor(x)
        sums = self.sums(x, sample_weight, mask)
        self._fit_state(x.shape[-1])
        for variable, new in zip(self.variables, sums, strict=True):
            variable.assign_add(new)

    @numerics.unchecked()
    def result(self):
        if not self.variables:
            return ops.convert_to_tensor(float("nan"), "float64")
        return self.figure(*(ops.convert_to_tensor(v) for v in self.variables))

    @numerics.unchecked()
    def merge_state(self, metrics):
        """Adds the state of other metrics of the same class and options.

        Args:
            metrics: List of streaming metrics.

        Raises:
            ValueError: if one is of another class, or has other options.
        """
        for metric in metrics:
            if type(metric) is not type(self) or metric._options() != self._options():
                raise ValueError(
                    "`metrics` must be of the same class and options as this one, "
                    f"{self!r}. Received: {metric!r} among metrics. Leave it out."
                )
        for metric in metrics:
            if metric.variables:
                # The vectors of units come first, where there are any.
                self._fit_state(next(iter(metric.variables[0].shape), None))
            for variable, other in zip(self.variables, metric.variables, strict=False):
                variable.assign_add(ops.convert_to_tensor(other))

    def get_config(self):
        # Without the dtype, which is no argument.
        options = keras.saving.serialize_keras_object(self._options())
        return {"name": self.name, **options}

    def _options(self):
        """Returns what tells metrics of one class apart, by argument."""
        return {}

    def _create_state(self, units=None):
        for shape in self.shapes(units):
            self.add_variable(shape, "zeros", dtype="float64", aggregation="sum")

    def _fit_state(self, units):
        """Creates the state, if there is none; raises unless it is for `units`."""
        shapes = self.shapes(units)
        if not self.variables:
            if any(None in shape for shape in shapes):
                raise ValueError(
                    "`x` must have a known number of units. Received: x of unknown "
                    f"last dimension. Give it as units=... to {type(self).__name__}."
                )
            self._create_state(units)
        state = tuple(tuple(v.shape) for v in self.variables)
        if units is not None and state != shapes:
            raise ValueError(
                f"`x` must have {state[0][0]} units, as the batches before. Received: "
                f"{units} units. Give each layer a metric of its own."
            )
