"""Cells and sequences that the tests of recurrent layers share."""

import keras
import numpy as np
from keras import layers, ops

from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper

BATCH, STEPS, FEATURES, UNITS = 4, 6, 3, 5


@keras.saving.register_keras_serializable("tests")
class OwnCell(layers.Layer):
    """A user's cell: one state, its size an int, and no `get_initial_state`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.dense = layers.Dense(units, "tanh", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.dense.build((input_shape[0], input_shape[-1] + self.units))

    def call(self, inputs, states):
        state = self.dense(ops.concatenate([inputs, states[0]], -1))
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tests")
class Echo(layers.Layer):
    """Returns its inputs and states side by side; its new states are ones."""

    state_size = (UNITS, UNITS)
    output_size = FEATURES + 2 * UNITS

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, UNITS)) for _ in range(2)]

    def call(self, inputs, states):
        ones = [ops.ones_like(state) for state in states]
        return ops.concatenate([inputs, *states], -1), ones


def stack():
    return layers.StackedRNNCells(
        [layers.LSTMCell(UNITS), layers.GRUCell(4), OwnCell(UNITS)]
    )


CELLS = {
    "lstm": lambda: layers.LSTMCell(UNITS),
    "gru": lambda: layers.GRUCell(UNITS),
    "simple": lambda: layers.SimpleRNNCell(UNITS),
    "own": lambda: OwnCell(UNITS),
    "stack": stack,
}
# With seeds, so that two of them draw the same.
DRAWING_CELLS = {
    "lstm_dropout": lambda: layers.LSTMCell(UNITS, dropout=0.5, seed=1),
    "gru_dropout": lambda: layers.GRUCell(
        UNITS, dropout=0.5, recurrent_dropout=0.3, seed=1
    ),
    "stack_dropout": lambda: layers.StackedRNNCells(
        [
            layers.LSTMCell(UNITS, recurrent_dropout=0.5, seed=1),
            SparseoutCellWrapper(layers.GRUCell(4), 0.2, 0.2, 1.5, seed=2),
            layers.SimpleRNNCell(UNITS, dropout=0.5, seed=3),
        ]
    ),
    "wrapper": lambda: SparseoutCellWrapper(layers.LSTMCell(UNITS), 0.5, 0.5, seed=1),
}


def sequences(batch=BATCH, steps=STEPS, dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, steps, FEATURES)).astype(dtype)


def rnn(cell, *args, weights=None, **kwargs):
    """Returns a built RNN around a wrapper of `cell`, with the given weights.

    Keyword arguments of RNN go there, the others to the wrapper.
    """
    names = ("stateful", "unroll", "go_backwards", "return_state", "return_sequences")
    options = {name: kwargs.pop(name) for name in names if name in kwargs}
    options.setdefault("return_sequences", True)
    layer = layers.RNN(SparseoutCellWrapper(cell, *args, **kwargs), **options)
    return built(layer, weights)


def built(layer, weights=None):
    layer.build((BATCH, STEPS, FEATURES))
    if weights is not None:
        layer.set_weights(weights)
    return layer
