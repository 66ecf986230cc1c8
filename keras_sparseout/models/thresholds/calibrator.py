"""The stand-in for a threshold layer while its threshold is looked for."""

from typing import Any, Literal

import keras
from keras import ops

from keras_sparseout.models.thresholds import magnitudes
from keras_sparseout.utils.types import Shape, Tensor

# How many activations of a batch are sampled, and of each unit at least.
_SAMPLED, _OF_EACH = 2**14, 2**9
_GOLDEN = (5**0.5 - 1) / 2


class Calibrator(keras.layers.Layer):
    """Sets the activations with |x - centre| <= threshold to zero, and counts them.

    Args:
        axis: None for one threshold, -1 for one for each unit.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Attributes:
        mode: What a call does, decided while it is traced: "use" the threshold, use it
            and "count" the magnitudes before it, or "follow": count, then set the
            threshold to the quantile of all that was counted, or "sample" them.
        target: Variable: the share of zeros to follow.
        threshold: Variable: one number, or one for each unit.
        centre: Variable: one number, or one for each unit.
        restored: Variable: the part of the centre that is added back.
        counts: Variable: the counts of magnitudes.
        widths: How many units its inputs have, one number for all calls but in a layer
            that acts on each element.
        sampled: What the traced call has sampled: NaN in padding, groups last.
    """

    mode: Literal["use", "count", "follow", "sample"] = "use"
    sampled: Tensor

    def __init__(self, axis: Literal[-1] | None, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.axis = axis
        self.widths: set[int | None] = set()
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        """Makes the variables."""
        units = 1 if self.axis is None else input_shape[-1]
        if units is None:
            raise ValueError(
                "`axis` must be None where the number of units is not known. Received: "
                f"axis=-1 for layer {self.name!r} with an input of shape "
                f"{tuple(input_shape)}. Leave it out for one threshold a layer."
            )
        shape = () if self.axis is None else (units,)
        self.bins = magnitudes.bins_for(units)

        def variable(name, shape, dtype):
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                autocast=False,
            )

        self.target = variable("target", (), "float64")
        self.threshold = variable("threshold", shape, "float32")
        self.centre = variable("centre", shape, "float32")
        self.restored = variable("restored", shape, "float32")
        size = (self.bins.groups, self.bins.number)
        self.counts = variable("counts", size, self.bins.dtype)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns `inputs` with zeros."""
        centre = ops.cast(self.centre.value, inputs.dtype)
        distance = inputs - centre
        if self.mode == "sample":
            self.sampled = _some(ops.cast(inputs, "float32"), mask, self.bins.groups)
        elif self.mode != "use":
            x = ops.cast(distance, "float32")
            new = magnitudes.count(x, for_all_axes(mask, x), self.bins)
            counts = self.counts.value + new
            self.counts.assign(counts)
            if self.mode == "follow":
                self.threshold.assign(self._quantile(counts))
        # In the precision of the activations, as `TargetSparsity` does.
        is_cut = ops.abs(distance) <= ops.cast(self.threshold.value, inputs.dtype)
        restored = ops.cast(self.restored.value, inputs.dtype)
        # If all is added back, the inputs themselves, without a rounding.
        return ops.where(is_cut, restored, inputs - (centre - restored))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the inputs."""
        self.widths.add(input_shape[-1])
        return input_shape

    def reset(self) -> None:
        """Forgets what was counted."""
        self.counts.assign(ops.zeros_like(self.counts.value))

    def shares(self) -> tuple[float, float]:
        """Returns the shares of what was counted: up to the threshold, and of zeros."""
        counts, threshold = self.counts.value, self.threshold.value
        return magnitudes.share(counts, threshold, self.bins)

    def threshold_for(self, target: float) -> Tensor:
        """Returns the quantile of what was counted."""
        return self._quantile(self.counts.value, target)

    def least_counted(self) -> int:
        """Returns how many activations a threshold is found from, at least."""
        return int(ops.min(ops.sum(self.counts.value, axis=-1)))

    def has_invalid(self) -> bool:
        """Whether NaN or infinity was counted."""
        return magnitudes.has_invalid(self.counts.value)

    def _quantile(self, counts: Tensor, target: float | None = None) -> Tensor:
        wanted = self.target.value if target is None else target
        found = magnitudes.quantile(counts, wanted, self.bins)
        found = magnitudes.rounded_down(found, self.compute_dtype)
        return ops.reshape(found, self.threshold.shape)


def for_all_axes(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """Returns a mask of samples or timesteps with the axes of `x`."""
    if mask is None or len(mask.shape) >= len(x.shape):
        return None
    more = [1] * (len(x.shape) - len(mask.shape))
    return ops.reshape(ops.cast(mask, "bool"), (*ops.shape(mask), *more))


def _some(x: Tensor, mask: Tensor | None, groups: int) -> Tensor:
    """Returns activations from all over `x`, about as many for any size of it.

    Args:
        x: A float32 tensor.
        mask: A mask of samples or timesteps, or None.
        groups: How many columns the result has.
    """
    mask = for_all_axes(mask, x)
    if mask is not None:
        x = ops.where(mask, x, float("nan"))
    rows = ops.reshape(x, (-1, groups))
    number = ops.cast(ops.shape(rows)[0], "float64")
    most = max(_SAMPLED // groups, _OF_EACH)
    # Multiples of the golden ratio keep no step with rows, columns or channels.
    parts = (ops.arange(most, dtype="float64") * _GOLDEN) % 1.0
    return ops.take(rows, ops.cast(ops.floor(parts * number), "int32"), axis=0)
