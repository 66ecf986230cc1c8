"""What data a model is measured on, and what is refused, by its true cause."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from counted import rectified, rows
from keras import layers as kl

from keras_sparseout import SparsityTracker, activation_sparsity


def plain(**options):
    return keras.Sequential(
        [keras.Input((2,), **options), kl.ReLU(name="relu"), kl.Dense(2)]
    )


def fixed():
    """A model with a state for each sample of a batch."""
    return keras.Sequential(
        [
            keras.Input((2,), batch_size=4),
            kl.ReLU(name="relu"),
            kl.Reshape((1, 2)),
            kl.SimpleRNN(2, stateful=True),
        ]
    )


def image():
    return keras.Sequential([keras.Input((4, 3, 2)), kl.Flatten()])


def two_inputs(named=False):
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    joined = kl.Concatenate(name="joined")([a, b])
    return keras.Model({"a": a, "b": b} if named else [a, b], joined)


def of_strings():
    text = kl.TextVectorization(max_tokens=9)
    text.adapt(["a b"])
    return keras.Sequential([keras.Input((), dtype="string"), text, kl.Embedding(9, 4)])


def dataset(x, batch_size):
    return tf.data.Dataset.from_tensor_slices(x).batch(batch_size)


ONES = np.ones((12, 2), "float32")
A, B = np.ones((5, 2)), np.ones((5, 3))


@pytest.mark.parametrize(
    ("size", "form"), [(4, "array"), (12, "array"), (8, "dataset")]
)
def test_a_fixed_batch_size_is_kept_to(size, form):
    x = rectified(size, 2)
    data = x if form == "array" else dataset(x, 4)
    table = activation_sparsity(fixed(), data, layers="relu", batch_size=256)
    assert rows(table)["relu"]["zeros"] == pytest.approx(np.mean(x == 0))


@pytest.mark.parametrize(
    ("x", "received", "remedy"),
    [
        (ONES[:11], "11 samples", "the first 8, as x[:8]"),
        (ONES[:3], "3 samples", "Give more"),
        (dataset(ONES[:11], 4), "a batch of 3", ".batch(4, drop_remainder=True)"),
        (dataset(ONES, 6), "a batch of 6", ".batch(4, drop_remainder=True)"),
    ],
)
def test_what_does_not_fill_batches_of_the_fixed_size(x, received, remedy):
    with pytest.raises(ValueError, match="fixed batch size") as error:
        activation_sparsity(fixed(), x)
    assert f"Received: x with {received}" in str(error.value)
    assert remedy in str(error.value)


def unbuilt():
    return keras.Sequential([kl.ReLU(name="relu"), kl.Dense(2)])


@pytest.mark.parametrize("called_with", [4, None])
def test_the_size_of_the_first_batch_is_no_fixed_one(called_with):
    # The last batch has another size than those before.
    model, x = unbuilt(), rectified(12, 2)
    if called_with:
        model(x[:called_with])
        assert model.inputs[0].shape[0] == called_with
    for data in (x, dataset(x, 5)):
        table = rows(activation_sparsity(model, data, layers="relu", batch_size=5))
        assert table["relu"]["zeros"] == pytest.approx(np.mean(x == 0))
    # It is built as `fit` builds it.
    assert model.inputs[0].shape == (called_with, 2)


def test_inputs_of_a_size_that_the_model_does_not_need():
    x = rectified(10, 2)
    table = rows(activation_sparsity(plain(batch_size=4), x, layers="relu"))
    assert table["relu"]["zeros"] == pytest.approx(np.mean(x == 0))


def test_one_tracker_keeps_to_the_size_of_each_model(capsys):
    tracker = SparsityTracker(ONES, layers="relu", batch_size=5)
    for model in (fixed(), plain(), fixed()):
        model.compile("sgd", "mse", run_eagerly=True)
        batched.fit(model, ONES, ONES, batch_size=4, verbose=0, callbacks=[tracker])
        assert tracker.history["val_zero_fraction"] == [0]
    assert capsys.readouterr().out.count("on 12 samples") == 3


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        (plain, np.ones((5, 3)), ["shape (3,), for inputs of shape (2,)", "`fit`"]),
        (plain, np.ones((5, 6, 2)), ["shape (6, 2), for inputs of shape (2,)"]),
        (plain, np.ones(2), ["samples of shape ()", "Give x[None] for a single"]),
        (image, np.ones((4, 3, 2)), ["shape (3, 2)", "Give x[None] for a single"]),
        (image, np.ones((5, 2, 4, 3)), ["shape (2, 4, 3)", "numpy.moveaxis"]),
        (plain, (A, A[:, 0]), ["with 2 of them. Give one array, without labels"]),
        (two_inputs, A, ["inputs: a, b", "with 1 of them", "a tuple or dict"]),
        (two_inputs, (A, B, A), ["inputs: a, b", "with 3 of them"]),
        (two_inputs, (B, A), ["shape (3,), for input 'a' of shape (2,)"]),
        (two_inputs, {"a": A, "c": B}, ["inputs: a, b", "keys a, c", "missing: b"]),
        (plain, {"x": A}, ["with the keys x", "Give what is missing"]),
        (plain, np.array([["u", "v"]]), ["x of string, for inputs of float32"]),
        (plain, A.astype(complex), ["x of complex128", "numpy.abs(x)"]),
        (of_strings, np.ones(3), ["x of float64, for inputs of string"]),
    ],
)
def test_the_true_cause_is_named(model, x, words):
    with pytest.raises(ValueError, match=r"^`x` must .* Received: x") as error:
        activation_sparsity(model(), x)
    for expected in words:
        assert expected in str(error.value)


def test_a_model_that_can_not_be_called_takes_no_data():
    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator = plain()

    model = Gan()
    model.compile("sgd", "mse")
    says = (
        r"`x` must be given to a model that can be called. Received: x for model .*Gan"
    )
    with pytest.raises(ValueError, match=says):
        model.fit(A, A, callbacks=[SparsityTracker(A)])
    with pytest.raises(ValueError, match=says):
        activation_sparsity(model, A)


@pytest.mark.parametrize("named", [False, True])
def test_inputs_are_found_by_name(named):
    x = {"b": rectified(5, 3), "a": rectified(5, 2, seed=1)}
    if not named:  # Where Keras warns of what it does not need.
        x["label"] = np.ones(5)
    zeros = np.mean(np.concatenate([x["a"], x["b"]], 1) == 0)
    table = rows(activation_sparsity(two_inputs(named), x))
    assert table["joined"]["zeros"] == pytest.approx(zeros)


@pytest.mark.parametrize(
    ("x", "received", "remedy"),
    [
        (tf.ragged.constant([[1.0, 2], [3]]), "RaggedTensor", "x.to_tensor()"),
        (tf.sparse.from_dense(A), "SparseTensor", "with tf.sparse.to_dense"),
        (np.ma.masked_array(A, A > 0), "MaskedArray", "x.filled(value)"),
        (keras.KerasTensor((5, 2)), "KerasTensor", "the activations themselves"),
        (A.astype(object), "dtype object", "numpy.asarray(x.tolist()"),
        (A.astype("datetime64[D]"), "dtype datetime64[D]", "Convert it"),
        (
            dataset(tf.ragged.constant([[1.0, 2], [3]]), 2),
            "x that yields parts of type RaggedTensor",
            "x.to_tensor()",
        ),
        (
            dataset(tf.sparse.from_dense(A), 2),
            "x that yields parts of type SparseTensor",
            "with tf.sparse.to_dense",
        ),
    ],
)
def test_what_is_no_dense_array_is_named(x, received, remedy):
    with pytest.raises(ValueError, match="neither sparse nor ragged") as error:
        activation_sparsity(plain(), x)
    assert received in str(error.value)
    assert remedy in str(error.value)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float64"])
def test_types_that_the_model_converts_are_measured(dtype):
    x = np.array([[1, 0], [1, 1], [0, 0]], dtype)
    table = rows(activation_sparsity(plain(), x, layers="relu"))
    assert table["relu"]["zeros"] == 0.5


@pytest.mark.parametrize("as_dataset", [False, True])
def test_a_model_with_ragged_inputs_takes_them(as_dataset):
    class Dense(keras.layers.Layer):
        def call(self, x):
            return x.to_tensor(shape=(None, 3))

        def compute_output_shape(self, shape):
            return (shape[0], 3)

    inputs = keras.Input((None,), ragged=True)
    relu = keras.layers.ReLU(name="relu")(Dense()(inputs))
    x = tf.ragged.constant([[1.0, -2.0], [3.0], [-1.0, 2.0, 3.0]])
    if as_dataset:
        x = tf.data.Dataset.from_tensor_slices(x).ragged_batch(2)
    table = rows(activation_sparsity(keras.Model(inputs, relu), x, layers="relu"))
    assert table["relu"]["zeros"] == pytest.approx(5 / 9)
