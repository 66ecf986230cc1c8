"""Sparseout inside recurrent layers: a wrapper for any RNN cell."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from keras_sparseout.layers.adjustable import Knob
from keras_sparseout.layers.per_sequence_noise import (
    PerSequenceNoise,
    cells_of_stack,
    check_cell,
    check_not_bidirectional,
)
from keras_sparseout.ops import masks, noise
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor


class _Noise(NamedTuple):
    """The noise of a sequence: functions that perturb tensors of its masks' shapes."""

    on_inputs: Callable[[Tensor], Tensor]
    on_states: list[Callable[[Tensor], Tensor]]


@keras.saving.register_keras_serializable("keras_sparseout")
class SparseoutCellWrapper(PerSequenceNoise):
    """Sparseout on the inputs and states of an RNN cell, with one mask per sequence.

    In training, before the first timestep, it draws

        keep   ~ Bernoulli(1 - rate)            of the shape of an input
        keep_h ~ Bernoulli(1 - recurrent_rate)  of the shape of a state

    At each timestep t it replaces the cell's input x_t and state h_(t-1) by x_t n(x_t)
    and h_(t-1) n(h_(t-1)), where

        n(v) = 1 + (|v| + epsilon)^((q - 2) / 2) (keep / (1 - rate) - 1)

    has the mask and the rate of v. All timesteps share the mask, but the multiplier
    follows |v| at each. With q = 2 it is variational dropout. At inference the cell
    gets x_t and h_(t-1), and nothing is drawn. A sequence is what `keras.layers.RNN` is
    called on: in truncated back-propagation a window.

    Of several states it perturbs only the first, as `recurrent_dropout` of Keras does.
    For an LSTM that is h. The other state, c, passes from step to step without a
    weight, so the noise of all steps would multiply: at q = 2 a kept unit would grow to
    (1 - recurrent_rate)^-T after T steps. For a `StackedRNNCells` it draws one mask for
    the first state of each cell.

    The update gate z of a GRU passes h on, here the perturbed h: at q = 2 a kept unit
    grows where z > 1 - recurrent_rate. If you don't want that, perturb only the inputs
    of a GRU.

    `set_weights(get_weights())` moves weights to and from the plain cell, or a model
    with it, unless the wrapper is adjustable. Files don't: the file of one does not
    load into the other, since Keras stores the path of each layer.

    To perturb only what goes into a recurrent layer or comes out of it, put `Sparseout`
    with `noise_shape=(None, 1, None)` between the layers: it has one mask per sequence
    too. The recurrent layer then keeps its fast kernel on a GPU, which no cell in an
    RNN has.

    Args:
        cell: An RNN cell: `keras.layers.LSTMCell`, `GRUCell`, `SimpleRNNCell`,
            `StackedRNNCells`, or a layer of your own that has `state_size` and
            `call(inputs, states)`. Its own dropout works as without the wrapper.
        rate: Drop rate of the inputs in [0, 1], rounded to a multiple of 2^-32 when
            drawn.
        recurrent_rate: Drop rate of the states in [0, 1], rounded likewise.
        q: Exponent of the noise's variance, a finite number >= 0. The states of most
            cells have density at 0, so that for q <= 1 only `epsilon` bounds their
            noise. In the gradient the multipliers of all timesteps multiply: clip it.
        seed: Integer, or None for a random one. Its state is saved with the weights,
            and so are the states of dropout in the cell: a resumed run continues the
            draws where it stopped. With a given seed both directions of a
            `Bidirectional` draw the same.
        epsilon: Added to |v|, >= 1e-30. None: `keras.config.epsilon()`.
        stop_gradient: True holds the multiplier constant in the gradient, False takes
            the derivative of the formula, see `keras_sparseout.ops.sparseout`.
        adjustable: Whether `rate`, `recurrent_rate` and `q` are variables, so that
            assigning to them takes effect at the next training step, without a retrace.
            Otherwise they are constants of the compiled graph, and assigning raises.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer. By default it
            takes its dtype from the cell.

    Call arguments:
        inputs: Floating-point tensor, the input at a timestep, `(batch, features)`.
        states: List of the states at the timestep before.
        training: Whether to perturb; `keras.layers.RNN` says.

    Output shape: Same as for the cell: an output, and the list of the new states.

    Raises:
        ValueError: if an argument is out of range, also in a file or `set_weights`,
            `cell` is no RNN cell, or what is to be perturbed is not floating-point.
        AttributeError: on assigning a rate or q if it is not adjustable.
        RuntimeError: if called in training by anything but `keras.layers.RNN`, which
            tells it to draw the masks before the loop.

    Source: Gal & Ghahramani (2016), "A Theoretically Grounded Application of Dropout
        in Recurrent Neural Networks", https://arxiv.org/abs/1512.05287; Khan &
        Stavness (2019), https://arxiv.org/abs/1904.08050.

    Example:

    >>> cell = keras.layers.SimpleRNNCell(
    ...     3, None, kernel_initializer="identity", recurrent_initializer="zeros"
    ... )
    >>> cell = SparseoutCellWrapper(cell, 0.5, q=1.0, seed=3)
    >>> layer = keras.layers.RNN(cell, return_sequences=True)
    >>> x = np.array([[[4.0, 4.0, 4.0], [16.0, 16.0, 16.0]]], "float32")
    >>> np.round(layer(x, training=True)).tolist()
    [[[2.0, 6.0, 6.0], [12.0, 20.0, 20.0]]]
    """

    def __init__(
        self,
        cell: keras.layers.Layer,
        rate: float = 0.0,
        recurrent_rate: float = 0.0,
        q: float = 2.0,
        seed: int | None = None,
        *,
        epsilon: float | None = None,
        stop_gradient: bool = True,
        adjustable: bool = False,
        **kwargs: Any,
    ) -> None:
        check_cell(cell, type(self).__name__)
        knobs = {
            "rate": validation.check_rate(rate),
            "recurrent_rate": validation.check_recurrent_rate(recurrent_rate),
            "q": validation.check_q(q),
        }
        epsilon = validation.check_epsilon(epsilon)
        validation.check_bool("stop_gradient", stop_gradient)
        validation.check_bool("adjustable", adjustable)
        check_not_bidirectional(kwargs, type(self).__name__, cell)
        validation.check_keywords(type(self).__name__, kwargs, SparseoutCellWrapper)
        if kwargs.get("dtype") is None:
            # RNN casts the states to the dtype of the wrapper.
            kwargs["dtype"] = cell.dtype_policy
        super().__init__(knobs, adjustable, seed, **kwargs)
        self.cell = cell
        if not self.trainable:
            cell.trainable = False
        self._epsilon = epsilon
        self._stop_gradient = stop_gradient

    @property
    def epsilon(self) -> float:
        """The argument, or its default."""
        return self._epsilon

    @property
    def stop_gradient(self) -> bool:
        """The argument."""
        return self._stop_gradient

    rate = Knob(validation.check_rate, "Drop rate of the inputs")
    recurrent_rate = Knob(validation.check_recurrent_rate, "Drop rate of the states")
    q = Knob(validation.check_q, "Exponent")

    def build(self, input_shape: Any) -> None:
        if not self.cell.built:
            self.cell.build(input_shape)

    def draw(self, step_input: Tensor, states: Sequence[Any]) -> _Noise:
        knobs = self.read_knobs()
        rate, q = knobs["recurrent_rate"], knobs["q"]
        first_states: list[Tensor] = []
        _map_first(self, first_states.append, states)
        on_states = [self._draw_noise("states", s, rate, q) for s in first_states]
        on_inputs = self._draw_noise("inputs", step_input, knobs["rate"], q)
        return _Noise(on_inputs, on_states)

    def _draw_noise(self, name, like, rate, q):
        """Returns a function that perturbs tensors of the shape of `like`."""
        if self._is_zero(rate):
            return lambda x: x
        validation.check_floating(like.dtype, name)
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

    def call(
        self, inputs: Tensor, states: Sequence[Any], training: bool = False
    ) -> tuple[Tensor, Any]:
        if not training or all(map(self._is_zero, (self._rate, self._recurrent_rate))):
            return self.cell(inputs, states)
        drawn = self.noise_of_sequence()
        on_states = iter(drawn.on_states)
        states = _map_first(self, lambda state: next(on_states)(state), states)
        return self.cell(drawn.on_inputs(inputs), states)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            "epsilon": self._epsilon,
            "stop_gradient": self._stop_gradient,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "SparseoutCellWrapper":
        # A copy, since Keras takes the cells out of the config of StackedRNNCells.
        cell = keras.saving.deserialize_keras_object(
            copy.deepcopy(config["cell"]), custom_objects=custom_objects
        )
        return cls(**{**config, "cell": cell})


def _map_first(
    cell: keras.layers.Layer, function: Callable[[Tensor], Tensor], states: Any
) -> Any:
    """Returns `states`, the first state of each cell in `cell` mapped by `function`."""
    cells = cells_of_stack(cell)
    if cells is not None:
        return [
            _map_first(inner, function, state)
            for inner, state in zip(cells, states, strict=True)
        ]
    if not keras.tree.is_nested(states):
        return function(states)
    return [function(states[0]), *states[1:]]
