"""When cells draw, keep and forget their noise, and which layers are cells."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sequences import BATCH, CELLS, FEATURES, STEPS, UNITS, OwnCell, built, sequences

from keras_sparseout.layers import per_sequence_noise
from keras_sparseout.layers.per_sequence_noise import (
    PerSequenceNoise,
    cells_of_stack,
    check_cell,
)


class Recorder(PerSequenceNoise):
    """Draws the number of the sequence, and notes the shapes that it was given."""

    def __init__(self, cell, **kwargs):
        super().__init__({}, False, None, **kwargs)
        self.cell = check_cell(cell, "Recorder")
        self.draws = []
        self.seen = []

    def build(self, input_shape):
        self.cell.build(input_shape)

    def draw(self, step_input, states):
        shapes = keras.tree.map_structure(
            lambda tensor: tuple(tensor.shape), [step_input, *states]
        )
        # As text: Keras would track the lists.
        self.draws.append(str(shapes))
        return len(self.draws)

    def call(self, inputs, states, training=False):
        if training:
            self.seen.append(self.noise_of_sequence())
        return self.cell(inputs, states)


def around(cell, **kwargs):
    recorder = Recorder(cell)
    return built(layers.RNN(recorder, **kwargs)), recorder


@pytest.mark.parametrize("unroll", [False, True])
def test_a_cell_draws_once_a_sequence_and_holds_that(unroll):
    layer, recorder = around(layers.LSTMCell(UNITS), unroll=unroll)
    layer(sequences(), training=True)
    assert list(recorder.draws) == [str([(BATCH, FEATURES), (BATCH, UNITS)])]
    assert set(recorder.seen) == {1}
    layer(sequences(), training=True)
    assert set(recorder.seen) == {1, 2}


def test_it_does_not_draw_at_inference():
    layer, recorder = around(layers.LSTMCell(UNITS))
    layer(sequences())
    layer(sequences(), training=False)
    keras.Sequential([layer]).predict(sequences(), verbose=0)
    assert not recorder.draws


class Inside(layers.Layer):
    """Tells the layer inside whether it trains, whatever it was told itself."""

    def __init__(self, inner, training):
        super().__init__()
        self.inner = inner
        self.inner_training = training

    def call(self, inputs, training=False):
        return self.inner(inputs, training=self.inner_training)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_whether_it_trains_is_what_the_rnn_is_told(outer, inner):
    layer, recorder = around(layers.LSTMCell(UNITS))
    Inside(layer, inner)(sequences(), training=outer)
    assert bool(recorder.draws) == inner


def test_of_a_stack_it_gets_the_states_of_all_cells():
    cell = CELLS["stack"]()
    layer, recorder = around(cell)
    layer(sequences(), training=True)
    states = [[(BATCH, UNITS)] * 2, [(BATCH, 4)], (BATCH, UNITS)]
    assert list(recorder.draws) == [str([(BATCH, FEATURES), *states])]


def test_a_stack_may_be_around_it():
    recorders = [Recorder(layers.LSTMCell(UNITS)), Recorder(layers.GRUCell(4))]
    built(layers.RNN(recorders))(sequences(), training=True)
    shapes = [[(BATCH, FEATURES), (BATCH, UNITS)], [(BATCH, UNITS), (BATCH, 4)]]
    assert [list(r.draws) for r in recorders] == [[str(s)] for s in shapes]


def test_cells_inside_draw_in_training_alone():
    inside = [Recorder(layers.LSTMCell(UNITS)), Recorder(layers.GRUCell(4))]
    layer, recorder = around(Recorder(layers.StackedRNNCells(inside)))
    layer(sequences())
    assert not any(list(r.draws) for r in (recorder, recorder.cell, *inside))
    layer(sequences(), training=True)
    for each in (recorder, recorder.cell, *inside):
        assert len(each.draws) == 1
        assert set(each.seen) == {1}


def test_dropout_inside_is_forgotten_after_the_sequence():
    cell = layers.LSTMCell(UNITS, dropout=0.5, recurrent_dropout=0.5)
    layer, _ = around(layers.StackedRNNCells([cell, layers.GRUCell(4)]))
    x = np.ones((BATCH, STEPS, FEATURES), "float32")
    call = tf.function(lambda: layer(x, training=True))
    assert (call() != call()).numpy().any()
    # A tensor left over from that graph would raise here.
    assert (layer(x, training=True) != layer(x, training=True)).numpy().any()


class Failing(OwnCell):
    """Raises at its third call: the first two, before the loop, are for shapes."""

    calls = 0

    def call(self, inputs, states):
        self.calls += 1
        if self.calls == 3:
            raise ArithmeticError("in the loop")
        return super().call(inputs, states)


def test_what_a_call_that_raised_has_left_is_not_used():
    dropout = layers.LSTMCell(UNITS, dropout=0.5, recurrent_dropout=0.5)
    layer, recorder = around(layers.StackedRNNCells([dropout, Failing(UNITS)]))
    call = tf.function(lambda x: layer(x, training=True), autograph=False)
    with pytest.raises(ArithmeticError, match="in the loop"):
        call(sequences())
    recorder.seen.clear()
    assert np.isfinite(call(sequences())).all()
    assert set(recorder.seen) == {2}


def test_a_call_outside_of_an_rnn_raises_in_training_alone():
    layer, recorder = around(layers.LSTMCell(UNITS))
    layer(sequences(), training=True)
    x, states = sequences()[:, 0], recorder.get_initial_state(BATCH)
    recorder(x, states)
    message = r"(?s)once a sequence.*recorder.*training=True.*RNN\(Recorder\(\.\.\.\)\)"
    with pytest.raises(RuntimeError, match=message):
        recorder(x, states, training=True)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_sizes_and_initial_states_are_those_of_the_cell(cell):
    cell = cell()
    recorder = Recorder(cell)
    assert recorder.state_size == cell.state_size
    if isinstance(cell, OwnCell):
        assert not hasattr(recorder, "output_size")
        expected = np.zeros((2, UNITS))
    else:
        assert recorder.output_size == cell.output_size
        expected = cell.get_initial_state(batch_size=2)
    keras.tree.map_structure(
        np.testing.assert_array_equal, recorder.get_initial_state(2), expected
    )


def test_a_stack_is_found_through_what_is_around_it():
    cell = CELLS["stack"]()
    assert cells_of_stack(Recorder(Recorder(cell))) is cell.cells
    assert cells_of_stack(Recorder(layers.LSTMCell(UNITS))) is None


class NoStates(layers.Layer):
    state_size = 3


class NoLayer:
    state_size = 3

    def call(self, inputs, states):
        return inputs, states


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        (layers.LSTM(3), "keras.layers.LSTMCell instead of keras.layers.LSTM"),
        (layers.LSTMCell, "Recorder(LSTMCell(...))"),
        ([layers.LSTMCell(3)], "Recorder(keras.layers.StackedRNNCells(cells))"),
        (layers.Dense(3), "`state_size` and `call(inputs, states)`"),
        (NoStates(), "Give for example keras.layers.LSTMCell(64)"),
        (NoLayer(), "a keras.layers.Layer of your own"),
        (None, "Give for example"),
    ],
    ids=["RNN", "class", "list", "Dense", "no states", "no layer", "None"],
)
def test_what_is_no_cell_raises(cell, remedy):
    message = rf"(?s)`cell` must be an RNN cell.*Received: cell=.*{re.escape(remedy)}"
    with pytest.raises(ValueError, match=message):
        Recorder(cell)


def test_a_keras_whose_cells_draw_otherwise_is_refused(monkeypatch):
    monkeypatch.setattr(per_sequence_noise, "_DROPOUT_RNN_CELL", ())
    with pytest.raises(RuntimeError, match=r"DropoutRNNCell.*keras \d.*Install"):
        Recorder(layers.LSTMCell(3))
