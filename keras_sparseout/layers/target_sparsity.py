"""TargetSparsity: sets small activations to 0, as many as asked."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np

from keras_sparseout.backend import variables
from keras_sparseout.layers.adjustable import AdjustableLayer, Knob
from keras_sparseout.layers.call_context import is_inside_rnn
from keras_sparseout.layers.threshold_tracker import ThresholdTracker
from keras_sparseout.ops.threshold import threshold as cut
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("keras_sparseout")
class TargetSparsity(AdjustableLayer):
    """Sets small activations to 0, so that an asked share of them is exactly 0.

        y = x  where |x| > t,  else 0

    In training the threshold t follows the quantile of |x|, so that `target` of the
    activations of new data are zero, be it after ReLU, GELU, tanh, SiLU or gated units.
    It starts with the first batch. At inference, and if the layer is not `trainable`,
    t is a constant. Before any training it is 0. A NaN passes.

    Each call in training looks at about 4,000 to 16,000 activations, and moves t once:
    so a shared layer moves it at each of its places, and `TimeDistributed` at each
    timestep. Masked timesteps do not count. A small batch moves t less, one in which
    any of these is not finite not at all. All replicas of `tf.distribute` have one t.

    More activations than asked are zero where they are by themselves, as after a ReLU:
    then t is 0, and `natural_zeros` tells their share. A warning says so once, when
    the layer is called at inference after training. Fewer are zero where many are
    equal: half of the outputs of a saturated tanh may be 1, and if a threshold would
    set all of the largest to 0, it stays below them.

    Put it before a Dropout layer: dropped units are zeros in training alone. Behind
    BatchNormalization, zeros at inference need moving statistics that have arrived.

    Args:
        target: Share of the activations that is to be 0, a number >= 0 and < 1.
        axis: None for one threshold, -1 for one for each unit of the last dimension,
            such as a channel. Then `target` of each unit's activations are zero.
        centre: "mode" cuts what is within t of the mode c of the activations, which it
            follows in training as it does t; None cuts what is within t of 0.
        add_back: For centre="mode". True puts c in the place of what is cut and passes
            the rest as it is. Then c takes the place of the zeros. False returns x - c
            with exact zeros; the bias of the next layer has to make up for c.
        soft: Whether what passes shrinks by t, to x - t sign(x).
        straight_through: Whether the gradient passes where x is cut, too.
        momentum: How slowly t follows at most, a number >= 0 and < 1, as that of
            `keras.layers.BatchNormalization`. It follows faster while activations move.
        adjustable: Whether `target` is a variable. If so, assigning to `layer.target`
            takes effect at the next training step, without a retrace. Otherwise it is a
            constant of the compiled graph, and assigning raises.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Floating-point tensor, not ragged or sparse. For axis=-1 it has at least
            2 dimensions, the last one of known size.
        training: Whether to move the threshold; `fit` sets it.
        mask: Boolean tensor of the first dimensions of `inputs`, True where a timestep
            counts. Keras passes the mask of an Embedding or Masking layer.

    Output shape: Same as input.

    Raises:
        ValueError: if an argument is out of range, in a file too, the input or mask has
            a wrong shape or dtype, or the layer is inside an RNN cell.
        AttributeError: on assigning `target` of a layer that is not adjustable.

    Source: Kurtz et al. (2020), "Inducing and Exploiting Activation Sparsity for Fast
        Neural Network Inference" (FATReLU); Lee et al. (2024), "CATS: Contextually-
        Aware Thresholding for Sparsity in Large Language Models",
        https://arxiv.org/abs/2404.08763; Liu et al. (2024), "Training-Free Activation
        Sparsity in Large Language Models" (TEAL), https://arxiv.org/abs/2408.14690;
        Chua, Pan & Jain (2024), "Post-Training Statistical Calibration for Higher
        Activation Sparsity" (SCAP), https://arxiv.org/abs/2412.07174, for the mode.

    Example:

    >>> layer = TargetSparsity(0.5)
    >>> x = np.array([[1.0, -2.0, 3.0, -4.0]], "float32")
    >>> layer(x, training=True).numpy().tolist()
    [[0.0, 0.0, 3.0, -4.0]]
    >>> layer.threshold.numpy().item()
    2.0
    >>> layer(x / 2).numpy().tolist()
    [[0.0, 0.0, 0.0, 0.0]]
    """

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
        _check_centre(centre)
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
        self._momentum = momentum
        self._options = {
            "add_back": add_back,
            "soft": soft,
            "straight_through": straight_through,
        }
        self._thresholds: ThresholdTracker | None = None
        if axis is None:
            self._thresholds = ThresholdTracker(self, (), centre is not None)
            self.built = type(self).build is TargetSparsity.build

    target = Knob(validation.check_target, "Share of the activations that is to be 0")

    def build(self, input_shape: Shape) -> None:
        if self._thresholds is None:
            if not input_shape or len(input_shape) < 2 or input_shape[-1] is None:
                raise ValueError(
                    "`inputs` must have a batch dimension, and a last one of known "
                    f"size, for axis=-1. Received: inputs.shape={input_shape}. Give "
                    "axis=None for one threshold for all units."
                )
            shape = (input_shape[-1],)
            self._thresholds = ThresholdTracker(self, shape, self._centre is not None)

    @property
    def threshold(self) -> keras.Variable:
        """What |x| must exceed to pass, a variable of shape () or (units,)."""
        return self._made("threshold").threshold

    @property
    def centre_value(self) -> keras.Variable:
        """The mode, a variable of shape () or (units,); only for centre="mode"."""
        self._check_has_mode()
        return self._made("centre_value").mode

    @property
    def natural_zeros(self) -> float:
        """Share of the inputs that were 0 by themselves in training, a moving mean.

        With centre="mode" it is the share of the inputs that are equal to the mode.
        """
        return self._made("natural_zeros").natural_zeros

    def _check_has_mode(self):
        if self._centre is None:
            raise AttributeError(
                f"Layer {self.name!r} has no mode. Make it with "
                'TargetSparsity(..., centre="mode").'
            )

    def _made(self, name):
        if self._thresholds is None:
            raise AttributeError(
                f"Layer {self.name!r} has a `{name}` for each unit, and does not know "
                "yet how many there are. Call it first, or layer.build(input_shape)."
            )
        return self._thresholds

    def start(self, threshold: Any, centre: Any = None) -> None:
        """Sets the threshold from outside; training goes on from there.

        Args:
            threshold: What |x| must exceed to pass, a number >= 0, or one for each
                unit.
            centre: The mode, a number or one for each unit; only for centre="mode".
                None leaves it as it is.

        Raises:
            ValueError: if they are not finite numbers of the right shape, or the
                threshold is below 0.
        """
        if centre is not None:
            self._check_has_mode()
        self._made("threshold").start(threshold, centre)

    def call(
        self, inputs: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        self._check_inputs(inputs)
        thresholds = self._made("threshold")
        if training and self.trainable:
            target = self.read_knobs()["target"]
            t, c = thresholds.follow(inputs, mask, target, 1 - self._momentum)
        else:
            thresholds.warn_of_natural_zeros(lambda: self.target)
            t, c = thresholds.read()
        return cut(inputs, t, c, **self._options)

    def _check_inputs(self, inputs):
        if is_inside_rnn():
            raise ValueError(
                f"Layer {self.name!r} is inside an RNN cell, where its threshold would "
                "move at each timestep, and cut what the cell remembers. Received: a "
                "call by keras.layers.RNN. Put it behind the RNN layer."
            )
        validation.check_dense(inputs)
        validation.check_floating(inputs.dtype, "inputs")
        shape = validation.shape_of(inputs)
        if shape is None:
            return
        self.note_shape(shape)
        units = () if self._thresholds is None else self._thresholds.shape
        if units and (len(shape) < 2 or shape[-1] not in (None, *units)):
            raise ValueError(
                f"`inputs` must have {units[0]} units in the last dimension, and a "
                "batch dimension, since the layer has so many thresholds. Received: "
                f"inputs.shape={shape}. Make another layer for other inputs."
            )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def compute_output_spec(
        self,
        inputs: keras.KerasTensor,
        training: bool = False,
        mask: Tensor | None = None,
    ) -> keras.KerasTensor:
        self._check_inputs(inputs)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def _named_variables(self) -> dict[str, keras.Variable]:
        named = super()._named_variables()
        if self._thresholds is not None:
            named |= self._thresholds.variables
        return named

    def _values_in(self, store: Mapping[str, Any]) -> list[tuple[Any, np.ndarray]]:
        values = super()._values_in(store)
        if self._thresholds is not None:
            values += self._thresholds.values_in(store)
        return values

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self._axis,
            "centre": self._centre,
            **self._options,
            "momentum": self._momentum,
        }

    def _shown_knobs(self) -> list[str]:
        shown = super()._shown_knobs()
        with variables.outside_graph() as have_values:
            if have_values and getattr(self, "_thresholds", None) is not None:
                zeros = self.natural_zeros
                if zeros > self._read_knob("target"):
                    shown.append(f"natural_zeros={zeros:.2g},")
        return shown


def _check_axis(axis):
    if axis is None or (validation.is_int(axis) and axis == -1):
        return None if axis is None else -1
    rule = "None, for one threshold, or -1, for one for each unit"
    raise validation.value_error("axis", axis, rule, "Leave it out for None.")


def _check_centre(centre):
    if not (centre is None or centre == "mode"):
        rule = 'None, to cut around 0, or "mode"'
        raise validation.value_error("centre", centre, rule, "Leave it out for None.")
