"""Sparseout inside loops, maps and recomputed gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Sparseout


class Cell(keras.layers.Layer):
    state_size = output_size = 64

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, states, training=False):
        outputs = self.layer(inputs, training=training)
        return outputs, [outputs]


def in_rnn(layer, x):
    rnn = keras.layers.RNN(Cell(layer), return_sequences=True)
    return rnn(x[None], training=True)[0]


def in_time_distributed(layer, x):
    return keras.layers.TimeDistributed(layer)(x[None], training=True)[0]


def in_map_fn(layer, x):
    return tf.map_fn(lambda row: layer(row[None], training=True)[0], x)


def in_while_loop(layer, x):
    rows = tf.TensorArray("float32", len(x))

    def body(i, rows):
        return i + 1, rows.write(i, layer(x[i : i + 1], training=True)[0])

    return tf.while_loop(lambda i, _: i < len(x), body, (0, rows))[1].stack()


def in_data_map(layer, x):
    rows = tf.data.Dataset.from_tensor_slices(x)
    rows = rows.map(lambda row: layer(row[None], training=True)[0])
    return rows.batch(len(x)).get_single_element()


def in_gradient_of(wrap):
    def gradient(layer, x):
        call = wrap(lambda x: layer(x, training=True))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        return tape.gradient(y, x)

    return gradient


PLACES = {
    "RNN": in_rnn,
    "TimeDistributed": in_time_distributed,
    "map_fn": in_map_fn,
    "while_loop": in_while_loop,
    "data.map": in_data_map,
    "recompute_grad": in_gradient_of(tf.recompute_grad),
    "remat": in_gradient_of(keras.remat),
}


@pytest.mark.parametrize(
    ("place", "jit_compile", "traced"),
    [
        *((place, True, True) for place in PLACES),
        *((place, False, True) for place in ("RNN", "map_fn", "recompute_grad")),
        *((place, True, False) for place in ("while_loop", "remat")),
    ],
)
def test_rows_are_drawn_apart_and_finite_in(place, jit_compile, traced):
    layer = Sparseout(0.5, 1.5, jit_compile=jit_compile)
    layer.build((None, 64))
    x = tf.constant(np.full((4, 64), 4.0, "float32"))
    call = PLACES[place]
    y = (tf.function(call) if traced else call)(layer, x).numpy()
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    assert len(np.unique(y, axis=0)) == 4


def test_elements_of_vectorized_map_share_a_mask_as_with_dropout():
    x = tf.ones((4, 64))
    for layer in (
        keras.layers.Dropout(0.5),
        Sparseout(0.5, jit_compile=False),
        Sparseout(0.5, jit_compile=True),
    ):
        y = tf.vectorized_map(lambda row, call=layer: call(row, training=True), x)
        assert sorted(np.unique(y)) == [0, 2]
        np.testing.assert_array_equal(y, np.broadcast_to(y[:1], y.shape))
