"""Bridgeout around an Embedding, which puts noise on the rows that are looked up."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Bridgeout

L = keras.layers


def noisy_embedding():
    layer = Bridgeout(L.Embedding(10, 4, embeddings_initializer="ones"), 0.5, seed=1)
    layer.build((None,))
    return layer


def test_negative_ids_count_from_the_end():
    layer = noisy_embedding()
    y = layer(np.array([-1, 9, -10, 0]), training=True).numpy()
    np.testing.assert_array_equal(y[[0, 2]], y[[1, 3]])


@pytest.mark.parametrize("number", [10, -11])
def test_ids_out_of_range_raise_as_without_noise(number):
    layer, ids = noisy_embedding(), np.array([1, number])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"not in \[0, 10\)"):
        layer.layer(ids)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"not in \[0, 10\)"):
        layer(ids, training=True)


def test_arguments_that_an_embedding_does_not_take_raise():
    layer, ids = noisy_embedding(), np.array([1, 2])
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        layer(ids, weight=ids, training=True)
    with pytest.raises(TypeError, match="too many positional arguments"):
        layer(ids, ids, training=True)
