"""TargetSparsity: cuts small activations to zero, as many as asked."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import variables
from keras_sparseout.layers.adjustable import AdjustableLayer, Knob
from keras_sparseout.ops import quantile_tracking as tracking
from keras_sparseout.ops.threshold import threshold
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("keras_sparseout")
class TargetSparsity(AdjustableLayer):
    """Sets small activations to 0, so that an asked share of them is exactly 0."""

    def __init__(
        self,
        target: float,
        *,
        axis: Literal[-1] | None = None,
        centre: Literal["mode"] | None = None,
        add_back: bool = True,
        soft: bool = False,
        straight_through: bool = False,
        momentum: float = 0.99,
        adjustable: bool = False,
        **kwargs: Any,
    ) -> None:
        target = validation.check_target(target)
        axis = _check_axis(axis)
        centre = _check_centre(centre)
        validation.check_bool("add_back", add_back)
        validation.check_bool("soft", soft)
        validation.check_bool("straight_through", straight_through)
        momentum = validation.check_momentum(momentum)
        validation.check_bool("adjustable", adjustable)
        validation.check_keywords(type(self).__name__, kwargs, TargetSparsity)
        super().__init__({"target": target}, adjustable, **kwargs)
        self.supports_masking = True
        self._axis = axis
        self._centre = centre
        self._add_back = add_back
        self._soft = soft
        self._straight_through = straight_through
        self._momentum = momentum
        self._threshold: keras.Variable | None = None
        self._centre_value: keras.Variable | None = None
        if axis is None:
            self._make(())
            self.built = type(self).build is TargetSparsity.build

    target = Knob(validation.check_target, "Share of the activations that is to be 0")

    def build(self, input_shape: Shape) -> None:
        if self._threshold is not None:
            return
        units = input_shape[-1] if input_shape else None
        if units is None:
            raise ValueError(
                "`inputs` must have a last dimension of known size for axis=-1. "
                f"Received: inputs.shape={input_shape}. Give axis=None for one "
                "threshold for all units."
            )
        self._make((units,))

    def _make(self, shape):
        def variable(name, shape):
            return self.add_weight(
                shape=shape,
                initializer="zeros",
                dtype="float32",
                trainable=False,
                autocast=False,
                aggregation="mean",
                name=name,
            )

        with keras.name_scope(self.name, caller=self):
            self._threshold = variable("threshold", shape)
            self._state = variable("state", (tracking.ROWS, *shape))
            if self._centre == "mode":
                self._centre_value = variable("centre_value", shape)

    @property
    def threshold(self) -> keras.Variable:
        """What |x| must exceed to pass, a variable of shape () or (units,)."""
        self._check_made("threshold")
        return self._threshold

    @property
    def centre_value(self) -> keras.Variable:
        """The mode, a variable of shape () or (units,); only with centre="mode"."""
        if self._centre is None:
            raise AttributeError(
                f"Layer {self.name!r} has no `centre_value`. Make it with "
                'TargetSparsity(..., centre="mode").'
            )
        self._check_made("centre_value")
        return self._centre_value

    def _check_made(self, name):
        if self._threshold is None:
            raise AttributeError(
                f"`{name}` of layer {self.name!r} has a value for each unit, and the "
                "number of units is not known yet. Call the layer first, or "
                "layer.build(input_shape)."
            )

    def start(self, threshold: Any, centre: Any = None) -> None:
        """Sets the threshold, and the mode, from outside; training goes on from it."""
        t = np.broadcast_to(np.asarray(threshold, "float32"), self.threshold.shape)
        if not (np.isfinite(t).all() and (t >= 0).all()):
            raise validation.value_error(
                "threshold", threshold, "finite and >= 0", "Give a quantile of |x|."
            )
        if centre is not None:
            c = np.broadcast_to(np.asarray(centre, "float32"), t.shape)
            self.centre_value.assign(c)
        state = np.zeros(self._state.shape, "float32")
        state[tracking.State._fields.index("gain")] = 1
        self._state.assign(state)
        self.threshold.assign(t)

    def call(
        self, inputs: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        self._check_inputs(inputs)
        t, c = ops.cast(self._threshold, "float32"), None
        if self._centre is not None:
            c = ops.cast(self._centre_value, "float32")
        if training and self.trainable:
            t, c = self._follow(inputs, mask, t, c)
        return threshold(
            inputs,
            t,
            c,
            add_back=self._add_back,
            soft=self._soft,
            straight_through=self._straight_through,
        )

    def _follow(self, inputs, mask, t, c):
        """Returns the next threshold and mode, after a look at the batch."""
        units = None if self._axis is None else self._threshold.shape[0]
        sample = tracking.take_sample(inputs, mask, units)
        state = ops.cast(self._state, "float32")
        target = ops.cast(self.read_knobs()["target"], "float32")
        values = sample.values
        if c is not None:
            values = values - ops.cast(c, values.dtype)
        sample = sample._replace(values=ops.abs(values))
        # A variable that is assigned inside of `cond` differs on replicas.
        t, state = ops.cond(
            tracking.has_begun(state),
            lambda: tracking.follow(t, state, sample, target, 1 - self._momentum),
            lambda: tracking.begin(t, state, sample, target),
        )
        self._threshold.assign(t)
        self._state.assign(state)
        return t, c

    def _check_inputs(self, inputs):
        validation.check_dense(inputs)
        validation.check_floating(inputs.dtype, "inputs")
        shape = validation.shape_of(inputs)
        if shape is not None:
            self.note_shape(shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def compute_output_spec(
        self, inputs: keras.KerasTensor, training: bool = False, mask: Any = None
    ) -> keras.KerasTensor:
        self._check_inputs(inputs)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        super().save_own_variables(store)
        for name, variable in self._kept().items():
            store[name] = variables.to_numpy(variable)

    def _values_in(self, store: Mapping[str, Any]) -> list[tuple[Any, np.ndarray]]:
        kept = self._kept()
        return [
            *super()._values_in(store),
            *((kept[name], np.asarray(store[name])) for name in kept if name in store),
        ]

    def _kept(self):
        kept = {"threshold": self._threshold, "state": self._state}
        if self._centre_value is not None:
            kept["centre_value"] = self._centre_value
        return kept

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self._axis,
            "centre": self._centre,
            "add_back": self._add_back,
            "soft": self._soft,
            "straight_through": self._straight_through,
            "momentum": self._momentum,
        }


def _check_axis(axis):
    if axis is None or (validation.is_int(axis) and axis == -1):
        return None if axis is None else -1
    raise validation.value_error(
        "axis",
        axis,
        "None, for one threshold, or -1, for one for each unit of the last dimension",
        "Leave it out for None.",
    )


def _check_centre(centre):
    if centre is None or centre == "mode":
        return centre
    raise validation.value_error(
        "centre", centre, 'None, for 0, or "mode"', "Leave it out for None."
    )
