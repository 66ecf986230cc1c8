"""Recurrent layers with Sparseout against those of Keras, a training step of each.

    python benchmarks/recurrent.py

prints CPU time of all threads and wall time of forward and backward, and the ratios of
the CPU times: of an LSTM between two locked Sparseout layers to that LSTM alone, and of
SparseoutCellWrapper to the dropout and recurrent_dropout of keras.layers.LSTM.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from interleave import fastest, measure, print_machine

from keras_sparseout import Sparseout
from keras_sparseout.recurrent import SparseoutCellWrapper

QS = (1.5, 2, 1.3)


def forward_and_backward(layers, x, jit_compile=False):
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(model(x, training=True)))
        return tape.gradient(loss, [x, *model.trainable_variables])

    def run():
        # Several steps a round: one is too short to be timed. Reading waits for it.
        for _ in range(5):
            dx, *_ = step(x)
        return float(dx[0, 0, 0])

    return run


def table(results, baseline):
    reference = results[baseline][0]
    for name, (cpu, wall) in results.items():
        print(
            f"{name:<38} {cpu * 1e3:8.1f} ms CPU {wall * 1e3:8.1f} ms wall  "
            f"{cpu / reference:7.3f} of {baseline}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()

    units = args.units
    x = tf.random.normal((args.batch, args.steps, units))

    def lstm(**kwargs):
        return keras.layers.LSTM(units, return_sequences=True, **kwargs)

    def locked(q):
        return Sparseout(0.4, q, noise_shape=(None, 1, None))

    def wrapped(q, **kwargs):
        cell = keras.layers.LSTMCell(units)
        cell = SparseoutCellWrapper(cell, 0.4, 0.3, q, **kwargs)
        return keras.layers.RNN(cell, return_sequences=True)

    print_machine()
    print(
        f"\nbatch {args.batch}, {args.steps} timesteps, {units} units, 5 steps a round"
    )
    layers = {
        "LSTM": [lstm()],
        **{f"Sparseout q={q:g} around": [locked(q), lstm(), locked(q)] for q in QS},
    }
    steps = {name: forward_and_backward(each, x) for name, each in layers.items()}
    table(fastest(measure(steps, args.rounds)), "LSTM")

    print()
    layers = {
        "LSTM(dropout, recurrent_dropout)": lstm(dropout=0.4, recurrent_dropout=0.3),
        "RNN(LSTMCell)": keras.layers.RNN(
            keras.layers.LSTMCell(units), return_sequences=True
        ),
        **{f"SparseoutCellWrapper q={q:g}": wrapped(q) for q in QS},
        "SparseoutCellWrapper q=1.5, adjustable": wrapped(1.5, adjustable=True),
    }
    steps = {name: forward_and_backward([layer], x) for name, layer in layers.items()}
    table(fastest(measure(steps, args.rounds)), "LSTM(dropout, recurrent_dropout)")


if __name__ == "__main__":
    main()
