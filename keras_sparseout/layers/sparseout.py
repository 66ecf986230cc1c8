"""The Sparseout layer: a drop-in for keras.layers.Dropout."""

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_sparseout.backend import compiling, tensors, unknown_rank
from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.layers.seeded import SeededLayer
from keras_sparseout.ops import compiled_noise, masks, noise
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("keras_sparseout")
class Sparseout(SeededLayer):
    """Dropout with an exponent q that sets how sparse the activations become.

    In training, for an input x and a drop rate p,

        keep ~ Bernoulli(1 - p)
        xi   = keep / (1 - p) - 1
        y    = x (1 + (|x| + epsilon)^((q - 2) / 2) xi)

    so that E[y] = x and Var[y] = |x|^q p / (1 - p). At inference y = x. With q = 2 the
    layer is `keras.layers.Dropout`. In training, q < 2 makes the inputs of the layer
    sparser, and q > 2 makes them denser. For q != 2 a dropped unit is not 0, so measure
    the sparsity of the layer's *input*, as `keras_sparseout.SparsityTracker` does.

    Sparsity has a price: as q falls to 1 and below, accuracy falls and units die.

    Args:
        rate: Drop rate p in [0, 1]. The masks round it to a multiple of 2^-32.
        q: Exponent of the noise's variance, a finite number >= 0.
        noise_shape: Shape of the mask, a tuple with one entry for each dimension of the
            input, the batch included: None for the size of that dimension, or 1 to
            share one draw along it. `(None, 1, None)` draws one mask for a sequence and
            uses it at each timestep. None (default): one draw for each element.
        seed: Integer, or None for a random one. The state of the generator is saved
            with the weights, so a resumed run continues the sequence of draws.
        epsilon: Added to |x|, >= 1e-30. It bounds the multiplier near x = 0. For q <= 1
            and activations with density at 0 (tanh, LSTM), the variance of the
            multiplier grows without bound as epsilon falls. The authors' release uses
            1e-12. None: `keras.config.epsilon()`.
        stop_gradient: True treats the multiplier as a constant in the gradient, as the
            authors' release does. False takes the derivative of the formula. The two
            agree only at q = 2, and True reaches a wider range of sparsity. For q != 2
            its gradient belongs to no loss function, see
            `keras_sparseout.ops.sparseout`.
        adjustable: Whether `rate` and `q` are variables. If so, assigning to
            `layer.rate` or `layer.q` takes effect at the next training step, without a
            retrace. Otherwise they are constants of the compiled graph: that is faster,
            adds no weights, and assigning raises.
        target_fraction: Share of the units of each sample that is perturbed, those with
            the smallest |x|, in [0, 1]. Of m units these are int(target_fraction m), or
            fewer if the next larger unit ties with some: none of a tie is perturbed.
            The others, and their gradients, pass unchanged. A unit is an element; in
            inputs of 4 and more dimensions a channel, the last dimension, by its L2
            norm; and where `noise_shape` has a 1 behind the batch, the elements that
            share a draw, by their L2 norm. The authors' later code defines it so, with
            channels first, and uses 0.75. 0 perturbs nothing.
        jit_compile: Whether XLA compiles the call, even in a model that it does not
            compile: True, False, or "auto". That compiles if every dimension but the
            batch is known: on a GPU always, but never on one of Apple's; on a CPU
            inputs of 8,192 elements and more, a batch of unknown size counting as 128.
            XLA compiles again for each batch size, so set False if yours keeps
            changing.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Floating-point tensor of any shape, even of unknown rank; dense, not
            ragged or sparse. With `target_fraction` below 1 it has at least 2
            dimensions, the batch first, and if `noise_shape` is None, a known rank.
        training: Whether to perturb; `fit` sets it.

    Output shape: Same as input.

    Raises:
        ValueError: if an argument is out of range, in a file or `set_weights` too, or
            `noise_shape` does not broadcast to the input, or the input has no units to
            take a share of.
        AttributeError: on assigning `rate` or `q` of a layer that is not adjustable.

    Source: Khan & Stavness (2019), "Sparseout: Controlling Sparsity in Deep Networks",
        https://arxiv.org/abs/1904.08050; for `target_fraction` the code of Khan &
        Stavness (2020), "Pruning Convolutional Filters using Batch Bridgeout",
        https://arxiv.org/abs/2009.10893.

    Example:

    >>> layer = Sparseout(0.5, q=1.0, seed=45)
    >>> x = np.array([[4.0, 4.0, 4.0, 4.0]], "float32")
    >>> np.round(layer(x, training=True)).tolist()
    [[6.0, 2.0, 2.0, 6.0]]
    >>> np.round(layer(x)).tolist()
    [[4.0, 4.0, 4.0, 4.0]]
    >>> layer = Sparseout(0.5, q=1.0, seed=45, target_fraction=0.75)
    >>> np.round(layer(np.array([[4.0, 9.0, 1.0, 4.0]]), training=True)).tolist()
    [[6.0, 9.0, 0.0, 6.0]]
    """

    def __init__(
        self,
        rate: float,
        q: float = 2.0,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        *,
        epsilon: float | None = None,
        stop_gradient: bool = True,
        adjustable: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        target_fraction: float = 1.0,
        **kwargs: Any,
    ) -> None:
        rate = validation.check_rate(rate)
        q = validation.check_q(q)
        mask_shape: Shape | None = validation.check_noise_shape(noise_shape)
        epsilon = validation.check_epsilon(epsilon)
        validation.check_bool("stop_gradient", stop_gradient)
        validation.check_bool("adjustable", adjustable)
        _check_jit_compile(jit_compile)
        target_fraction = validation.check_target_fraction(target_fraction)
        validation.check_keywords(type(self).__name__, kwargs, Sparseout)
        super().__init__({"rate": rate, "q": q}, adjustable, seed, **kwargs)
        self.supports_masking = True
        self._first_q = q
        self._noise_shape = mask_shape
        self._epsilon = epsilon
        self._stop_gradient = stop_gradient
        self._jit_compile = jit_compile
        self._target_fraction = target_fraction
        self.build_at_once()

    rate = Knob(validation.check_rate, "Drop rate")
    q = Knob(validation.check_q, "Exponent")

    @property
    def noise_shape(self) -> Shape | None:
        """Shape of the mask, None for the shape of the input."""
        return self._noise_shape

    @property
    def epsilon(self) -> float:
        """What is added to |x|."""
        return self._epsilon

    @property
    def stop_gradient(self) -> bool:
        """Whether the multiplier is a constant in the gradient."""
        return self._stop_gradient

    @property
    def jit_compile(self) -> bool | Literal["auto"]:
        """Whether XLA compiles the call."""
        return self._jit_compile

    @property
    def target_fraction(self) -> float:
        """Share of the units of a sample that is perturbed."""
        return self._target_fraction

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        shape = self._check_inputs(inputs)
        if not training or self._target_fraction == 0:
            return inputs
        if not self._adjustable and self._rate == 0:
            return inputs
        if shape is not None:
            return self._perturb(inputs, shape)
        if self._noise_shape is None:
            self._check_rank_may_be_unknown()
            return unknown_rank.call_flat(lambda x: self._perturb(x, None), inputs)
        inputs = tensors.ensure_shape(inputs, [None] * len(self._noise_shape))
        return self._perturb(inputs, None)

    def _perturb(self, inputs, shape):
        """Perturbs `inputs`, whose `shape` is None if their rank was not known."""
        rate, q = self.read_knobs().values()
        seed = masks.seed_pair(self.seed_generator)
        settings: dict[str, Any] = {
            "noise_shape": self._noise_shape,
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
            "target_fraction": self._target_fraction,
        }
        if not self._compiles(shape):
            return noise.draw_and_perturb(inputs, rate, q, seed, **settings)
        # One program serves all batch sizes.
        shape = (None, *inputs.shape[1:]) if len(inputs.shape) else ()
        return compiled_noise.draw_and_perturb(
            *(inputs, rate, q, seed, shape), usual_q=self._first_q, **settings
        )

    def _compiles(self, shape):
        if self._jit_compile != "auto":
            return self._jit_compile
        if shape is None or not compiling.pays(shape):
            return False
        # On a GPU each plain operation is a program that has to be started.
        return compiling.on_gpu() or not compiling.is_small(shape)

    def _check_inputs(self, inputs):
        """Returns the shape of `inputs`, None if their rank is not known."""
        validation.check_dense(inputs)
        validation.check_floating(inputs.dtype, "inputs")
        shape = validation.shape_of(inputs)
        if shape is not None:
            self._check_shape(shape)
            validation.check_has_units(self._target_fraction, shape)
            self.note_shape(shape)
        return shape

    def _check_shape(self, shape):
        validation.check_noise_shape_fits(self._noise_shape, shape)

    def _check_rank_may_be_unknown(self):
        try:
            validation.check_has_units(self._target_fraction, None)
        except ValueError as error:
            raise ValueError(f"Layer {self.name!r}: {error}") from None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def compute_output_spec(
        self, inputs: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        self._check_inputs(inputs)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "noise_shape": self._noise_shape,
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
            "jit_compile": self._jit_compile,
        }
        if self._target_fraction < 1:
            # Only then, so that versions without it load the files of all others.
            config["target_fraction"] = self._target_fraction
        return config


def _check_jit_compile(jit_compile):
    if not (isinstance(jit_compile, bool) or jit_compile == "auto"):
        raise ValueError(
            '`jit_compile` must be True, False or "auto". Received: '
            f"jit_compile={jit_compile!r}. Leave it out for the default."
        )
