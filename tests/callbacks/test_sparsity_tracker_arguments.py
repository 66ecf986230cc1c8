"""What SparsityTracker says of arguments that do not fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tracked import X, Y, fit, small_model

from keras_sparseout import SparsityController, SparsityTracker


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"x": X[:0]}, ["`x`", "Received: x=an array of shape (0, 6, 4)"]),
        ({"x": []}, ["`x`", "Received: x=[]"]),
        ({"x": "data"}, ["`x`", "Received: x='data'"]),
        ({"x": (X, X[:3])}, ["`x`", "Received: x with 70, 3 samples"]),
        ({"x": X, "metrics": ("hoyr",)}, ["`metrics`", "Did you mean 'hoyer'?"]),
        (
            {"x": X, "metrics": ("gibberish",)},
            ["`metrics`", "metrics='gibberish'"],
        ),
        ({"x": X, "metrics": ()}, ["`metrics`", "Received: metrics=()"]),
        ({"x": X, "metrics": None}, ["`metrics`", "Received: metrics=None"]),
        ({"x": X, "metrics": [["hoyer"]]}, ["`metrics`", "Received: metrics=[["]),
        ({"x": X, "metrics": [abs, abs]}, ["`metrics`", "all different", "dict"]),
        ({"x": X, "metrics": {"loss": abs}}, ["`metrics`", "'loss'"]),
        ({"x": X, "layers": 3}, ["`layers`", "Received: layers=3"]),
        ({"x": X, "layers": []}, ["`layers`", "Received: layers=[]"]),
        ({"x": tf.constant(1.0)}, ["`x`", "Received: x="]),
        ({"x": tf.sparse.from_dense(X[0])}, ["`x`", "with tf.sparse.to_dense"]),
        ({"x": X, "batch_size": 0}, ["`batch_size`", "Received: batch_size=0"]),
        ({"every": 0}, ["`every`", "Received: every=0"]),
        ({"every": "batch"}, ["`every`", "number of batches", "'batch'"]),
        ({"sample_size": 0}, ["`sample_size`", "Received: sample_size=0"]),
        ({"steps": 0, "x": X}, ["`steps`", "Received: steps=0"]),
        ({"where": "inside"}, ["`where`", "Received: where='inside'"]),
        ({"axis": 1}, ["`axis`", "Received: axis=1"]),
        ({"layers": [3]}, ["`layers`", "Received: layers=[3]"]),
        ({"x": X, "per_layer": 1}, ["True, False or None.", "Received: per_layer=1"]),
    ],
)
def test_bad_arguments_say_what_to_do(kwargs, says):
    with pytest.raises(ValueError, match="Received") as error:
        SparsityTracker(**kwargs)
    for words in says:
        assert words in str(error.value)


@pytest.mark.parametrize("kind", [SparsityTracker, SparsityController])
def test_another_backend_is_refused_with_the_remedy(kind, monkeypatch):
    model = small_model(adjustable=True)
    callback = kind(**({"target": 0.5} if kind is SparsityController else {}))
    callback.set_model(model)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="TensorFlow alone") as error:
        callback.on_train_begin()
    for words in (kind.__name__, "'jax'", "KERAS_BACKEND=tensorflow"):
        assert words in str(error.value)


def test_bad_datasets_say_what_to_do():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    with pytest.raises(ValueError, match=r"`x` must have an end, or `steps`"):
        SparsityTracker(dataset.repeat())
    with pytest.raises(ValueError, match="`x` must hold at least one sample"):
        fit(small_model(), SparsityTracker(dataset.take(0)))


def test_probe_data_of_another_shape_say_so():
    with pytest.raises(ValueError, match=r"samples of shape \(4, 6\), for inputs of"):
        fit(small_model(), SparsityTracker(np.ones((3, 4, 6), "float32")))
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((3,), name="b")}
    x = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, keras.layers.Dense(1, "relu")(x))
    data = {"a": np.ones((70, 2)), "b": np.ones((70, 4))}
    with pytest.raises(
        ValueError, match=r"shape \(4,\), for input 'b' of shape \(3,\)"
    ):
        fit(model, SparsityTracker(data), x=data | {"b": np.ones((70, 3))})
