"""Noise of RNN cells that is drawn once per sequence, before the timestep loop."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_sparseout.layers import call_context
from keras_sparseout.layers.seeded import SeededLayer
from keras_sparseout.utils.types import Tensor

# RNN lets only cells of this class draw before its loop, and Keras doesn't export it.
_DROPOUT_RNN_CELL = tuple(
    base for base in keras.layers.LSTMCell.__mro__ if base.__name__ == "DropoutRNNCell"
)


class PerSequenceNoise(SeededLayer, *_DROPOUT_RNN_CELL):  # type: ignore[misc]
    """A layer that draws once per sequence where it stands as an RNN cell.

    `keras.layers.RNN` tells its cell to draw before the loop over the timesteps, and to
    forget after it. This layer takes its sizes and initial states from the cell that it
    wraps. Cells inside that draw by themselves, such as `LSTMCell(dropout=0.5)`, draw
    at the same time. At inference nothing is drawn.

    A subclass overrides `draw`, and in `call` gets the result from `noise_of_sequence`.
    If it keeps its cell in another attribute than `cell`, it overrides `wrapped` too.

    Args:
        knobs: The first values of the knobs, by name.
        adjustable: Whether the knobs are variables.
        seed: Integer, or None for a random one.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.
    """

    def __init__(
        self,
        knobs: Mapping[str, float],
        adjustable: bool,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(knobs, adjustable, seed, **kwargs)
        # One for each thread: a MirroredStrategy traces its replicas in threads that
        # take turns, in an unrolled loop even between two timesteps.
        self._sequence = threading.local()

    def wrapped(self) -> keras.layers.Layer:
        """Returns the cell that this layer wraps."""
        return self.cell

    def draw(self, step_input: Tensor, states: Sequence[Any]) -> Any:
        """Returns the noise of a sequence, the same for all its timesteps.

        It is called in training only, outside of the loop.

        Args:
            step_input: The input at a timestep, `(batch, ...)`; only its shape matters.
            states: The states before the first timestep; only their shapes matter. For
                a stack of cells, the states of each cell; for another cell, only the
                first state.
        """
        raise NotImplementedError

    def noise_of_sequence(self) -> Any:
        """Returns what `draw` returned for the present sequence."""
        if not hasattr(self._sequence, "noise"):
            raise RuntimeError(
                f"{type(self).__name__} draws its noise once a sequence, when "
                "keras.layers.RNN tells it to. Received: a call of "
                f"{self.name!r} with training=True outside of one. Call "
                f"keras.layers.RNN({type(self).__name__}(...)), with no layer between "
                "the two but StackedRNNCells and cells of this package."
            )
        return self._sequence.noise

    @property
    def state_size(self) -> Any:
        """The state size of the cell, as `keras.layers.RNN` takes it."""
        return self.wrapped().state_size

    @property
    def output_size(self) -> Any:
        """The output size of the cell, as `keras.layers.RNN` takes it."""
        return self.wrapped().output_size

    def get_initial_state(self, batch_size: int | Tensor | None = None) -> Any:
        """Returns the initial state of the cell, by default zeros."""
        cell = self.wrapped()
        if hasattr(cell, "get_initial_state"):
            return cell.get_initial_state(batch_size=batch_size)
        return keras.tree.map_structure(
            lambda size: ops.zeros((batch_size, size), dtype=cell.compute_dtype),
            cell.state_size,
        )

    # RNN calls the next four methods, the first two in this order.
    def get_dropout_mask(self, step_input: Tensor) -> None:
        """Keeps the input at the first timestep for `get_recurrent_dropout_mask`."""
        self._sequence.step_input = step_input

    def get_recurrent_dropout_mask(self, state: Tensor) -> None:
        """Draws if it is in training, and so do the cells inside."""
        step_input = self._sequence.step_input
        if not call_context.is_training():
            return
        states = [state]
        if cells_of_stack(self) is not None:
            # RNN passes only the states of the first cell.
            states = list(self.get_initial_state(ops.shape(step_input)[0]))
        self._sequence.noise = self.draw(step_input, states)
        _draw_nested(self.wrapped(), step_input, states)

    def reset_dropout_mask(self) -> None:
        """Forgets what was drawn, and so do the cells inside."""
        vars(self._sequence).clear()
        _reset_nested(self.wrapped())

    def reset_recurrent_dropout_mask(self) -> None:
        """Does nothing: `reset_dropout_mask` forgets everything."""


def check_cell(cell: Any, name: str, argument: str = "cell") -> keras.layers.Layer:
    """Returns `cell`; raises unless it is a layer that can be an RNN cell.

    Args:
        cell: What the user gave.
        name: Name of the class that got it.
        argument: Name of the argument.
    """
    if not _DROPOUT_RNN_CELL:
        raise RuntimeError(
            f"{name} draws when keras.layers.RNN tells cells of the class "
            "DropoutRNNCell to draw, but keras.layers.LSTMCell is no such cell. "
            f"Received: keras {keras.__version__}. Install keras 3.15."
        )
    remedy = None
    if isinstance(cell, type):
        remedy = f"Make one first: {name}({cell.__name__}(...))."
    elif isinstance(cell, keras.layers.RNN):
        remedy = (
            "Give the cell of that layer, for example keras.layers.LSTMCell instead of "
            f"keras.layers.LSTM, and call keras.layers.RNN({name}(cell))."
        )
    elif isinstance(cell, (list, tuple)):
        remedy = f"Make one of them: {name}(keras.layers.StackedRNNCells(cells))."
    elif (
        not isinstance(cell, keras.layers.Layer)
        or not is_cell(cell)
        or type(cell).call is keras.layers.Layer.call
    ):
        remedy = (
            "Give for example keras.layers.LSTMCell(64), or a keras.layers.Layer of "
            "your own with `state_size` and `call(inputs, states)`."
        )
    if remedy is not None:
        raise ValueError(
            f"`{argument}` must be an RNN cell: a layer that has `state_size` and "
            f"`call(inputs, states)`. Received: {argument}={cell!r}. {remedy}"
        )
    return cell


def check_not_bidirectional(
    kwargs: Mapping[str, Any], name: str, layer: keras.layers.Layer
) -> None:
    """Raises if `kwargs` have `go_backwards`, which keras.layers.Bidirectional passes.

    Args:
        kwargs: Keyword arguments of a class.
        name: Name of the class.
        layer: The layer or cell that the class wraps.
    """
    if "go_backwards" in kwargs:
        received = f"Received: go_backwards={kwargs['go_backwards']!r}."
        raise ValueError(
            f"`go_backwards` is no argument of {name}. {received} "
            f"{bidirectional_remedy(name, layer)}"
        )


def bidirectional_remedy(name: str, layer: keras.layers.Layer) -> str:
    """Says how to combine the class `name` around `layer` with a Bidirectional."""
    inner = f"{type(layer).__name__}(...)"
    remedy = f"around it: {name}(Bidirectional({inner}), ...)"
    if is_cell(layer):
        remedy = f"in an RNN in it: Bidirectional(RNN({name}({inner}, ...)))"
    return f"A Bidirectional takes no {name}: put {name} {remedy}."


def is_cell(layer: keras.layers.Layer) -> bool:
    """Whether a layer is an RNN cell, or wraps one."""
    while isinstance(layer, PerSequenceNoise):
        layer = layer.wrapped()
    # RNN layers have a `state_size` too.
    sized = getattr(layer, "state_size", None) is not None
    return sized and not isinstance(layer, keras.layers.RNN)


def is_dropout_cell(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a cell whose masks `keras.layers.RNN` tells it to draw."""
    return isinstance(layer, _DROPOUT_RNN_CELL)


