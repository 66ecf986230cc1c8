"""The variables of a `TargetSparsity`: its thresholds, and how they follow batches."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import unknown_rank, variables
from keras_sparseout.ops import mode_tracking
from keras_sparseout.ops import quantile_tracking as tracking
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

_NAMES = ("threshold", "state", "centre_value")


class ThresholdTracker:
    """Keeps the thresholds of a layer, and the modes that they are around.

    Args:
        layer: The layer, which gets the variables.
        shape: Shape of the thresholds: () for one, (units,) for one for each unit.
        has_mode: Whether there are modes, too.
    """

    def __init__(
        self, layer: keras.layers.Layer, shape: tuple[int, ...], has_mode: bool
    ) -> None:
        self.shape = shape
        self._layer_name = layer.name
        self._has_warned = False
        shapes = {"threshold": shape, "state": (len(tracking.State._fields), *shape)}
        if has_mode:
            shapes["centre_value"] = shape
        self._kept = {}
        with keras.name_scope(layer.name, caller=layer):
            for name, size in shapes.items():
                self._kept[name] = layer.add_weight(
                    shape=size,
                    initializer="zeros",
                    dtype="float32",
                    trainable=False,
                    autocast=False,
                    # The same on all replicas.
                    aggregation="mean",
                    name=name,
                )
                # tf.saved_model.save finds the variables that are attributes.
                setattr(layer, f"_{name}", self._kept[name])

    @property
    def variables(self) -> dict[str, keras.Variable]:
        """All variables, by the names that they have in files."""
        return dict(self._kept)

    @property
    def threshold(self) -> keras.Variable:
        return self._kept["threshold"]

    @property
    def mode(self) -> keras.Variable:
        return self._kept["centre_value"]

    @property
    def natural_zeros(self) -> float:
        """The moving share of values that are 0, or equal to the mode."""
        state = variables.to_numpy(self._kept["state"])
        return float(np.mean(tracking.row(state, "zeros")))

    def warn_of_natural_zeros(self, read_target: Callable[[], float]) -> None:
        """Warns once if more values are 0 by themselves than the target.

        It is for calls at inference: a training step that is compiled can't warn.
        """
        if self._has_warned:
            return
        with variables.outside_graph() as have_values:
            if not have_values:
                return
            zeros, target = self.natural_zeros, read_target()
        # Not because of the noise of batches.
        if zeros > target + 0.02:
            self._has_warned = True
            warnings.warn(
                f"Layer {self._layer_name!r}: {zeros:.0%} of its inputs are 0 by "
                f"themselves, more than target={target:g}. So it cuts nothing. Give a "
                "larger target, or leave the layer out.",
                stacklevel=3,
            )

    def start(self, threshold: Any, centre: Any) -> None:
        """Sets the thresholds, and the modes if they are not None."""
        values = {"threshold": self._like("threshold", threshold)}
        if (values["threshold"] < 0).any():
            raise validation.value_error(
                "threshold", threshold, ">= 0", "Give a quantile of |x|."
            )
        if centre is not None:
            values["centre_value"] = self._like("centre", centre)
        state = np.zeros(self._kept["state"].shape, "float32")
        # The rest is measured in the next batch.
        state[tracking.State._fields.index("gain")] = 1
        for name, value in {**values, "state": state}.items():
            self._kept[name].assign(value)

    def _like(self, name, value):
        """Returns `value` as an array of the shape of the thresholds."""
        try:
            array = np.broadcast_to(np.asarray(value, "float32"), self.shape)
        except (TypeError, ValueError):
            array = None
        if array is None or not np.isfinite(array).all():
            rule = f"finite, a number or an array of shape {self.shape}"
            raise validation.value_error(name, value, rule, "Give for example 0.5.")
        return array

    def read(self) -> tuple[Tensor, Tensor | None]:
        """Returns the thresholds, and the modes or None."""
        # A cast reads a variable; convert_to_tensor would return it as it is.
        t, mode = ops.cast(self.threshold, "float32"), self._kept.get("centre_value")
        return t, mode if mode is None else ops.cast(mode, "float32")

    def follow(
        self, x: Tensor, mask: Tensor | None, target: float | Tensor, least_gain: float
    ) -> tuple[Tensor, Tensor | None]:
        """Moves the thresholds and modes with a batch, and returns them."""
        if mask is not None:
            if validation.shape_of(x) is None:
                message = "`inputs` with a mask must have a batch and a last dimension."
                x, mask = unknown_rank.merge_dimensions(x, mask, 0, message)
            # A threshold for each unit is for all of them in a position that counts.
            units = (1,) if self.shape else tuple(x.shape[-1:])
            mask = validation.check_mask(mask, (*x.shape[:-1], *units))
        sample = tracking.take_sample(x, mask, self.shape[0] if self.shape else None)
        t, c = self.read()
        state = ops.cast(self._kept["state"], "float32")
        gain, size = tracking.row(state, "gain"), sample.size()

        def begin():
            mode = c
            if c is not None:
                mode = ops.where(gain > 0, c, mode_tracking.first(sample))
            return *tracking.begin(t, state, sample.distances(mode), target), mode

        def follow():
            mode = c if c is None else mode_tracking.follow(c, t, gain, sample)
            distances = sample.distances(c)
            following = tracking.follow(t, state, distances, size, target, least_gain)
            return *following, mode

        # Assigned outside of `cond`: inside of it replicas would keep their own.
        new = ops.cond(tracking.can_follow(state, target), follow, begin)
        usable, kept = sample.is_usable(size), []
        for name, old, value in zip(_NAMES, (t, state, c), new, strict=True):
            if old is not None:
                value = ops.where(usable, value, old)
                if value.shape != old.shape:
                    # `cond` lost it.
                    value = ops.reshape(value, old.shape)
                self._kept[name].assign(value)
            kept.append(value)
        return kept[0], kept[2]

    def values_in(self, store: Mapping[str, Any]) -> list[tuple[Any, np.ndarray]]:
        """Returns the checked values that `store` has, with their variables."""
        values = []
        for name, variable in self._kept.items():
            if name in store:
                array = np.asarray(store[name])
                if name == "state":
                    array = _with_all_fields(array)
                if array.shape != tuple(variable.shape) or not np.isfinite(array).all():
                    raise ValueError(
                        f"Layer {self._layer_name!r}: `{name}` in a file must be "
                        f"finite, of shape {tuple(variable.shape)}. Received: {name} "
                        f"of shape {array.shape}. Load a file of a layer with the same "
                        "`axis`, whose training did not diverge."
                    )
                if name == "threshold" and (array < 0).any():
                    raise ValueError(
                        f"Layer {self._layer_name!r}: `threshold` in a file must be >= "
                        f"0. Received: threshold with {array.min():g}, which cuts "
                        "nothing. Load a file that the layer saved itself."
                    )
                values.append((variable, array))
        return values


def _with_all_fields(state):
    """Returns a state with the fields that earlier versions did not have, as zeros."""
    lacks = len(tracking.State._fields) - len(state) if state.ndim else 0
    return np.pad(state, [(0, max(lacks, 0)), *[(0, 0)] * (state.ndim - 1)])
