"""Penalties on activations: two plain rivals of Sparseout, and the two of AWD-LSTM."""

from typing import Any

import keras
from keras import ops

from keras_sparseout.backend import unknown_rank
from keras_sparseout.layers.adjustable import AdjustableLayer, Knob
from keras_sparseout.ops import penalties
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("keras_sparseout")
class ActivationPenalty(AdjustableLayer):
    """Adds a penalty on its input to the loss, and passes the input on unchanged.

    It computes the penalty P of each vector x along the last axis. The elements of x
    are the units, or in a convolution the channels at a position:

        kind "l1":            P(x) = sum_i |x_i|
        kind "hoyer_square":  P(x) = (sum_i |x_i|)^2 / (sum_i x_i^2 + epsilon^2)
        kind "ar":            P(x) = mean_i x_i^2
        kind "tar":           P(x) = mean_i (x_ti - x_(t-1)i)^2

    where t are the timesteps, along the second axis of the input. The loss is `weight`
    times the mean of P over all vectors of the batch. Masked timesteps do not count;
    for "tar" a pair of timesteps t - 1, t counts if neither is masked. A batch without
    vectors adds 0, and so do vectors without elements. Sample weights do not count. As
    with `keras.layers.ActivityRegularization`, the loss in `evaluate` contains the
    penalty too, a layer inside an RNN cell fails, and one inside a TimeDistributed adds
    the sum over the timesteps. Under `tf.distribute` the penalty is the mean over the
    replicas.

    "l1" shrinks all activations. Their scale (RMS) falls too, and the next layer can
    undo that with larger weights. "hoyer_square" ignores the scale: it is 1 if a single
    unit is active, n if all n units are equally active, and 0 for an all-zero vector.
    Where x is 0 the gradient of both is 0.

    "ar" and "tar" are the activation regularization and the temporal activation
    regularization of recurrent networks. AWD-LSTM puts "ar" with weight 2 after the
    dropout of the last layer's output, and "tar" with weight 1 before it.

    Args:
        weight: Factor of the penalty, a finite number >= 0. With weight 0 the layer
            adds no loss at all, unless it is adjustable.
        kind: "l1", "hoyer_square", "ar" or "tar".
        epsilon: Length of a vector below which "hoyer_square" falls to 0, >= 1e-30.
            This penalty ignores the scale, so its gradient grows as 1 / |x|, up to the
            order of n / epsilon, which float16 may not hold. Choose a larger epsilon,
            such as 1e-2, if nearly silent vectors make the training jump. None:
            `keras.config.epsilon()`.
        adjustable: Whether `weight` is a variable. If so, assigning to `layer.weight`
            takes effect at the next training step, without a retrace. Otherwise it is a
            constant of the compiled graph, and assigning raises.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Floating-point tensor, not ragged or sparse. It has at least 2
            dimensions, the features last; for "tar" at least 3, the timesteps second.
            The penalty of float16 and bfloat16 inputs is computed in float32. The loss
            has the dtype `keras.config.floatx()`, as the losses of Keras.
        mask: Boolean tensor of the first dimensions of `inputs`, True where a timestep
            counts. Keras passes the mask of an Embedding or Masking layer.

    Output shape: Same as input.

    Raises:
        ValueError: if an argument is out of range, in a file or `set_weights` too, or
            the input or mask has a wrong shape or dtype.
        AttributeError: on assigning `weight` of a layer that is not adjustable.

    Source: Yang, Wen & Li (2020), "DeepHoyer: Learning Sparser Neural Network with
        Differentiable Scale-Invariant Sparsity Measures",
        https://arxiv.org/abs/1908.09979, who use "hoyer_square" on weights; Merity,
        McCann & Socher (2017), "Revisiting Activation Regularization for Language
        RNNs", https://arxiv.org/abs/1708.01009.

    Example:

    >>> x = np.array([[3.0, 0.0, -1.0, 0.0], [2.0, 2.0, 2.0, 2.0]], "float32")
    >>> layer = ActivationPenalty(0.1)
    >>> layer(x).numpy().tolist() == x.tolist()
    True
    >>> [round(float(loss), 3) for loss in layer.losses]
    [0.6]
    >>> layer = ActivationPenalty(0.1, "hoyer_square")
    >>> y = layer(x)
    >>> [round(float(loss), 3) for loss in layer.losses]
    [0.28]
    >>> layer = ActivationPenalty(0.1, "tar")  # the rows as timesteps
    >>> y = layer(x[None])
    >>> [round(float(loss), 3) for loss in layer.losses]
    [0.45]
    """

    def __init__(
        self,
        weight: float,
        kind: penalties.Kind = "l1",
        *,
        epsilon: float | None = None,
        adjustable: bool = False,
        **kwargs: Any,
    ) -> None:
        weight = validation.check_weight(weight)
        kind = _check_kind(kind)
        epsilon = validation.check_epsilon(epsilon)
        validation.check_bool("adjustable", adjustable)
        validation.check_keywords(type(self).__name__, kwargs, ActivationPenalty)
        super().__init__({"weight": weight}, adjustable, **kwargs)
        self.supports_masking = True
        self._kind = kind
        self._epsilon = epsilon
        self.build_at_once()

    weight = Knob(validation.check_weight, "Factor of the penalty")

    @property
    def kind(self) -> penalties.Kind:
        """Which penalty it is."""
        return self._kind

    @property
    def epsilon(self) -> float:
        """Length of a vector below which "hoyer_square" falls to 0."""
        return self._epsilon

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        shape = self._check_inputs(inputs)
        if not self._adjustable and self._weight == 0:
            return inputs
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        x = ops.cast(inputs, "float64" if dtype == "float64" else "float32")
        if shape is None:
            x, mask = _to_known_rank(x, mask, self._kind)
        if mask is not None:
            mask = validation.check_mask(mask, x.shape[:-1])
            missing = [1] * (len(x.shape) - 1 - len(mask.shape))
            mask = ops.reshape(mask, (*ops.shape(mask), *missing))
        mean = penalties.mean_penalty(x, mask, self._kind, self._epsilon)
        loss = ops.cast(self._weight, x.dtype) * mean
        # The type of Keras' own losses, to which `fit` adds it.
        self.add_loss(ops.cast(loss, keras.config.floatx()))
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def compute_output_spec(
        self, inputs: keras.KerasTensor, mask: Tensor | None = None
    ) -> keras.KerasTensor:
        self._check_inputs(inputs)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self._kind, "epsilon": self._epsilon}

    def _check_inputs(self, inputs):
        """Returns the shape of `inputs`, None if their rank is not known."""
        validation.check_dense(inputs)
        validation.check_floating(inputs.dtype, "inputs")
        shape = validation.shape_of(inputs)
        if shape is None:
            return None
        self.note_shape(shape)
        if len(shape) < 2:
            raise ValueError(
                "`inputs` must have a batch and a feature dimension. Received: "
                f"inputs.shape={shape}. Reshape it to (samples, features)."
            )
        if self._kind == "tar" and len(shape) < 3:
            raise ValueError(
                '`inputs` must have a time dimension too for kind "tar". Received: '
                f"inputs.shape={shape}. Give sequences, (samples, timesteps, "
                "features), from a recurrent layer with return_sequences=True."
            )
        return shape


def _check_kind(kind):
    # A tuple: a list as `kind` can't be looked up in a dict.
    if kind not in penalties.KINDS:
        remedy = validation.did_you_mean(
            str(kind).lower(), penalties.KINDS, "Leave it out for 'l1'.", cutoff=0.55
        )
        raise ValueError(
            f"`kind` must be one of {', '.join(map(repr, penalties.KINDS))}. Received: "
            f"kind={kind!r}. {remedy}"
        )
    return kind


def _to_known_rank(x, mask, kind):
    """Returns `x`, whose rank is not known while tracing, and its mask with known rank.

    `x` has all vectors in one dimension. For "tar" there are three dimensions before
    the features: samples, timesteps, and all that is between those and the features.
    """
    kept = 2 if kind == "tar" else 0
    message = (
        '`inputs` must have a batch and a feature dimension, and for kind "tar" the '
        "timesteps between them."
    )
    return unknown_rank.merge_dimensions(x, mask, kept, message)
