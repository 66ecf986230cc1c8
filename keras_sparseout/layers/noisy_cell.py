"""Layers around RNN cells, whose noise is drawn once a sequence, before RNN's loop."""

import threading

import keras
from keras import ops

from keras_sparseout.layers.seeded import SeededLayer

# RNN has only cells of this class draw before its loop, and Keras does not export it.
_DRAWING = tuple(
    base for base in keras.layers.LSTMCell.__mro__ if base.__name__ == "DropoutRNNCell"
)


class NoisyCell(SeededLayer, *_DRAWING):
    """A layer that can stand as an RNN cell, and then draws once a sequence.

    Before its loop over the timesteps `keras.layers.RNN` has its cell draw, and after
    it forget. A subclass says with `wrapped` which cell it stands for, whose sizes and
    states are its own, fills `draw`, and in `call` takes from `drawn` what that
    returned. Cells inside that draw by themselves, such as `LSTMCell(dropout=0.5)`,
    draw at the same time. At inference nothing is drawn, by them neither.

    Args:
        knobs: Dict of the first values, floats, by name.
        adjustable: Whether they are variables.
        seed: Integer, or None for a random one.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.
    """

    def __init__(self, knobs, adjustable, seed, **kwargs):
        super().__init__(knobs, adjustable, seed, **kwargs)
        # Of each thread its own: the replicas of a MirroredStrategy are traced in
        # threads that take turns, which in an unrolled loop may be between its steps.
        self._sequence = threading.local()

    def wrapped(self):
        """The cell that it stands for."""
        return self.cell

    def draw(self, step_input, states):
        """Returns the noise of a sequence, which `drawn` then has at each timestep.

        Called in training only, and not inside the loop.

        Args:
            step_input: Tensor, the input at a timestep, `(batch, ...)`; for its shape.
            states: List of the states before the first timestep, for their shapes: of
                a stack of cells those of each cell, of another cell only the first.
        """
        raise NotImplementedError

    def drawn(self):
        """Returns what `draw` returned for the sequence that is running."""
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
    def state_size(self):
        """That of the cell."""
        return self.wrapped().state_size

    @property
    def output_size(self):
        """That of the cell."""
        return self.wrapped().output_size

    def get_initial_state(self, batch_size=None):
        """Returns the initial state of the cell, zeros if it does not say."""
        cell = self.wrapped()
        if hasattr(cell, "get_initial_state"):
            return cell.get_initial_state(batch_size=batch_size)
        return keras.tree.map_structure(
            lambda size: ops.zeros((batch_size, size), dtype=cell.compute_dtype),
            cell.state_size,
        )

    # RNN calls these four, the first two in this order.
    def get_dropout_mask(self, step_input):
        """Takes the input at the first timestep."""
        self._sequence.step_input = step_input

    def get_recurrent_dropout_mask(self, state):
        """Draws, if in training, and has the cells inside do so."""
        step_input = self._sequence.step_input
        # What a call that raised has left is of a graph that is gone.
        self.reset_dropout_mask()
        if not in_training(step_input):
            return
        states = [state]
        if cells_of_stack(self) is not None:
            # RNN gives no more than those of the first cell.
            states = list(self.get_initial_state(ops.shape(step_input)[0]))
        self._sequence.noise = self.draw(step_input, states)
        _draw_inside(self.wrapped(), step_input, states)

    def reset_dropout_mask(self):
        """Forgets what was drawn, and has the cells inside do so."""
        vars(self._sequence).clear()
        _reset_inside(self.wrapped())

    def reset_recurrent_dropout_mask(self):
        """Nothing: `reset_dropout_mask` forgets all."""


def check_cell(cell, name, argument="cell"):
    """Returns `cell`; raises unless it is an RNN cell and a layer.

    Args:
        cell: What was given.
        name: Name of the class that it was given to.
        argument: Name of the argument.
    """
    if not _DRAWING:
        raise RuntimeError(
            f"{name} has its noise drawn by what keras.layers.RNN does for cells of "
            "the class DropoutRNNCell, which keras.layers.LSTMCell no longer is. "
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


def check_direction(kwargs, name, layer):
    """Raises if `kwargs` have `go_backwards`, which keras.layers.Bidirectional gives.

    Args:
        kwargs: Keyword arguments, a dict.
        name: Name of the class that they were given to.
        layer: Layer or cell that was given to it too.
    """
    if "go_backwards" in kwargs:
        received = f"Received: go_backwards={kwargs['go_backwards']!r}."
        raise ValueError(
            f"`go_backwards` is no argument of {name}. {received} "
            f"{out_of_bidirectional(name, layer)}"
        )


def out_of_bidirectional(name, layer):
    """Says where a layer of class `name` around `layer` goes if not in it."""
    inner = f"{type(layer).__name__}(...)"
    remedy = f"around it: {name}(Bidirectional({inner}), ...)"
    if is_cell(layer):
        remedy = f"in an RNN in it: Bidirectional(RNN({name}({inner}, ...)))"
    return f"A Bidirectional takes no {name}: put {name} {remedy}."


def is_cell(layer):
    """Whether a layer stands as an RNN cell. RNN layers have a `state_size` too."""
    while isinstance(layer, NoisyCell):
        layer = layer.wrapped()
    sized = getattr(layer, "state_size", None) is not None
    return sized and not isinstance(layer, keras.layers.RNN)


def cells_of_stack(cell):
    """Returns the cells of a `keras.layers.StackedRNNCells`, through what is around it.

    None if it is another cell.
    """
    while isinstance(cell, NoisyCell):
        cell = cell.wrapped()
    return cell.cells if isinstance(cell, keras.layers.StackedRNNCells) else None


def _draw_inside(cell, step_input, states):
    """Has `cell` and the cells inside draw, as RNN has its own."""
    if isinstance(cell, _DRAWING):
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()
        cell.get_dropout_mask(step_input)
        cell.get_recurrent_dropout_mask(states[0])
    elif isinstance(cell, keras.layers.StackedRNNCells):
        for inner, state in zip(cell.cells, states, strict=True):
            state = list(state) if keras.tree.is_nested(state) else [state]
            _draw_inside(inner, step_input, state)
            # The shape of the next cell's input; that it knows its size is not said.
            step_input, _ = inner(step_input, state)


def _reset_inside(cell):
    if isinstance(cell, _DRAWING):
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()
    elif isinstance(cell, keras.layers.StackedRNNCells):
        for inner in cell.cells:
            _reset_inside(inner)


class _Training(keras.layers.Layer):
    """Gives `training` as Keras passes it down to layers that are not told it."""

    def call(self, inputs, training=False):
        return training


in_training = _Training(autocast=False)
