"""The Sparseout layer: a drop-in for keras.layers.Dropout."""

from typing import Any

import keras
import tensorflow as tf

from keras_sparseout.backend import compiling
from keras_sparseout.layers.adjustable import knob
from keras_sparseout.layers.seeded import Seeded
from keras_sparseout.ops import compiled_noise, masks, noise
from keras_sparseout.utils import validation


@keras.saving.register_keras_serializable("keras_sparseout")
class Sparseout(Seeded):
    """Dropout with an exponent q that sets how sparse the activations become.

    In training, for an input x and a drop rate p,

        keep ~ Bernoulli(1 - p)
        xi   = keep / (1 - p) - 1
        y    = x (1 + (|x| + epsilon)^((q - 2) / 2) xi)

    so that E[y] = x and Var[y] = |x|^q p / (1 - p). At inference y = x. With q = 2 it
    is `keras.layers.Dropout`; q < 2 makes the activations that it is applied to sparser
    and q > 2 denser. For q != 2 a dropped unit is not 0: look at the sparsity of the
    layer's *input*, as `keras_sparseout.SparsityTracker` does.

    Sparsity is not free: at q <= 1 accuracy falls, and far below that units die.

    Args:
        rate: Drop rate p in [0, 1], rounded to a multiple of 2^-16 when drawn.
        q: Exponent of the noise's variance, a finite number >= 0.
        noise_shape: Tuple with one entry for each dimension of the input, the batch
            among them: None for one draw an element, 1 for one draw along that
            dimension. `(None, 1, None)` draws one mask a sequence, the same at each of
            its timesteps. None: one draw an element.
        seed: Integer, or None for a random one. Its state is saved with the weights, so
            that a resumed run draws on where it stopped.
        epsilon: Added to |x|, >= 1e-30; it bounds the multiplier near x = 0, where for
            q <= 1 and activations with density at 0 (tanh, LSTM) its variance grows
            without bound as epsilon falls. The authors' release has 1e-12. None:
            `keras.config.epsilon()`.
        stop_gradient: True holds the multiplier constant in the gradient, as in the
            authors' release; False takes the derivative of the formula. They agree only
            at q = 2; with True the range of sparsity is the wider one. For q != 2 the
            held gradient is that of no loss function, see
            `keras_sparseout.ops.sparseout`.
        adjustable: Whether `rate` and `q` are variables, so that assigning to
            `layer.rate` or `layer.q` takes effect at the next training step, without a
            retrace. Otherwise they are constants of the compiled graph: faster, no
            weights, and assigning raises.
        jit_compile: Whether the call is compiled with XLA, also in a model that is not:
            True, False, or "auto" for wherever every dimension but the batch is known.
            XLA compiles anew for each batch size, so give False where it keeps
            changing. One seed gives different masks with and without.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Floating-point tensor of any shape, also of unknown rank; dense, not
            ragged or sparse.
        training: Whether to perturb; `fit` sets it.

    Output shape: Same as input.

    Raises:
        ValueError: if an argument is out of range, also in a file or `set_weights`, or
            `noise_shape` does not broadcast to the input.
        AttributeError: on assigning `rate` or `q` of a layer that is not adjustable.

    Source: Khan & Stavness (2019), "Sparseout: Controlling Sparsity in Deep Networks",
        https://arxiv.org/abs/1904.08050.

    Example:

    >>> layer = Sparseout(0.5, q=1.0, seed=1)
    >>> x = np.array([[4.0, 4.0, 4.0, 4.0]], "float32")
    >>> np.round(layer(x, training=True)).tolist()
    [[6.0, 2.0, 2.0, 6.0]]
    >>> np.round(layer(x)).tolist()
    [[4.0, 4.0, 4.0, 4.0]]
    """

    def __init__(
        self,
        rate,
        q=2.0,
        noise_shape=None,
        seed=None,
        *,
        epsilon=None,
        stop_gradient=True,
        adjustable=False,
        jit_compile="auto",
        **kwargs,
    ):
        rate = validation.check_rate(rate)
        q = validation.check_q(q)
        noise_shape = validation.check_noise_shape(noise_shape)
        epsilon = validation.check_epsilon(epsilon)
        validation.check_bool("stop_gradient", stop_gradient)
        validation.check_bool("adjustable", adjustable)
        _check_jit_compile(jit_compile)
        validation.check_keywords(type(self).__name__, kwargs, Sparseout)
        super().__init__({"rate": rate, "q": q}, adjustable, seed, **kwargs)
        self.supports_masking = True
        self._noise_shape = noise_shape
        self._epsilon = epsilon
        self._stop_gradient = stop_gradient
        self._jit_compile = jit_compile
        self.build_at_once()

    noise_shape = property(lambda self: self._noise_shape)
    epsilon = property(lambda self: self._epsilon)
    stop_gradient = property(lambda self: self._stop_gradient)
    jit_compile = property(lambda self: self._jit_compile)

    rate = knob("rate", validation.check_rate, "Drop rate")
    q = knob("q", validation.check_q, "Exponent")

    def call(self, inputs, training=False):
        self._check_inputs(inputs)
        if not training or (not self._adjustable and self._rate == 0):
            return inputs
        if inputs.shape.rank is None:
            return self._perturb_any(inputs)
        return self._perturb(inputs, self._compiles(inputs))

    def _perturb_any(self, inputs):
        """Perturbs a tensor whose rank is not known while tracing."""
        compiles = self._jit_compile is True
        if self._noise_shape is not None:
            shape = [None] * len(self._noise_shape)
            return self._perturb(tf.ensure_shape(inputs, shape), compiles)
        flat = self._perturb(tf.reshape(inputs, [-1]), compiles)
        return tf.reshape(flat, tf.shape(inputs))

    def _perturb(self, inputs, compiles):
        seed = masks.seed_pair(self.seed_generator)
        knobs = (self._rate, self._q)
        settings: dict[str, Any] = {
            "noise_shape": self._noise_shape,
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
        }
        if self._adjustable:
            knobs = tuple(tf.convert_to_tensor(variable) for variable in knobs)
        if not compiles:
            return noise.draw_and_perturb(inputs, *knobs, seed, **settings)
        shape = (None, *inputs.shape[1:]) if inputs.shape.rank else ()
        return compiled_noise.draw_and_perturb(inputs, *knobs, seed, shape, **settings)

    def _compiles(self, inputs):
        if self._jit_compile != "auto":
            return self._jit_compile
        return compiling.pays(inputs.shape)

    def _check_inputs(self, inputs):
        validation.check_dense(inputs)
        validation.check_floating(inputs.dtype, "inputs")
        shape = validation.shape_of(inputs)
        if shape is not None:
            self._check_shape(shape)
            self.note_shape(shape)

    def _check_shape(self, shape):
        validation.check_noise_shape_fits(self._noise_shape, shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, training=False):
        self._check_inputs(inputs)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "noise_shape": self._noise_shape,
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
            "jit_compile": self._jit_compile,
        }


def _check_jit_compile(jit_compile):
    if not (isinstance(jit_compile, bool) or jit_compile == "auto"):
        raise ValueError(
            '`jit_compile` must be True, False or "auto". Received: '
            f"jit_compile={jit_compile!r}. Leave it out for the default."
        )
