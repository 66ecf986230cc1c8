"""Sparseout inside recurrent layers: a wrapper for any RNN cell."""

import copy
import functools

import keras
import tensorflow as tf

from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.layers.noisy_cell import (
    NoisyCell,
    cells_of_stack,
    check_cell,
    check_direction,
)
from keras_sparseout.ops import masks, noise
from keras_sparseout.utils import validation


@keras.saving.register_keras_serializable("keras_sparseout")
class SparseoutCellWrapper(NoisyCell):
    """Sparseout on the inputs and states of an RNN cell, with one mask a sequence.

    In training, before the first timestep,

        keep   ~ Bernoulli(1 - rate)            of the shape of an input
        keep_h ~ Bernoulli(1 - recurrent_rate)  of the shape of a state

    and the cell gets at each timestep t, in place of its input x_t and its state
    h_(t-1), x_t n(x_t) and h_(t-1) n(h_(t-1)), where

        n(v) = 1 + (|v| + epsilon)^((q - 2) / 2) (keep / (1 - rate) - 1)

    with the mask and the rate of v: the draw is that of the sequence, the multiplier
    still follows |v| at each timestep. With q = 2 it is variational dropout. At
    inference the cell gets x_t and h_(t-1), and nothing is drawn. A sequence is what
    `keras.layers.RNN` is called on: in truncated back-propagation a window.

    Of several states only the first is perturbed, as `recurrent_dropout` of Keras does:
    of an LSTM h and not c, which passes from step to step without a weight, so that
    the noise of all steps would multiply, in kept units to (1 - recurrent_rate)^-T
    after T steps at q = 2. A `StackedRNNCells` has one mask for the first state of each
    of its cells. In a GRU the update gate z passes h on, so there the perturbed state
    is passed on too: a kept unit with q = 2 grows where z > 1 - recurrent_rate. Where
    that is not wanted, perturb only its inputs.

    `set_weights(get_weights())` takes weights to and from the plain cell, or a model of
    it, unless it is adjustable. Files of the one do not load into the other, since
    Keras has the path of each layer in them.

    To perturb only what goes into a recurrent layer or comes out of it, with one mask a
    sequence too, `Sparseout` with `noise_shape=(None, 1, None)` between the layers is
    enough, and leaves the layer its fast kernel on a GPU, which no cell in an RNN has.

    Args:
        cell: An RNN cell: `keras.layers.LSTMCell`, `GRUCell`, `SimpleRNNCell`,
            `StackedRNNCells`, or a layer of your own that has `state_size` and
            `call(inputs, states)`. Dropout of its own works as it does without.
        rate: Drop rate of the inputs in [0, 1], rounded to a multiple of 2^-16 when
            drawn.
        recurrent_rate: Drop rate of the states in [0, 1], rounded likewise.
        q: Exponent of the noise's variance, a finite number >= 0. The states of most
            cells have density at 0: for q <= 1 `epsilon` alone bounds their noise, and
            in the gradient the multipliers of all timesteps multiply, so clip it.
        seed: Integer, or None for a random one. Its state is saved with the weights, as
            are the states of dropout in the cell: a resumed run goes on drawing where
            it stopped. With a given seed both directions of a `Bidirectional` draw the
            same.
        epsilon: Added to |v|, >= 1e-30. None: `keras.config.epsilon()`.
        stop_gradient: True holds the multiplier constant in the gradient, False takes
            the derivative of the formula, see `keras_sparseout.ops.sparseout`.
        adjustable: Whether `rate`, `recurrent_rate` and `q` are variables, so that
            assigning to them takes effect at the next training step, without a retrace.
            Otherwise they are constants of the compiled graph, and assigning raises.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer. `dtype` is by
            default that of the cell.

    Call arguments:
        inputs: Floating-point tensor, the input at a timestep, `(batch, features)`.
        states: List of the states at the timestep before.
        training: Whether to perturb; `keras.layers.RNN` says.

    Output shape: That of the cell, and the list of its new states.

    Raises:
        ValueError: if an argument is out of range, also in a file or `set_weights`,
            `cell` is no RNN cell, or what is to be perturbed is not floating-point.
        AttributeError: on assigning a rate or q if it is not adjustable.
        RuntimeError: if called in training other than by `keras.layers.RNN`, which has
            the masks drawn before its loop.

    Source: Gal & Ghahramani (2016), "A Theoretically Grounded Application of Dropout
        in Recurrent Neural Networks", https://arxiv.org/abs/1512.05287; Khan &
        Stavness (2019), https://arxiv.org/abs/1904.08050.

    Example:

    >>> cell = keras.layers.SimpleRNNCell(
    ...     3, None, kernel_initializer="identity", recurrent_initializer="zeros"
    ... )
    >>> cell = SparseoutCellWrapper(cell, 0.5, q=1.0, seed=1)
    >>> layer = keras.layers.RNN(cell, return_sequences=True)
    >>> x = np.array([[[4.0, 4.0, 4.0], [16.0, 16.0, 16.0]]], "float32")
    >>> np.round(layer(x, training=True)).tolist()
    [[[2.0, 6.0, 6.0], [12.0, 20.0, 20.0]]]
    """

    def __init__(
        self,
        cell,
        rate=0.0,
        recurrent_rate=0.0,
        q=2.0,
        seed=None,
        *,
        epsilon=None,
        stop_gradient=True,
        adjustable=False,
        **kwargs,
    ):
        check_cell(cell, type(self).__name__)
        knobs = {
            "rate": validation.check_rate(rate),
            "recurrent_rate": validation.check_recurrent_rate(recurrent_rate),
            "q": validation.check_q(q),
        }
        epsilon = validation.check_epsilon(epsilon)
        validation.check_bool("stop_gradient", stop_gradient)
        validation.check_bool("adjustable", adjustable)
        check_direction(kwargs, type(self).__name__, cell)
        validation.check_keywords(type(self).__name__, kwargs, SparseoutCellWrapper)
        if kwargs.get("dtype") is None:
            # RNN hands over the states in that of the wrapper.
            kwargs["dtype"] = cell.dtype_policy
        super().__init__(knobs, adjustable, seed, **kwargs)
        self.cell = cell
        if not self.trainable:
            cell.trainable = False
        self._epsilon = epsilon
        self._stop_gradient = stop_gradient

    epsilon = property(lambda self: self._epsilon)
    stop_gradient = property(lambda self: self._stop_gradient)

    rate = Knob(validation.check_rate, "Drop rate of the inputs")
    recurrent_rate = Knob(validation.check_recurrent_rate, "Drop rate of the states")
    q = Knob(validation.check_q, "Exponent")

    def build(self, input_shape):
        if not self.cell.built:
            self.cell.build(input_shape)

    def draw(self, step_input, states):
        on_states = []

        def note(state):
            on_states.append(self._noise("states", state, self._recurrent_rate))

        _map_first(self, note, states)
        return self._noise("inputs", step_input, self._rate), on_states

    def _noise(self, name, like, rate):
        """Returns the function that perturbs tensors of the shape of `like`."""
        if self._is_zero(rate):
            return lambda x: x
        validation.check_floating(like.dtype, name)
        q = self._q
        if self._adjustable:
            rate, q = tf.convert_to_tensor(rate), tf.convert_to_tensor(q)
        seed = masks.seed_pair(self.seed_generator)
        keep, keep_prob = masks.bernoulli(keras.ops.shape(like), rate, seed)
        return functools.partial(
            noise.perturb,
            keep=keep,
            keep_prob=keep_prob,
            q=q,
            epsilon=self._epsilon,
            stop_gradient=self._stop_gradient,
        )

    def _is_zero(self, rate):
        return not self._adjustable and masks.quantise(rate)[0] == 0

    def call(self, inputs, states, training=False):
        if not training or all(map(self._is_zero, (self._rate, self._recurrent_rate))):
            return self.cell(inputs, states)
        on_input, on_states = self.drawn()
        noise = iter(on_states)
        states = _map_first(self, lambda state: next(noise)(state), states)
        return self.cell(on_input(inputs), states)

    def get_config(self):
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # A copy, since Keras takes the cells out of the config of StackedRNNCells.
        cell = keras.saving.deserialize_keras_object(
            copy.deepcopy(config["cell"]), custom_objects=custom_objects
        )
        return cls(**{**config, "cell": cell})


def _map_first(cell, function, states):
    """Returns `states` of `cell` with the first of each cell mapped by `function`."""
    cells = cells_of_stack(cell)
    if cells is not None:
        return [
            _map_first(inner, function, state)
            for inner, state in zip(cells, states, strict=True)
        ]
    if not keras.tree.is_nested(states):
        return function(states)
    return [function(states[0]), *states[1:]]
