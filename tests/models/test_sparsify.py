"""`sparsify` to a target: zeros on unseen data, and what the new model is."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from sparsified import gated, normal, outputs_of, run, thresholds, zeros

import keras_sparseout
from keras_sparseout import activation_sparsity, sparsify

X, NEW = normal(600, 16), normal(600, 16, seed=1)


def check(model, x, new, target=0.7, **options):
    """Sparsifies, and checks the zeros on the data and on unseen ones."""
    sparse, table = sparsify(model, x, target, return_table=True, verbose=0, **options)
    for row, (_, share) in zip(table.rows, zeros(sparse, x).items(), strict=True):
        wanted = max(target, row["zeros_before"])
        assert row["zeros_after"] == pytest.approx(wanted, abs=0.003)
        # Fused, operations round otherwise.
        assert share == pytest.approx(row["zeros_after"], abs=0.003)
    for row, (_, share) in zip(table.rows, zeros(sparse, new).items(), strict=True):
        assert share == pytest.approx(row["zeros_after"], abs=0.01)
    return sparse, table


@pytest.fixture(scope="module")
def sparsified():
    """A model, what `sparsify` made of it, and the table."""
    keras.utils.set_random_seed(0)
    model = gated()
    return model, *sparsify(model, X, 0.6, return_table=True, verbose=0)


@pytest.mark.filterwarnings("error:__array__ implementation:DeprecationWarning")
def test_zeros_on_unseen_data_are_on_target():
    model = gated()
    model.compile("adam", "mse")
    before = [v.numpy() for v in model.variables]
    sparse, table = check(model, X, NEW, batch_size=37)
    assert [row["layer"] for row in table.rows] == ["second", "third", "head"]
    assert "first" in table.notes[0]
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    assert [layer.name for layer in model.layers] == [
        *("first", "second", "third", "head")
    ]
    assert sparse.compiled
    # Weights are copies.
    for name in ("first", "head"):
        mine, own = (m.get_layer(name).kernel for m in (model, sparse))
        assert mine is not own
        np.testing.assert_array_equal(mine, own)


def test_the_outputs_are_those_of_the_thresholds(sparsified):
    model, sparse, table = sparsified
    x = X
    for name in ("first", "second", "third", "head"):
        if name != "first":
            t = thresholds(sparse)[f"{name}_threshold"].threshold.numpy()
            x = np.where(np.abs(x) > t, x, 0)
        x = run(model.get_layer(name), x)
    np.testing.assert_allclose(run(sparse, X), x, atol=1e-4)
    plain = run(model, X)
    change = np.sum((x - plain) ** 2) / np.sum(plain**2)
    assert table.change == pytest.approx(change, rel=1e-3)


def test_the_table_has_the_figures_of_activation_sparsity(sparsified):
    model, sparse, table = sparsified
    counted = activation_sparsity(
        sparse, X, layers="targetsparsity", where="output", axis=None
    )
    assert table.macs == counted.macs
    assert table.effective_macs == pytest.approx(counted.effective_macs, rel=1e-4)
    assert table.effective_macs_before == activation_sparsity(model, X).effective_macs
    for mine, row in zip(table.rows, counted.rows, strict=True):
        assert row["layer"] == mine["layer"] + "_threshold"
        assert mine["zeros_after"] == pytest.approx(row["zeros"], abs=1e-4)
        assert mine["needless_after"] == pytest.approx(row["needless_macs"], abs=1e-4)
        assert mine["zeros_before"] == mine["needless_before"] == 0


def test_a_convolutional_model_with_a_threshold_for_each_unit():
    model = keras.Sequential(
        [
            keras.Input((10, 10, 2)),
            kl.Conv2D(8, 3, activation="gelu", name="first"),
            kl.SeparableConv2D(8, 3, padding="same", activation="silu", name="split"),
            kl.DepthwiseConv2D(3, strides=2, activation="gelu", name="depth"),
            kl.Conv2DTranspose(8, 3, activation="gelu", name="up"),
            kl.GlobalAveragePooling2D(),
            kl.Dense(3, name="head"),
        ]
    )
    sparse, _ = check(
        model,
        normal(300, 10, 10, 2),
        normal(300, 10, 10, 2, seed=1),
        axis=-1,
        layers=["split", "depth", "up"],
    )
    found = thresholds(sparse)
    assert len(found) == 3
    assert all(layer.threshold.shape == (8,) for layer in found.values())
    [values] = outputs_of(sparse, ["split_threshold"], normal(300, 10, 10, 2, seed=2))
    np.testing.assert_allclose(np.mean(values == 0, axis=(0, 1, 2)), 0.7, atol=0.03)


def test_inner_models_shared_layers_and_several_inputs():
    inner = keras.Sequential(
        [keras.Input((32,)), kl.Dense(32, "tanh", name="b")], name="inner"
    )
    shared = kl.Dense(32, "gelu", name="shared")
    inputs = {name: keras.Input((16,), name=name) for name in ("one", "two")}
    first = [kl.Dense(32, "silu", name=f"of_{n}")(x) for n, x in inputs.items()]
    joined = kl.Concatenate()([inner(shared(x)) for x in first])
    outputs = [kl.Dense(2, "softmax", name="left")(joined)]
    outputs.append(kl.Dense(1, name="right")(joined))
    model = keras.Model(inputs, outputs)
    x = {"one": X, "two": 3 * NEW}
    sparse, table = sparsify(
        model, x, {"shared": 0.8, "inner/.*": 0.5}, return_table=True, verbose=0
    )
    assert [row["target"] for row in table.rows] == [0.8, 0.5]
    for row in table.rows:
        assert row["zeros_after"] == pytest.approx(row["target"], abs=0.003)
    assert set(thresholds(sparse)) == {"shared_threshold", "b_threshold"}
    assert len(sparse.get_layer("shared_threshold")._inbound_nodes) == 2
    left, right = run(sparse, x)
    assert left.shape == (600, 2)
    assert right.shape == (600, 1)


def test_padding_does_not_count():
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            kl.Embedding(50, 16, mask_zero=True),
            kl.TimeDistributed(kl.Dense(16, "silu"), name="timed"),
            kl.SimpleRNN(16, return_sequences=True, name="rnn"),
            kl.Dense(4, name="head"),
        ]
    )
    rng = np.random.default_rng(0)
    x = rng.integers(1, 50, size=(400, 6))
    is_padding = np.arange(6) >= rng.integers(2, 7, size=(400, 1))
    x[is_padding] = 0
    sparse, table = sparsify(
        model,
        x,
        {"timed": 0.4, "rnn": 0.6, "head": 0.6},
        return_table=True,
        verbose=0,
    )
    names = list(thresholds(sparse))
    for row, values in zip(table.rows, outputs_of(sparse, names, x), strict=True):
        share = np.mean(values[~is_padding] == 0)
        assert share == pytest.approx(row["target"], abs=0.003)
        assert share == pytest.approx(row["zeros_after"], abs=1e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = keras.Sequential(
            [
                keras.Input((16,)),
                kl.Dense(32, "hard_sigmoid"),
                kl.Dense(32, "tanh"),
                kl.Dense(2, dtype="float32"),
            ]
        )
        # Many of the first are 0 or 1: .0 and .3 of them.
        model.layers[0].kernel.assign(model.layers[0].kernel * 4)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    check(model, X, NEW, target=0.6)


def test_zeros_by_nature_and_equal_activations_are_noted():
    inputs = keras.Input((16,))
    many = kl.Dense(32, "relu", name="many")(inputs)
    x = kl.Dense(32, "hard_tanh", name="a", kernel_initializer="he_normal")(10 * many)
    model = keras.Model(inputs, kl.Dense(2, name="b")(x))
    sparse, table = sparsify(model, X, 0.4, return_table=True, verbose=0)
    first, second = table.rows
    assert first["threshold"] == 0
    assert first["zeros_after"] == first["zeros_before"] > 0.45
    assert second["zeros_after"] < 0.3
    notes = "\n".join(table.notes)
    assert "More zeros than asked, by nature: a." in notes
    assert "since many activations are equal: b." in notes
    [values] = outputs_of(sparse, ["b_threshold"], X)
    assert np.mean(np.abs(values) == 1) > 0.6


def test_after_layers():
    sparse, table = sparsify(
        gated(),
        X,
        0.6,
        layers=["first", "tanh"],
        where="after",
        return_table=True,
        verbose=0,
    )
    names = [layer.name for layer in sparse.layers]
    assert names == [
        *("first", "first_threshold", "second", "third", "third_threshold", "head")
    ]
    assert [row["layer"] for row in table.rows] == ["first", "third"]
    for share in zeros(sparse, NEW).values():
        assert share == pytest.approx(0.6, abs=0.01)


def test_it_goes_on_in_training_and_into_a_file(tmp_path):
    model = gated()
    model.compile("sgd", "mse", jit_compile=False)
    sparse = sparsify(model, X, {"head": 0.7}, verbose=0)
    before = {n: float(v.threshold.numpy()) for n, v in thresholds(sparse).items()}
    batched.fit(sparse, X, normal(600, 3, seed=2), batch_size=60, verbose=0)
    assert thresholds(sparse)["head_threshold"].threshold.numpy() != pytest.approx(
        before["head_threshold"], rel=1e-6
    )
    for share in zeros(sparse, NEW).values():
        assert share == pytest.approx(0.7, abs=0.02)
    sparse.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(run(again, NEW), run(sparse, NEW), atol=1e-6)


def test_labels_of_arrays_and_of_data_sets(capsys):
    model = gated()
    y = np.arange(600) % 3
    metric = keras.metrics.SparseCategoricalAccuracy(name="right")
    sparse, table = sparsify(
        model, X, {"head": 0.6}, y=y, metrics=metric, return_table=True
    )
    hits = [np.mean(np.argmax(run(m, X), -1) == y) for m in (model, sparse)]
    assert set(table.metrics) == {"right"}
    assert table.metrics["right"] == pytest.approx(tuple(hits), abs=1e-6)
    assert str(table) in capsys.readouterr().out
    assert not model.compiled
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    data = tf.data.Dataset.from_tensor_slices((X, y)).batch(200)
    # One batch holds 200 samples.
    _, table = sparsify(
        model, data, {"head": 0.6}, steps=1, return_table=True, verbose=0
    )
    assert set(table.metrics) == {"accuracy", "loss"}
    hits = np.mean(np.argmax(run(model, X[:200]), -1) == y[:200])
    assert table.metrics["accuracy"][0] == pytest.approx(hits, abs=1e-6)


def test_a_model_that_takes_batches_of_one_size():
    inputs = keras.Input(batch_shape=(40, 5, 16))
    x = kl.SimpleRNN(16, return_sequences=True, stateful=True, name="rnn")(inputs)
    model = keras.Model(inputs, kl.Dense(2, name="head")(x))
    model.compile(loss="mse", jit_compile=False)
    y = normal(120, 5, 2)
    sparse, table = sparsify(
        model, normal(120, 5, 16), 0.6, y=y, return_table=True, verbose=0
    )
    assert list(thresholds(sparse)) == ["head_threshold"]
    # Its states go on from one pass to the next.
    assert table.rows[0]["zeros_after"] == pytest.approx(0.6, abs=0.01)
    assert set(table.metrics) == {"loss"}
    assert not np.any(model.get_layer("rnn").states[0])
    # Outputs are compared from the same states.
    _, table = sparsify(model, normal(80, 5, 16), 0.0, return_table=True, verbose=0)
    assert table.change == 0


def test_the_name_is_public():
    assert keras_sparseout.sparsify is keras_sparseout.models.sparsify