def cells_of_stack(cell: keras.layers.Layer) -> list[keras.layers.Layer] | None:
    """Returns the cells of a `keras.layers.StackedRNNCells`, also of a wrapped one.

    None for another cell.
    """
    while isinstance(cell, PerSequenceNoise):
        cell = cell.wrapped()
    return cell.cells if isinstance(cell, keras.layers.StackedRNNCells) else None


def _draw_nested(
    cell: keras.layers.Layer, step_input: Tensor, states: Sequence[Any]
) -> None:
    """Lets `cell` and the cells inside draw, as RNN does with its own cell."""
    if isinstance(cell, _DROPOUT_RNN_CELL):
        # A call that raised may have left masks of a graph that is gone.
        _reset_nested(cell)
        cell.get_dropout_mask(step_input)
        cell.get_recurrent_dropout_mask(states[0])
    elif isinstance(cell, keras.layers.StackedRNNCells):
        for inner, state in zip(cell.cells, states, strict=True):
            state = list(state) if keras.tree.is_nested(state) else [state]
            _draw_nested(inner, step_input, state)
            # For the shape of the next cell's input: a cell need not say its size.
            step_input, _ = inner(step_input, state)


def _reset_nested(cell: keras.layers.Layer) -> None:
    if isinstance(cell, _DROPOUT_RNN_CELL):
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()
    elif isinstance(cell, keras.layers.StackedRNNCells):
        for inner in cell.cells:
            _reset_nested(inner)
