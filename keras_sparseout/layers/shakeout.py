"""Shakeout: noise that takes weights to -c sign(w)."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras
import ml_dtypes
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.layers.weight_lookup import Weight
from keras_sparseout.layers.weight_noise import WeightNoise
from keras_sparseout.ops import masks
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

_LAYERS = keras.layers
# Their weights have the input units along the axis before the last, or along the last.
_INPUTS_BEFORE_LAST = (
    *(_LAYERS.Dense, _LAYERS.Embedding),
    *(_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D),
    *(_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D),
    *(_LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D),
    *(_LAYERS.LSTMCell, _LAYERS.GRUCell, _LAYERS.SimpleRNNCell),
)
_INPUTS_LAST = (
    _LAYERS.Conv1DTranspose,
    _LAYERS.Conv2DTranspose,
    _LAYERS.Conv3DTranspose,
)
_KERNELS = (
    "kernel",
    "recurrent_kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "embeddings",
)


@keras.saving.register_keras_serializable("keras_sparseout")
class Shakeout(WeightNoise):
    """Drops input units of the wrapped layer: their weights become -c sign(W), not 0.

    In training it calls the wrapped layer with W~ in the place of a weight W:

        keep ~ Bernoulli(1 - p)                     one draw per input unit
        W~   = (W + c p sign(W)) / (1 - p)          where it is kept
             = -c sign(W)                           where it is not

    so that E[W~] = W and Var[W~] = (|W| + c)^2 p / (1 - p), where W is not 0. At
    inference it calls the layer with W. With c = 0 it is Dropout of the layer's inputs.
    Dropout acts as an L2 penalty; c > 0 adds an L1 penalty, which drives weights to 0.
    The derivative of sign(W) is taken to be 0.

    An input unit is a channel for a convolution, a row for an Embedding, and an entry
    of the state for a `recurrent_kernel`. For an EinsumDense it is a position along the
    axes that the kernel has in common with the input.

    It draws once per input unit and batch, Dropout once per input unit and example.
    What `Bridgeout` says of the optimizer and files, other calls of the layer, RNN
    cells, other wrappers and quantization holds here too.

    Args:
        layer: Keras layer to wrap, such as `keras.layers.Dense(64)`, or an RNN cell.
        rate: Drop rate p in [0, 1], rounded to a multiple of 2^-32 when drawn. With 1
            the weights are zeros, whatever c.
        c: Magnitude of a dropped weight, a finite number >= 0. Compare it with |W|,
            which is about 0.05.
        weights: Names of the weights to perturb, as for `Bridgeout`.
        seed: Integer, or None for a random one. Its state is saved with the weights,
            and so are the states of dropout in `layer`: a resumed run continues the
            draws where it stopped.
        axis: Axis of the weights, or tuple of axes, along which the input units are.
            None: the axes that the layers of Keras have; give it for other layers.
        adjustable: Whether `rate` and `c` are variables, so that assigning to
            `layer.rate` or `layer.c` takes effect at the next training step, without a
            retrace. Otherwise assigning raises.
        **kwargs: `name`, `trainable`, `activity_regularizer`, as for every Keras layer.
            It takes its dtype from `layer`.

    Call arguments: Those of `layer`, and `training`, by keyword.

    Output shape: Same as for `layer`.

    Raises:
        ValueError: if an argument is out of range, also in a file or `set_weights`,
            `layer` is no Keras layer, has no such floating-point weight or a
            tf.function of its own around it, or the axis of its input units
            is not known.
        AttributeError: on assigning `rate` or `c` of a layer that is not adjustable.

    Source: Kang, Li & Tao (2016), "Shakeout: A New Regularized Deep Neural Network
        Training Scheme", AAAI.

    Example:

    >>> dense = keras.layers.Dense(2, kernel_initializer="ones")
    >>> layer = Shakeout(dense, 0.5, c=0.25, seed=3)
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> np.asarray(layer(x, training=True)).tolist()
    [[-0.25, -0.25], [2.25, 2.25]]
    >>> np.asarray(layer(x)).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        rate: float,
        c: float,
        weights: str | Sequence[str] | None = None,
        seed: int | None = None,
        *,
        axis: int | Sequence[int] | None = None,
        adjustable: bool = False,
        **kwargs: Any,
    ) -> None:
        rate = validation.check_rate(rate)
        c = validation.check_c(c)
        # Set first: `super().__init__` checks the weights of a built layer with it.
        self._axis = _check_axis(axis)
        validation.check_bool("adjustable", adjustable)
        knobs = {"rate": rate, "c": c}
        super().__init__(knobs, adjustable, layer, weights, seed, **kwargs)

    @property
    def axis(self) -> tuple[int, ...] | None:
        """The argument, as a tuple."""
        return self._axis

    rate = Knob(validation.check_rate, "Drop rate")
    c = Knob(validation.check_c, "Magnitude of a dropped weight")

    def check_weight(self, weight: Weight) -> None:
        super().check_weight(weight)
        self._mask(weight)

    def perturb_weight(self, weight: Weight, value: Tensor, seed: Tensor) -> Tensor:
        knobs = self.read_knobs()
        keep, keep_prob = self._mask(weight).draw(knobs["rate"], seed)
        return _perturb(value, keep, keep_prob, knobs["c"])

    def _mask(self, weight):
        shape = tuple(weight.variable.shape)
        if self._axis is not None:
            axes = [axis + len(shape) if axis < 0 else axis for axis in self._axis]
            if all(0 <= axis < len(shape) for axis in axes):
                return _Mask(_sizes(shape, axes))
            raise ValueError(
                "`axis` must be among the axes of the weights. Received: "
                f"axis={self._axis!r} for {weight.variable.name} of shape {shape}. "
                "Leave it out for a layer of Keras."
            )
        sizes = _sizes(shape, _input_axes(weight))
        groups = getattr(weight.owner, "groups", 1)
        if groups == 1:
            return _Mask(sizes)
        # Each input channel meets only the filters of its group.
        return _Mask((*sizes[:-1], groups), repeats=shape[-1] // groups)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self._axis}


class _Mask(NamedTuple):
    """The mask of a weight: the shape to draw, and how often to repeat the last axis.

    The mask then broadcasts to the weight.
    """

    shape: tuple[int, ...]
    repeats: int = 1

    def draw(self, rate: float | Tensor, seed: Tensor) -> tuple[Tensor, float | Tensor]:
        """Returns the mask, True where a weight is kept, and the probability of it."""
        keep, keep_prob = masks.bernoulli(self.shape, rate, seed)
        if self.repeats > 1:
            keep = ops.repeat(keep, self.repeats, axis=-1)
        return keep, keep_prob


def _sizes(shape: tuple[int, ...], axes: Collection[int]) -> tuple[int, ...]:
    """`shape` with 1 along all axes but `axes`."""
    return tuple(size if axis in axes else 1 for axis, size in enumerate(shape))


@numerics.unchecked()
def _perturb(
    weight: Tensor, keep: Tensor, keep_prob: float | Tensor, c: float | Tensor
) -> Tensor:
    """r W + c sign(W) (r - 1) for r = keep / keep_prob, and zeros for keep_prob 0."""
    dtype = keras.backend.standardize_dtype(weight.dtype)
    wide = "float64" if dtype == "float64" else "float32"
    limit = float(ml_dtypes.finfo(dtype).max)
    keep_prob = ops.cast(keep_prob, wide)
    r = ops.where(keep & (keep_prob > 0), 1 / keep_prob, 0)
    flip = ops.where(keep_prob > 0, ops.cast(c, wide), 0) * (r - 1)

    # The automatic gradient would be 0 where the value is saturated.
    @ops.custom_gradient
    def apply(w):
        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            product = ops.cast(upstream, wide) * r
            if dtype == wide:
                return product
            # What is not finite stays so: a loss-scaling optimizer looks for it.
            cut = ops.saturate_cast(product, dtype)
            return ops.where(ops.isfinite(upstream), cut, upstream)

        w = ops.cast(w, wide)
        noisy = ops.clip(w * r + flip * ops.sign(w), -limit, limit)
        return ops.cast(noisy, dtype), grad

    return apply(weight)


def _input_axes(weight: Weight) -> set[int]:
    """The axes of a weight along which the input units of its layer are."""
    variable, owner = weight.variable, weight.owner
    rank = len(variable.shape)
    if variable.name in _KERNELS:
        if isinstance(owner, _INPUTS_BEFORE_LAST):
            return {rank - 2}
        if isinstance(owner, _INPUTS_LAST):
            return {rank - 1}
        if isinstance(owner, keras.layers.EinsumDense):
            inputs, rest = owner.equation.split(",")
            kernel, _ = rest.split("->")
            axes = {axis for axis, letter in enumerate(kernel) if letter in inputs}
            if axes:
                return axes
    raise ValueError(
        "`weights` must be kernels of layers of Keras, where the axis of the input "
        "units is known, unless `axis` says it. Received: "
        f"{variable.name} of shape {tuple(variable.shape)} of "
        f"{type(owner).__name__} {owner.name!r}. "
        "Give axis=-2 if it is the one before the last."
    )


def _check_axis(axis: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Returns `axis` as a tuple of integers, or None; raises unless it is one."""
    if axis is None:
        return None
    axes = (axis,) if validation.is_int(axis) else axis
    if (
        not isinstance(axes, (tuple, list))
        or not axes
        or not all(validation.is_int(a) for a in axes)
    ):
        raise ValueError(
            "`axis` must be an integer or a tuple of integers, the axes of the weights "
            f"along which the input units are, or None. Received: axis={axis!r}. Leave "
            "it out for a layer of Keras."
        )
    return tuple(int(a) for a in axes)
