"""Bridgeout: Sparseout's noise on the weights of a layer."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sparseout.backend import compiling
from keras_sparseout.layers import call_context, table_lookup
from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.layers.weight_lookup import Weight
from keras_sparseout.layers.weight_noise import WeightNoise
from keras_sparseout.layers.wrapped_call import WrappedCall
from keras_sparseout.ops import compiled_noise, masks, noise
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor


@keras.saving.register_keras_serializable("keras_sparseout")
class Bridgeout(WeightNoise):
    """Perturbs weights of the layer that it wraps, as Sparseout does activations.

    In training it calls the wrapped layer with W~ in the place of a weight W:

        keep ~ Bernoulli(1 - p)
        xi   = keep / (1 - p) - 1
        W~   = W (1 + (|W| + epsilon)^((q - 2) / 2) xi)
             = W + sign(W) |W|^(q / 2) xi   (to epsilon)

    so that E[W~] = W and Var[W~] = |W|^q p / (1 - p). At inference it calls the layer
    with W. With q = 2 it is DropConnect: on the `recurrent_kernel` of an LSTM the
    weight drop of AWD-LSTM, on an Embedding the embedding dropout of AWD-LSTM. With
    other q it acts as an L_q penalty on the weights of a generalized linear model.

    It draws once per weight and batch. The authors' code draws once per weight and
    example, which takes memory for the weights times the batch size.

    The optimizer, regularizers, constraints, files and exports see W alone. So do calls
    of the wrapped layer itself. A ReversibleEmbedding called with `reverse=True` uses W
    too, also through the wrapper: it is then the output layer that shares the weights.
    A `.keras` file keeps a layer that is called both ways as one layer. `clone_model`
    and `to_json` of Keras make two, as they do of any layer in a wrapper.

    Around an RNN cell it draws once per sequence, before the loop of
    `keras.layers.RNN`. A `Bidirectional` takes no layer in a wrapper: put Bridgeout
    around it, or around the cell of an RNN inside it. A `SpectralNormalization` assigns
    the weights of its layer: put Bridgeout inside it.

    Weights that `quantize` has turned into integers get no noise. A warning says so
    once.

    Args:
        layer: Keras layer to wrap, such as `keras.layers.Dense(64)`, or an RNN cell.
        rate: Drop rate p in [0, 1], rounded to a multiple of 2^-32 when drawn. With 1
            the weights are zeros.
        q: Exponent of the noise's variance, a finite number >= 0. Weights are small,
            about 0.05, so q < 2 gives much more noise than q = 2.
        weights: Names of the weights to perturb, such as `("recurrent_kernel",)`, also
            of layers inside `layer`. A name stands for all weights that have it. For
            one of them, give the end of its path of attributes or names of layers, such
            as "backward_layer/cell/kernel". None: the weights named `kernel`; if there
            is none, `embeddings`; if there is none, `depthwise_kernel` and
            `pointwise_kernel`.
        noise_shape: Tuple with one entry for each dimension of the weights: None for
            one draw per element, 1 for one draw along that dimension. None: one draw
            per element, but for `embeddings` one per row, `(None, 1)`: a word is
            dropped everywhere in the batch.
        seed: Integer, or None for a random one. Its state is saved with the weights,
            and so are the states of dropout in `layer`: a resumed run continues the
            draws where it stopped.
        epsilon: Added to |W|, >= 1e-30; it bounds the multiplier near W = 0. None:
            `keras.config.epsilon()`.
        stop_gradient: True holds the multiplier constant in the gradient: the gradient
            of W is the gradient of W~ times the multiplier. False takes the derivative
            of the formula. They agree only at q = 2.
        adjustable: Whether `rate` and `q` are variables, so that assigning to
            `layer.rate` or `layer.q` takes effect at the next training step, without a
            retrace. Otherwise assigning raises.
        **kwargs: `name`, `trainable`, `activity_regularizer`, as for every Keras layer.
            It takes its dtype from `layer`.

    Call arguments: Those of `layer`, and `training`, by keyword.

    Output shape: Same as for `layer`.

    Raises:
        ValueError: if an argument is out of range, also in a file or `set_weights`,
            `layer` is no Keras layer, has no such floating-point weight or a
            tf.function of its own around it, or `noise_shape` does not broadcast to it.
        AttributeError: on assigning `rate` or `q` of a layer that is not adjustable.

    Source: Khan, Shah & Stavness (2018), "Bridgeout: Stochastic Bridge Regularization
        for Deep Neural Networks", https://arxiv.org/abs/1804.08042; Wan et al. (2013),
        "Regularization of Neural Networks using DropConnect"; Merity, Keskar & Socher
        (2017), https://arxiv.org/abs/1708.02182.

    Example:

    >>> dense = keras.layers.Dense(3, kernel_initializer="ones")
    >>> layer = Bridgeout(dense, 0.5, seed=47)
    >>> x = np.ones((1, 2), "float32")
    >>> np.asarray(layer(x, training=True)).tolist()
    [[2.0, 4.0, 4.0]]
    >>> np.asarray(layer(x)).tolist()
    [[2.0, 2.0, 2.0]]
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        rate: float,
        q: float = 2.0,
        weights: str | Sequence[str] | None = None,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        *,
        epsilon: float | None = None,
        stop_gradient: bool = True,
        adjustable: bool = False,
        **kwargs: Any,
    ) -> None:
        rate = validation.check_rate(rate)
        self._first_q = q = validation.check_q(q)
        # Set first: `super().__init__` checks the weights of a built layer with it.
        self._noise_shape = validation.check_noise_shape(noise_shape)
        self._epsilon = validation.check_epsilon(epsilon)
        self._stop_gradient = validation.check_bool("stop_gradient", stop_gradient)
        validation.check_bool("adjustable", adjustable)
        knobs = {"rate": rate, "q": q}
        super().__init__(knobs, adjustable, layer, weights, seed, **kwargs)

    @property
    def noise_shape(self) -> tuple[int | None, ...] | None:
        """The argument, as a tuple."""
        return self._noise_shape

    @property
    def epsilon(self) -> float:
        """The argument, or its default."""
        return self._epsilon

    @property
    def stop_gradient(self) -> bool:
        """The argument."""
        return self._stop_gradient

    rate = Knob(validation.check_rate, "Drop rate")
    q = Knob(validation.check_q, "Exponent")

    def check_weight(self, weight: Weight) -> None:
        super().check_weight(weight)
        shape = tuple(weight.variable.shape)
        if not validation.noise_shape_fits(self._noise_shape, shape):
            raise ValueError(
                "`noise_shape` must have one entry for each dimension of the weights, "
                "each of them None, 1 or the size of that dimension. Received: "
                f"noise_shape={self._noise_shape!r} for {weight.variable.name} of "
                f"shape {shape}. Leave it out, or name other `weights`."
            )

    @WrappedCall
    def call(
        self, inputs: Any, *args: Any, training: bool = False, **kwargs: Any
    ) -> Any:
        """Calls the wrapped layer, in training on perturbed weights."""
        is_noisy = training and self._is_checked and not self._adds_no_noise(kwargs)
        # The wrapped layer tells which other arguments it takes.
        has_inputs_alone = not (args or kwargs)
        if is_noisy and has_inputs_alone and table_lookup.is_lookup(self.layer, inputs):
            found = self._find_weights()
            if len(found) == 1 and found[0].variable is self.layer.embeddings:
                return self._look_up(found[0], inputs)
        return super().call(inputs, *args, training=training, **kwargs)

    def _look_up(self, weight, inputs):
        """What the wrapped layer returns, with noise on the looked-up rows alone."""
        table = call_context.without_autocast(
            lambda: ops.cast(weight.variable, weight.variable.dtype)
        )
        ids = table_lookup.whole_numbers(inputs)
        # As in NumPy and Keras, -1 is the last one.
        numbers = ops.where(ids < 0, ids + table.shape[0], ids)
        seed = masks.seed_pair(self.seed_generator)
        noise_shape = self._noise_shape_of(weight)
        columns = 1 if noise_shape[1] == 1 else table.shape[1]
        if noise_shape[0] == 1:
            # All rows share the draws of one.
            rows = masks.Rows(ops.zeros_like(numbers), (1, columns))
        else:
            rows = masks.Rows(numbers, (table.shape[0], columns))
        noisy = self._draw(ops.take(table, ids, axis=0), seed, rows=rows)
        return ops.cast(noisy, self.layer.compute_dtype)

    def perturb_weight(self, weight: Weight, value: Tensor, seed: Tensor) -> Tensor:
        return self._draw(value, seed, noise_shape=self._noise_shape_of(weight))

    def _noise_shape_of(self, weight):
        rank = len(weight.variable.shape)
        if self._noise_shape is None and weight.variable.name == "embeddings":
            return (None,) + (1,) * (rank - 1)
        return self._noise_shape or (None,) * rank

    def _draw(self, value, seed, noise_shape=None, rows=None):
        """Draws what replaces `value`, which are the weights or `rows` of them."""
        settings: dict[str, Any] = {
            **self.read_knobs(),
            "seed": seed,
            "noise_shape": noise_shape,
            "rows": rows,
            "epsilon": self._epsilon,
        }
        shape = tuple(value.shape)
        if rows is not None:
            # One program serves all batch sizes.
            shape = (None, *shape[1:])
        is_compiled = compiling.is_large(shape) and compiling.pays(shape)
        if is_compiled and self._multiplier_suffices(value):
            # The gradient uses it again.
            return value * compiled_noise.draw_multiplier(
                value, shape=shape, **settings
            )
        settings["stop_gradient"] = self._stop_gradient
        if not is_compiled:
            return noise.draw_and_perturb(value, **settings)
        return compiled_noise.draw_and_perturb(
            value, shape=shape, usual_q=self._first_q, **settings
        )

    def _multiplier_suffices(self, value):
        """Whether W~ and its gradient are products with a multiplier, none too large.

        Weights and gradients may be up to 1e12.
        """
        if self._adjustable or not self._stop_gradient:
            return False
        exponent = (self._q - 2) / 2
        # Only its logarithm: with a large q the factor itself is no Python number.
        factor = max(exponent * math.log10(self._epsilon), exponent * 12)
        largest = factor - math.log10(max(1 - self._rate, 2**-33))
        dtype = keras.backend.standardize_dtype(value.dtype)
        return dtype in ("float32", "float64") and largest < 26

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "noise_shape": self._noise_shape,
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
        }
