"""What all streaming metrics share."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import inputs, targets
from keras_sparseout.utils.types import Shape, Tensor


class StreamingMetric(keras.metrics.Metric):
    """Base of the metrics of activations that come batch by batch.

    Three methods define a metric: `sums`, `shapes` and `figure`. They leave its state
    alone, so that the sums can be kept elsewhere, for several layers or replicas.

    `compiles` says whether the sums are faster when compiled with XLA, and can be.
    `optional` is for one that a callback adds of its own accord, behind all others: a
    layer without one known number of units goes without it.

    It measures the activations of one layer, not targets and predictions: give it to a
    `SparsityTracker` or the like, and not to `compile(metrics=[...])`.

    The state is float64, in which counts stay exact up to 2^53.

    Call arguments:
        x: Activations, real numbers of shape (samples, ..., units).
        sample_weight: The weight of each sample, of shape (samples,). None: 1.
        mask: Boolean, False at the positions that do not count. Its shape is the shape
            of `x` without the last axis, or the beginning of it, as (samples,
            timesteps). None: in `update_state` the mask that Keras keeps with `x`, if
            there is one. `keras.ops.stop_gradient(x)` has none.
    """

    compiles = False
    optional = False

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(dtype="float64", name=name)

    def sums(
        self, x: Tensor, sample_weight: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Returns float64 tensors that add up over batches, zeros for no samples."""
        raise NotImplementedError

    def shapes(self, units: int | None) -> tuple[Shape, ...]:
        """Returns the shapes of `sums`, where the last axis of `x` has size `units`."""
        raise NotImplementedError

    def figure(self, *totals: Tensor) -> Tensor:
        """Returns the result for sums that were added up over all batches.

        It is an array for arrays and a tensor for tensors, NaN where nothing was
        counted.
        """
        if any(ops.is_tensor(total) for total in totals):
            with numerics.unchecked():
                tensors = (ops.convert_to_tensor(t, "float64") for t in totals)
                return self._figure(*tensors)
        # Most need no operation of Keras then, of which each takes some microseconds.
        with np.errstate(divide="ignore", invalid="ignore"), numerics.unchecked():
            result = self._figure(*(np.asarray(t, "float64") for t in totals))
        return ops.convert_to_numpy(result)

    @targets.refused
    @numerics.unchecked()
    def update_state(
        self, x: Tensor, sample_weight: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        if mask is None:
            mask = getattr(x, "_keras_mask", None)
            if mask is not None:
                self._check_kept_mask(x, mask)
        x, _ = inputs.real_tensor(x)
        sums = self.sums(x, sample_weight, mask)
        self._fit_state(x.shape[-1])
        for variable, new in zip(self.variables, sums, strict=True):
            variable.assign_add(new)

    @numerics.unchecked()
    def result(self) -> Tensor:
        if not self.variables:
            return ops.convert_to_tensor(float("nan"), "float64")
        return self.figure(*(ops.convert_to_tensor(v) for v in self.variables))

    @numerics.unchecked()
    def merge_state(self, metrics: Sequence["StreamingMetric"]) -> None:
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
                # Vectors of units come first, if there are any.
                self._fit_state(next(iter(metric.variables[0].shape), None))
            for variable, other in zip(self.variables, metric.variables, strict=False):
                variable.assign_add(ops.convert_to_tensor(other))

    def get_config(self) -> dict[str, Any]:
        # Without the dtype, which is no argument.
        options = keras.saving.serialize_keras_object(self._options())
        return {"name": self.name, **options}

    def _check_kept_mask(self, x, mask):
        """Raises if the metric can't take `mask`, which Keras keeps with `x`."""

    def _options(self):
        """Returns the options that tell metrics of one class apart, by argument."""
        return {}

    def _figure(self, *totals):
        """Returns the result for totals that are float64 tensors, or arrays."""
        raise NotImplementedError

    def _create_state(self, units=None):
        for shape in self.shapes(units):
            self.add_variable(shape, "zeros", dtype="float64", aggregation="sum")

    def _fit_state(self, units):
        """Creates the state if there is none; raises unless it is for `units`."""
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
                f"`x` must have {state[0][0]} units, like the earlier batches. "
                f"Received: {units} units. Give each layer a metric of its own."
            )
