"""The products of a whole model, against counting them one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from counted import behind_a_relu, count, rectified, rows
from keras import layers as kl

from keras_sparseout import (
    Bridgeout,
    Sparseout,
    SparseoutCellWrapper,
    activation_sparsity,
)


def effective(*factors):
    """How many products of broadcast factors have none that is zero."""
    return np.count_nonzero(np.prod([f != 0 for f in np.broadcast_arrays(*factors)], 0))


@pytest.mark.parametrize(
    ("equation", "output", "shape"),
    [
        ("abc,cd->abd", (None, 3), (6, 4)),
        ("abc,cde->abde", (None, 2, 3), (6, 4)),
        ("abcd,cde->abe", (None, 3), (6, 2, 4)),
        ("...c,cd->...d", (3,), (6, 4)),
        ("ab...,bc->ac...", (3, 6), (4, 6)),
        ("abc,bc->abc", (6, 4), (6, 4)),
    ],
)
def test_einsum_dense(equation, output, shape):
    layer = kl.EinsumDense(equation, output_shape=output)
    x = rectified(3, *shape)
    share, table = behind_a_relu(layer, shape, x)
    # With ones for the kernel, each product with a one adds a one.
    layer.kernel.assign(keras.ops.ones_like(layer.kernel))
    total = np.sum(layer(np.ones_like(x))) / 3
    assert table.macs == pytest.approx(total)
    needed = np.sum(layer((x != 0).astype("float32"))) / 3
    assert table.effective_macs == pytest.approx(needed)
    assert share == pytest.approx(1 - needed / total)


@pytest.mark.parametrize("rank", [1, 2])
def test_both_stages_of_a_separable_convolution(rank):
    kind = (kl.SeparableConv1D, kl.SeparableConv2D)[rank - 1]
    layer = kind(5, 3, padding="same", depth_multiplier=2, activation="relu")
    layer.depthwise_initializer = "ones"
    x = rectified(2, *(7, 6)[:rank], 3) * (np.arange(7).reshape(7, *[1] * rank) < 2)
    _, table = behind_a_relu(layer, x.shape[1:], x.astype("float32"))
    needless, total = count(x, 3, 1, 1, "same")
    depthwise = keras.ops.depthwise_conv(x, layer.depthwise_kernel, padding="same")
    zeros = np.sum(np.array(depthwise) == 0)
    assert zeros
    assert table.macs * 2 == total * 2 + depthwise.numpy().size * 5
    assert (table.macs - table.effective_macs) * 2 == needless * 2 + zeros * 5


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


X = rectified(3, 4, 5)
CELLS = {
    "LSTM": (kl.LSTM, {"activation": "relu"}, 4),
    "GRU": (kl.GRU, {"activation": "relu"}, 3),
    "SimpleRNN": (kl.SimpleRNN, {"activation": "relu"}, 1),
}


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
    masked = kl.Masking()(inputs)
    layer = kl.Bidirectional(
        kl.SimpleRNN(6, activation="relu", return_sequences=sequences)
    )
    x = X.copy()
    x[1, 2:] = 0
    x[2, :1] = 0
    table = activation_sparsity(keras.Model(inputs, layer(masked)), x)
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


def causal(q, k, v):
    """The weights of attention with a causal mask, and their products with values."""
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(q.shape[1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights, np.einsum("bhts,bshd->bthd", weights, v)


@pytest.mark.parametrize("grouped", [False, True])
def test_attention(grouped):
    layer = (
        kl.GroupQueryAttention(4, 4, 2, name="attention")
        if grouped
        else kl.MultiHeadAttention(4, 4, name="attention")
    )
    inputs = keras.Input((5, 6))
    x = rectified(2, 5, 6)
    x[..., 0] = 1  # So that no query, key or value is zero.
    outputs = layer(inputs, inputs, use_causal_mask=True)
    table = activation_sparsity(keras.Model(inputs, outputs), x)
    names = ("query", "key", "value")
    kernels = {w.path.split("/")[-2]: np.array(w) for w in layer.weights if w.ndim == 3}
    q, k, v = (np.einsum("btc,chd->bthd", x, kernels[name]) for name in names)
    k, v = (np.repeat(a, 4 // a.shape[2], axis=2) for a in (k, v))
    weights, mixed = causal(q, k, v)
    projected = np.sum(x != 0) * sum(kernels[name][0].size for name in names)
    projected += np.sum(mixed != 0) * 6
    q, k, v = (np.moveaxis(a, 2, 1) for a in (q, k, v))
    products = effective(q[:, :, :, None], k[:, :, None])
    products += effective(weights[..., None], v[:, :, None])
    kind = type(layer).__name__
    assert table.macs_by_kind["EinsumDense"][0] * 2 == pytest.approx(projected)
    assert table.macs_by_kind[kind] == pytest.approx((products / 2, 2 * 4 * 5 * 5 * 4))
    assert table.effective_macs * 2 == pytest.approx(projected + products)
    # Of the causal weights two fifths are zero.
    assert table.macs_by_kind[kind][0] == pytest.approx(400 + 400 * 0.6)
    assert not any("not counted" in note for note in table.notes)


class Mixing(kl.Layer):
    """Products with a weight of its own, of both kinds of operations."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        y = keras.ops.matmul(keras.ops.relu(x), self.kernel)
        return keras.ops.einsum("bts,bsd->btd", keras.ops.matmul(x, x), y)


