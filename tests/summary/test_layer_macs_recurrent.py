"""Products of recurrent layers with inputs and states, against counting one by one."""

import keras
import numpy as np
import pytest
from counted import behind_a_relu, count, rectified
from keras import layers as kl

from keras_sparseout import Bridgeout, SparseoutCellWrapper, activation_sparsity

X = rectified(3, 4, 5)

CELLS = {
    "LSTM": (kl.LSTM, {"activation": "relu"}, 4),
    "GRU": (kl.GRU, {"activation": "relu"}, 3),
    "SimpleRNN": (kl.SimpleRNN, {"activation": "relu"}, 1),
}


def run(cell, x, states=None):
    """Returns the input and the first state of each step, and the last output."""
    states = cell.get_initial_state(batch_size=len(x)) if states is None else states
    states = states if isinstance(states, (list, tuple)) else [states]
    seen = []
    for step in range(x.shape[1]):
        seen.append(np.array(states[0]))
        output, states = cell(x[:, step], states)
        states = states if isinstance(states, (list, tuple)) else [states]
    return np.stack(seen, 1), output


@pytest.mark.parametrize(
    ("name", "sequences", "unroll"),
    [
        ("LSTM", False, False),
        ("GRU", True, False),
        ("SimpleRNN", False, False),
        ("GRU", False, True),
    ],
)
def test_a_recurrent_layer(name, sequences, unroll):
    kind, options, gates = CELLS[name]
    layer = kind(6, return_sequences=sequences, unroll=unroll, **options)
    share, table = behind_a_relu(layer, (4, 5), X)
    states, _ = run(layer.cell, X)
    assert 0.3 < np.mean(states == 0) < 1
    products = 6 * gates
    assert table.macs * 3 == (X.size + states.size) * products
    needed = (np.sum(X != 0) + np.sum(states != 0)) * products
    assert table.effective_macs * 3 == pytest.approx(needed)
    assert share == pytest.approx(np.mean(X == 0))
    assert not any("not counted" in note for note in table.notes)
    assert (layer.return_sequences, layer.return_state) == (sequences, False)


@pytest.mark.parametrize(
    "layer",
    [
        kl.RNN(kl.GRUCell(6, activation="relu")),
        kl.RNN(SparseoutCellWrapper(kl.GRUCell(6, activation="relu"), 0.3)),
        Bridgeout(kl.GRU(6, activation="relu", return_state=True), 0.3),
    ],
    ids=["RNN", "wrapped cell", "weights"],
)
def test_other_ways_to_the_same_cell(layer):
    inputs = keras.Input((4, 5))
    outputs = layer(inputs)
    outputs = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    table = activation_sparsity(keras.Model(inputs, outputs), X)
    cell = getattr(layer, "layer", layer).cell
    states, _ = run(getattr(cell, "cell", cell), X)
    assert table.macs * 3 == (X.size + states.size) * 18
    needed = (np.sum(X != 0) + np.sum(states != 0)) * 18
    assert table.effective_macs * 3 == pytest.approx(needed)


@pytest.mark.parametrize("sequences", [False, True])
def test_both_directions_and_masked_steps(sequences):
    inputs = keras.Input((4, 5))
    masked = kl.Masking(name="masking")(inputs)
    layer = kl.Bidirectional(
        kl.SimpleRNN(6, activation="relu", return_sequences=sequences)
    )
    x = X.copy()
    x[1, 2:] = 0
    x[2, :1] = 0
    model = keras.Model(inputs, layer(masked))
    table = activation_sparsity(model, x, layers="masking")
    needed = 0
    for direction, line in (
        (layer.forward_layer, x),
        (layer.backward_layer, x[:, ::-1]),
    ):
        state = np.zeros((3, 6), "float32")
        for step in range(4):
            needed += np.sum(line[:, step] != 0) + np.sum(state != 0)
            new = np.array(direction.cell(line[:, step], [state])[0])
            there = line[:, step].any(-1, keepdims=True)
            state = np.where(there, new, state)
    assert table.macs * 3 == 2 * 3 * 4 * (5 + 6) * 6
    assert table.effective_macs * 3 == pytest.approx(needed * 6)
    # As Bidirectional sets it.
    assert layer.forward_layer.zero_output_for_mask is sequences


@pytest.mark.parametrize("rank", [1, 2])
def test_a_convolutional_lstm(rank):
    kind = (kl.ConvLSTM1D, kl.ConvLSTM2D)[rank - 1]
    layer = kind(2, 3, strides=2, padding="same", activation="relu")
    x = rectified(2, 3, *(5, 4)[:rank], 3)
    _, table = behind_a_relu(layer, x.shape[1:], x)
    whole = kind(
        2, 3, strides=2, padding="same", activation="relu", return_sequences=True
    )
    whole.build(x.shape)
    whole.set_weights(layer.get_weights())
    states = np.array(whole(x))
    states = np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], 1)
    needless = total = 0
    for activations, stride in ((x, 2), (states, 1)):
        steps = activations.reshape(-1, *activations.shape[2:])
        zeros, products = count(steps, 3, stride, 1, "same")
        needless, total = needless + zeros * 8, total + products * 8
    assert table.macs * 2 == pytest.approx(total)
    assert (table.macs - table.effective_macs) * 2 == pytest.approx(needless)


def with_states(kind="given"):
    inputs = keras.Input((4, 5), batch_size=3 if kind == "stateful" else None)
    if kind == "given":
        state = kl.Dense(6, activation="relu")(kl.Flatten()(inputs))
        return inputs, kl.SimpleRNN(6, name="rnn")(inputs, initial_state=state), 120
    options = {
        "stateful": {"stateful": True},
        "reset before": {"reset_after": False},
    }[kind]
    layer = kl.GRU if kind == "reset before" else kl.SimpleRNN
    return inputs, layer(6, name="rnn", **options)(inputs), 0


@pytest.mark.parametrize("kind", ["given", "stateful", "reset before"])
def test_states_that_can_not_be_told_are_named(kind):
    inputs, outputs, others = with_states(kind)
    table = activation_sparsity(keras.Model(inputs, outputs), X)
    gates = 3 if kind == "reset before" else 1
    assert table.macs == 4 * 5 * 6 * gates + others
    assert any(
        note.startswith("Products not counted: rnn (products with the states")
        for note in table.notes
    )


@pytest.mark.onednn
def test_states_that_are_not_a_number_are_no_zeros():
    x = X.copy()
    x[0, 0, 0] = np.nan
    inputs = keras.Input((4, 5))
    table = activation_sparsity(keras.Model(inputs, kl.SimpleRNN(6)(inputs)), x)
    assert table.macs == 4 * (5 + 6) * 6
    # Of the states those that each sample begins with.
    needed = (np.sum(x != 0) + 3 * 3 * 6) * 6
    assert table.effective_macs * 3 == pytest.approx(needed)
    assert not any("not counted" in note for note in table.notes)
