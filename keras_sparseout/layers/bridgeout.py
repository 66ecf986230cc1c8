"""Bridgeout and Shakeout: noise on the weights of a layer."""

import math

import keras
import tensorflow as tf

from keras_sparseout.backend import compiling
from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.layers.weight_noise import WeightNoise
from keras_sparseout.ops import compiled_noise, noise
from keras_sparseout.utils import validation

# Number of elements from which a compiled call pays.
_LARGE = 2**15


@keras.saving.register_keras_serializable("keras_sparseout")
class Bridgeout(WeightNoise):
    """Perturbs weights of the layer that it wraps, as Sparseout does activations.

    In training the wrapped layer is called, in the place of a weight W, with

        keep ~ Bernoulli(1 - p)
        xi   = keep / (1 - p) - 1
        W~   = W (1 + (|W| + epsilon)^((q - 2) / 2) xi)
             = W + sign(W) |W|^(q / 2) xi   (to epsilon)

    so that E[W~] = W and Var[W~] = |W|^q p / (1 - p). At inference it is called with W.
    With q = 2 it is DropConnect; on the `recurrent_kernel` of an LSTM that is the
    weight drop of AWD-LSTM, and on an Embedding its embedding dropout. With other q it
    acts in a generalized linear model as an L_q penalty on the weights.

    There is one draw a weight and batch. The authors' code draws one a weight and
    example, which takes the memory of the weights times the batch size.

    The optimizer, regularizers, constraints, files and exports see W alone. Calls of
    the wrapped layer itself use W too. So does a ReversibleEmbedding with
    `reverse=True`, called through the wrapper or past it: it is then the output layer
    that shares the weights. A `.keras` file keeps a layer that is called both ways as
    one layer. `clone_model` and `to_json` of Keras make two, as of any layer in a
    wrapper.

    Around an RNN cell it draws once a sequence, before the loop of `keras.layers.RNN`.
    Put it around a `Bidirectional`, which takes no layer in a wrapper, or around the
    cell of an RNN inside of one. Put it inside a `SpectralNormalization`, which assigns
    the weights of its layer.

    Weights that `quantize` has turned into integers get no noise. A warning says so
    once.

    Args:
        layer: Keras layer to wrap, such as `keras.layers.Dense(64)`; an RNN cell too.
        rate: Drop rate p in [0, 1], rounded to a multiple of 2^-16 when drawn. With 1
            the weights are zeros.
        q: Exponent of the noise's variance, a finite number >= 0. Weights are small,
            of the order of 0.05, where q < 2 is much more noise than q = 2.
        weights: Names of the weights to perturb, such as `("recurrent_kernel",)`, also
            of layers inside `layer`. A name stands for all weights that have it; the
            end of a path of attributes or names of layers, such as
            "backward_layer/cell/kernel", for one of them. None: those named `kernel`;
            if there is none, `embeddings`; if neither, `depthwise_kernel` and
            `pointwise_kernel`.
        noise_shape: Tuple with one entry for each dimension of the weights: None for
            one draw an element, 1 for one draw along that dimension. None: one draw an
            element, but for `embeddings`, which have one a row, `(None, 1)`: a word is
            dropped wherever it is in the batch.
        seed: Integer, or None for a random one. Its state is saved with the weights, as
            are the states of dropout in `layer`: a resumed run goes on drawing where it
            stopped.
        epsilon: Added to |W|, >= 1e-30; it bounds the multiplier near W = 0. None:
            `keras.config.epsilon()`.
        stop_gradient: True holds the multiplier constant in the gradient: that of W is
            that of W~ times the multiplier. False takes the derivative of the formula.
            They agree only at q = 2.
        adjustable: Whether `rate` and `q` are variables, so that assigning to
            `layer.rate` or `layer.q` takes effect at the next training step, without a
            retrace. Otherwise assigning raises.
        **kwargs: `name`, `trainable`, `activity_regularizer`, as for every Keras layer.
            The dtype is that of `layer`.

    Call arguments: Those of `layer`.

    Output shape: That of `layer`.

    Raises:
        ValueError: if an argument is out of range, also in a file or `set_weights`,
            `layer` is no Keras layer or has no such floating-point weight, or
            `noise_shape` does not broadcast to it.
        AttributeError: on assigning `rate` or `q` of a layer that is not adjustable.

    Source: Khan, Shah & Stavness (2018), "Bridgeout: Stochastic Bridge Regularization
        for Deep Neural Networks", https://arxiv.org/abs/1804.08042; Wan et al. (2013),
        "Regularization of Neural Networks using DropConnect"; Merity, Keskar & Socher
        (2017), https://arxiv.org/abs/1708.02182.

    Example:

    >>> dense = keras.layers.Dense(3, kernel_initializer="ones")
    >>> layer = Bridgeout(dense, 0.5, seed=1)
    >>> x = np.ones((1, 2), "float32")
    >>> np.asarray(layer(x, training=True)).tolist()
    [[2.0, 4.0, 4.0]]
    >>> np.asarray(layer(x)).tolist()
    [[2.0, 2.0, 2.0]]
    """

    def __init__(
        self,
        layer,
        rate,
        q=2.0,
        weights=None,
        noise_shape=None,
        seed=None,
        *,
        epsilon=None,
        stop_gradient=True,
        adjustable=False,
        **kwargs,
    ):
        rate = validation.check_rate(rate)
        q = validation.check_q(q)
        # Before the weights of a built layer are checked against it.
        self._noise_shape = validation.check_noise_shape(noise_shape)
        self._epsilon = validation.check_epsilon(epsilon)
        self._stop_gradient = validation.check_bool("stop_gradient", stop_gradient)
        validation.check_bool("adjustable", adjustable)
        knobs = {"rate": rate, "q": q}
        super().__init__(knobs, adjustable, layer, weights, seed, **kwargs)

    noise_shape = property(lambda self: self._noise_shape)
    epsilon = property(lambda self: self._epsilon)
    stop_gradient = property(lambda self: self._stop_gradient)

    rate = Knob(validation.check_rate, "Drop rate")
    q = Knob(validation.check_q, "Exponent")

    def check_weight(self, weight):
        super().check_weight(weight)
        shape = tuple(weight.variable.shape)
        if not validation.noise_shape_fits(self._noise_shape, shape):
            raise ValueError(
                "`noise_shape` must have one entry for each dimension of the weights, "
                "each of them None, 1 or the size of that dimension. Received: "
                f"noise_shape={self._noise_shape!r} for {weight.variable.name} of "
                f"shape {shape}. Leave it out, or name other `weights`."
            )

    def noisy(self, weight, value, seed):
        shape = tuple(value.shape)
        noise_shape = self._noise_shape
        if noise_shape is None and weight.variable.name == "embeddings":
            noise_shape = (None,) + (1,) * (len(shape) - 1)
        knobs = self.read_knobs()
        settings = {"noise_shape": noise_shape, "epsilon": self._epsilon}
        large = math.prod(shape) >= _LARGE and compiling.pays(shape)
        if large and self._is_bounded(value):
            # The multiplier is computed once, and not again for the gradient.
            return value * compiled_noise.draw(
                noise.draw_multiplier, value, *knobs, seed, shape, **settings
            )
        settings["stop_gradient"] = self._stop_gradient
        if large:
            return compiled_noise.draw(
                noise.draw_and_perturb, value, *knobs, seed, shape, **settings
            )
        return noise.draw_and_perturb(value, *knobs, seed, **settings)

    def _is_bounded(self, value):
        """Whether products need no saturation, up to weights and gradients of 1e12."""
        if self._adjustable or not self._stop_gradient:
            return False
        exponent = (self._q - 2) / 2
        # Of the factor only the logarithm: for a large q it is no Python number.
        factor = max(exponent * math.log10(self._epsilon), exponent * 12)
        noise = factor + math.log10(2**16)
        return value.dtype in (tf.float32, tf.float64) and noise < 26

    def get_config(self):
        return {
            **super().get_config(),
            "noise_shape": self._noise_shape,
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
        }
