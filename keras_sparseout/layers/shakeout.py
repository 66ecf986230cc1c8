"""Shakeout: noise that takes weights to -c sign(w)."""

import keras
import tensorflow as tf

from keras_sparseout.backend import numerics
from keras_sparseout.layers import weight_lookup
from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.layers.weight_noise import WeightNoise
from keras_sparseout.ops import masks
from keras_sparseout.utils import validation


@keras.saving.register_keras_serializable("keras_sparseout")
class Shakeout(WeightNoise):
    """Drops inputs of the layer that it wraps, or lets them flip the signs of weights.

    In training the wrapped layer is called, in the place of a weight W, with

        keep ~ Bernoulli(1 - p)                     one draw an input unit
        W~   = (W + c p sign(W)) / (1 - p)          where it is kept
             = -c sign(W)                           where it is not

    so that E[W~] = W and Var[W~] = (|W| + c)^2 p / (1 - p), where W is not 0. At
    inference it is called with W. With c = 0 it is Dropout of the layer's inputs; c > 0
    adds an L1 penalty to the L2 one of Dropout, and drives weights to 0. The derivative
    of sign(W) is taken to be 0.

    An input unit of a convolution is a channel, of an Embedding a row, of an
    EinsumDense a position along the axes that the kernel has in common with the input,
    and of a `recurrent_kernel` an entry of the state.

    There is one draw an input unit and batch, where Dropout has one an input unit and
    example. What holds for `Bridgeout` of weights, other calls, RNN cells, other
    wrappers and quantization holds here too.

    Args:
        layer: Keras layer to wrap, such as `keras.layers.Dense(64)`; an RNN cell too.
        rate: Drop rate p in [0, 1], rounded to a multiple of 2^-16 when drawn. With 1
            the weights are zeros, whatever c.
        c: What a dropped weight is left with, a finite number >= 0, to be compared with
            |W|, which is of the order of 0.05.
        weights: Names of the weights to perturb, as of `Bridgeout`.
        seed: Integer, or None for a random one. Its state is saved with the weights, as
            are the states of dropout in `layer`: a resumed run goes on drawing where it
            stopped.
        axis: Axis of the weights, or tuple of axes, along which the input units are.
            None: what it is in the layers of Keras; it has to be given for layers of
            another kind.
        adjustable: Whether `rate` and `c` are variables, so that assigning to
            `layer.rate` or `layer.c` takes effect at the next training step, without a
            retrace. Otherwise assigning raises.
        **kwargs: `name`, `trainable`, `activity_regularizer`, as for every Keras layer.
            The dtype is that of `layer`.

    Call arguments: Those of `layer`.

    Output shape: That of `layer`.

    Raises:
        ValueError: if an argument is out of range, also in a file or `set_weights`,
            `layer` is no Keras layer or has no such floating-point weight, or it is not
            known which axis of it is the input's.
        AttributeError: on assigning `rate` or `c` of a layer that is not adjustable.

    Source: Kang, Li & Tao (2016), "Shakeout: A New Regularized Deep Neural Network
        Training Scheme", AAAI.

    Example:

    >>> dense = keras.layers.Dense(2, kernel_initializer="ones")
    >>> layer = Shakeout(dense, 0.5, c=0.25, seed=1)
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    >>> np.asarray(layer(x, training=True)).tolist()
    [[-0.25, -0.25], [2.25, 2.25]]
    >>> np.asarray(layer(x)).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        layer,
        rate,
        c,
        weights=None,
        seed=None,
        *,
        axis=None,
        adjustable=False,
        **kwargs,
    ):
        rate = validation.check_rate(rate)
        c = validation.check_c(c)
        # Before the weights of a built layer are checked against it.
        self._axis = weight_lookup.check_axis(axis)
        validation.check_bool("adjustable", adjustable)
        knobs = {"rate": rate, "c": c}
        super().__init__(knobs, adjustable, layer, weights, seed, **kwargs)

    axis = property(lambda self: self._axis)

    rate = Knob(validation.check_rate, "Drop rate")
    c = Knob(validation.check_c, "What a dropped weight is left with")

    def check_weight(self, weight):
        super().check_weight(weight)
        self._mask_shape(weight)

    def noisy(self, weight, value, seed):
        rate, c = self.read_knobs()
        shape, repeats = self._mask_shape(weight)
        keep, keep_prob = masks.bernoulli(shape, rate, seed)
        if repeats > 1:
            keep = keras.ops.repeat(keep, repeats, axis=-1)
        return _shake(value, keep, keep_prob, c)

    def _mask_shape(self, weight):
        """Shape of the mask of a weight, and how often its last axis is repeated."""
        shape = tuple(weight.variable.shape)
        if self._axis is not None:
            axes = [axis + len(shape) if axis < 0 else axis for axis in self._axis]
            if all(0 <= axis < len(shape) for axis in axes):
                return _sizes(shape, axes), 1
            raise ValueError(
                "`axis` must be among the axes of the weights. Received: "
                f"axis={self._axis!r} for {weight.variable.name} of shape {shape}. "
                "Leave it out for a layer of Keras."
            )
        axes = weight_lookup.input_axes(weight)
        groups = getattr(weight.owner, "groups", 1)
        if groups == 1:
            return _sizes(shape, axes), 1
        # An input channel goes to the filters of its group alone.
        return (*_sizes(shape, axes)[:-1], groups), shape[-1] // groups

    def get_config(self):
        return {**super().get_config(), "axis": self._axis}


@numerics.unchecked()
def _shake(weight, keep, keep_prob, c):
    """r W + c sign(W) (r - 1) for r = keep / keep_prob, and zeros for keep_prob 0."""
    dtype = weight.dtype
    wide = tf.float64 if dtype == tf.float64 else tf.float32
    keep_prob = tf.cast(keep_prob, wide)
    r = tf.where(keep & (keep_prob > 0), 1 / keep_prob, 0)
    flip = tf.where(keep_prob > 0, tf.cast(c, wide), 0) * (r - 1)

    # Spelled out: an automatic gradient would be 0 where the value is saturated.
    @tf.custom_gradient
    def apply(w):
        def grad(upstream):
            product = tf.cast(upstream, wide) * r
            if dtype == wide:
                return product
            # What is not finite stays so: a loss-scaling optimizer looks for it.
            cut = keras.ops.saturate_cast(product, dtype)
            return tf.where(tf.math.is_finite(upstream), cut, upstream)

        w = tf.cast(w, wide)
        noisy = tf.clip_by_value(w * r + flip * tf.sign(w), dtype.min, dtype.max)
        return tf.cast(noisy, dtype), grad

    return apply(weight)


def _sizes(shape, axes):
    return tuple(size if axis in axes else 1 for axis, size in enumerate(shape))
