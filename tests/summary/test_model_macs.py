"""The products of a whole model, against counting them one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from counted import rectified, rows
from keras import layers as kl

from keras_sparseout import Sparseout, activation_sparsity

X = rectified(3, 4, 5)


def effective(*factors):
    """How many products of broadcast factors have none that is zero."""
    return np.count_nonzero(np.prod([f != 0 for f in np.broadcast_arrays(*factors)], 0))


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


class OtherMixing(Mixing):
    pass


def test_products_belong_to_the_layer_that_makes_them_whatever_its_name():
    # Keras numbers the scopes of calls, and layers may have such names too.
    inputs = keras.Input((4, 4))
    first, other = Mixing(name="mix"), OtherMixing(name="mix_1")
    x = inputs
    for layer in (first, other, other):
        x = kl.Dense(4)(layer(x))
    loops = [InALoop(name=name) for name in ("op", "op_1", "op_2")]
    for layer in (*loops, loops[0]):
        x = layer(x)
    model = keras.Model(inputs, x)
    table = activation_sparsity(model, rectified(2, 4, 4), layers="mix")
    totals = {kind: macs for kind, (_, macs) in table.macs_by_kind.items()}
    # A kernel of 3 columns, a square of 4, their product.
    mixed = 4 * 4 * 3 + 64 + 48
    assert totals == {"OtherMixing": 2 * mixed, "Mixing": mixed, "Dense": 3 * 48}
    (note,) = [note for note in table.notes if "not counted" in note]
    assert all(f"{layer.name} (InALoop)" in note for layer in loops)


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
    model = keras.Sequential(
        [keras.Input((4, 5)), layer(name="this"), kl.Dense(2, name="head")]
    )
    table = activation_sparsity(model, X, layers="head")
    kind = type(model.get_layer("this")).__name__
    notes = [note for note in table.notes if "not counted" in note]
    assert notes == [f"Products not counted: this ({kind})."] * named
    assert set(table.macs_by_kind) == {"Dense"}


def test_kinds_add_up_and_are_printed():
    inputs = keras.Input((6, 6, 2))
    x = kl.Conv2D(4, 3, activation="relu")(inputs)
    x = kl.Flatten()(kl.Conv2D(3, 3)(x))
    model = keras.Model(inputs, kl.Dense(2, name="head")(x))
    table = activation_sparsity(model, rectified(2, 6, 6, 2), layers="head")
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
    # One row takes less time to trace; the MACs are those of all layers.
    table = activation_sparsity(
        keras.Model(inputs, kl.LSTM(3, name="last")(y)), data, layers="last"
    )
    expected = [
        n * 4 * 3 * 4 + n * n * 3 * 2 + (3 * n - 2) * 4 * 2 + n * (2 + 3) * 12
        for n in lengths
    ]
    assert table.macs == pytest.approx(np.mean(expected))
