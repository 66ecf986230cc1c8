"""Which layers have a row in the table."""

import keras
import numpy as np
import pytest
from counted import rectified, rows
from keras import layers as kl
from tracked import X, small_model

from keras_sparseout import activation_sparsity


def test_layers_inside_others_go_by_their_path_and_containers_are_left_out():
    encoder = keras.Sequential(small_model().layers[:-1], name="encoder")
    model = keras.Sequential([keras.Input((6, 4)), encoder, kl.Dense(1, name="head")])
    table = activation_sparsity(model, X)
    names = list(rows(table))
    assert "encoder" not in names
    assert {"encoder/first", "encoder/second", "head"} < set(names)
    second = rows(table)["encoder/second"]
    assert second["needless_macs"] == pytest.approx(second["zeros"])
    assert "encoder" in rows(activation_sparsity(model, X, layers=["encoder", "head"]))


def test_an_activation_that_is_a_layer_does_not_hide_the_dense_layer():
    model = keras.Sequential(
        [keras.Input((4,)), kl.Dense(3, activation=kl.ReLU(name="act"), name="dense")]
    )
    assert list(rows(activation_sparsity(model, rectified(5, 4)))) == [
        "dense",
        "dense/act",
    ]


def test_preprocessing_layers_of_other_types_are_skipped():
    text = kl.TextVectorization(max_tokens=9)
    text.adapt(["a b c", "a b"])
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            text,
            kl.Embedding(9, 4, name="embedding"),
            kl.GlobalAveragePooling1D(name="mean"),
            kl.Dense(1, name="head"),
        ]
    )
    x = np.array(["a b", "c", "b b a"], object)
    table = activation_sparsity(model, x, batch_size=2)
    assert list(rows(table)) == ["embedding", "mean", "head"]
    assert rows(table)["embedding"]["shape"] == (None, 4)
    with pytest.raises(ValueError, match=r"floating-point.*int64 of shape.*Leave it"):
        activation_sparsity(model, x, layers=kl.TextVectorization)


def test_the_side_can_be_chosen():
    model = keras.Sequential([keras.Input((4,)), kl.ReLU(), kl.Dense(2, name="dense")])
    x = rectified(5, 4)
    row = rows(activation_sparsity(model, x, layers="dense", where="input"))["dense"]
    assert row["zeros"] == row["needless_macs"] == pytest.approx(np.mean(x == 0))