def test_products_outside_of_known_layers():
    x = np.random.default_rng(0).normal(size=(2, 4, 4)).astype("float32")
    x[:, 1] = 0
    inputs = keras.Input((4, 4))
    layer = Mixing(name="mixing")
    y = layer(kl.ReLU(name="relu")(inputs))
    z = keras.ops.matmul(keras.ops.transpose(y, (0, 2, 1)), inputs)
    model = keras.Model(inputs, kl.Dot((2, 1), name="dot")([z, y]), name="whole")
    table = activation_sparsity(model, x)
    positive = np.maximum(x, 0)
    y = positive @ np.array(layer.kernel)
    square = positive @ positive
    mixed = square @ y
    z = np.swapaxes(mixed, 1, 2) @ x
    products = {
        "Mixing": np.sum(positive != 0) * 3
        + effective(positive[..., None], positive[:, None])
        + effective(square[..., None], y[:, None]),
        "Functional": effective(np.swapaxes(mixed, 1, 2)[..., None], x[:, None]),
        "Dot": effective(z[..., None], mixed[:, None]),
    }
    assert {kind: part * 2 for kind, (part, _) in table.macs_by_kind.items()} == (
        pytest.approx(products)
    )
    assert {kind: macs for kind, (_, macs) in table.macs_by_kind.items()} == (
        {"Mixing": 48 + 64 + 48, "Functional": 48, "Dot": 36}
    )
    # It is a factor three times: of the weight, and twice of itself.
    zeros = np.mean(positive == 0)
    assert rows(table)["relu"]["needless_macs"] == pytest.approx(zeros)


class Twice(kl.Dense):
    def call(self, x):
        return super().call(x) + super().call(x + 1)


class Shifted(kl.SimpleRNN):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return super().call(sequences + 1, initial_state, mask, training)


@pytest.mark.parametrize(
    ("kind", "macs", "noted"), [(Twice, 2 * 4 * 5 * 3, False), (Shifted, 0, True)]
)
def test_what_a_call_of_its_own_does_is_not_taken_for_that_of_its_class(
    kind, macs, noted
):
    table = activation_sparsity(
        keras.Sequential([keras.Input((4, 5)), kind(3, name="own")]), X
    )
    assert table.macs == macs
    if kind is Twice:
        needed = (np.sum(X != 0) + X.size) * 3
        assert table.effective_macs * 3 == pytest.approx(needed)
    assert ("Products not counted: own (Shifted)." in table.notes) is noted


def test_a_dense_layer_at_each_timestep():
    model = keras.Sequential(
        [keras.Input((4, 5)), kl.TimeDistributed(kl.Dense(3), name="steps")]
    )
    table = activation_sparsity(model, X)
    assert table.macs_by_kind == {"Dense": pytest.approx((np.sum(X != 0), 4 * 5 * 3))}


class InALoop(kl.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        return tf.map_fn(lambda row: tf.matmul(row, self.kernel), x)


class InAFunction(InALoop):
    def call(self, x):
        return tf.function(lambda: tf.matmul(x, self.kernel), autograph=False)()


class Convolving(kl.Layer):
    def call(self, x):
        return tf.nn.conv1d(x, tf.ones((2, x.shape[-1], x.shape[-1])), 1, "SAME")


class Doubling(kl.Layer):
    def call(self, x):
        return tf.map_fn(lambda row: row * 2, x)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (InALoop, True),
        (InAFunction, True),
        (Convolving, True),
        (Doubling, False),
        (lambda name: kl.RNN([kl.GRUCell(3), kl.GRUCell(3)], name=name), True),
        (lambda name: Sparseout(0.5, name=name), False),
        (lambda name: kl.LayerNormalization(name=name), False),
    ],
)
def test_what_can_not_be_counted_is_named(layer, named):
    model = keras.Sequential([keras.Input((4, 5)), layer(name="this"), kl.Dense(2)])
    table = activation_sparsity(model, X)
    kind = type(model.get_layer("this")).__name__
    notes = [note for note in table.notes if "not counted" in note]
    assert notes == [f"Products not counted: this ({kind})."] * named
    assert set(table.macs_by_kind) == {"Dense"}


def test_kinds_add_up_and_are_printed():
    inputs = keras.Input((6, 6, 2))
    x = kl.Conv2D(4, 3, activation="relu")(inputs)
    x = kl.Flatten()(kl.Conv2D(3, 3)(x))
    table = activation_sparsity(
        keras.Model(inputs, kl.Dense(2)(x)), rectified(2, 6, 6, 2)
    )
    totals = {kind: macs for kind, (_, macs) in table.macs_by_kind.items()}
    assert totals == {"Conv2D": 16 * 9 * 2 * 4 + 4 * 9 * 4 * 3, "Dense": 24}
    assert table.macs == sum(totals.values())
    parts = [part for part, _ in table.macs_by_kind.values()]
    assert table.effective_macs == pytest.approx(sum(parts))
    last = str(table).splitlines()[-1]
    assert last == f"By kind: Conv2D {parts[0]:.3g} of 1.6 k, Dense 24 of 24."


def test_batches_of_varying_length():
    lengths = (5, 3)
    data = tf.data.Dataset.from_generator(
        lambda: (rectified(2, n, 4, seed=n) for n in lengths),
        output_signature=tf.TensorSpec((None, None, 4)),
    )
    inputs = keras.Input((None, 4))
    y = kl.MultiHeadAttention(1, 3, name="attention")(inputs, inputs)
    y = kl.Conv1D(2, 3, padding="same")(y)
    table = activation_sparsity(keras.Model(inputs, kl.LSTM(3)(y)), data)
    expected = [
        n * 4 * 3 * 4 + n * n * 3 * 2 + (3 * n - 2) * 4 * 2 + n * (2 + 3) * 12
        for n in lengths
    ]
    assert table.macs == pytest.approx(np.mean(expected))
