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
from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper

QS = (1.5, 2, 1.3)
TIMES = 5  # One training step is too short to be timed.


def forward_and_backward(layers, x, jit_compile=False):
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(model(x, training=True)))
        return tape.gradient(loss, [x, *model.trainable_variables])

    def run():
        for _ in range(TIMES):
            dx, *_ = step(x)
        # Reading an element waits for the step to end.
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

    def plain():
        return keras.layers.RNN(keras.layers.LSTMCell(units), return_sequences=True)

    def wrapped(rate, recurrent_rate, q, **kwargs):
        cell = keras.layers.LSTMCell(units)
        cell = SparseoutCellWrapper(cell, rate, recurrent_rate, q, **kwargs)
        return keras.layers.RNN(cell, return_sequences=True)

    def compare(baseline, layers, **kwargs):
        steps = {n: forward_and_backward(each, x, **kwargs) for n, each in layers}
        table(fastest(measure(steps, args.rounds)), baseline)

    print_machine()
    print(f"\nbatch {args.batch}, {args.steps} timesteps, {units} units; {TIMES} steps")
    around = [
        (f"in locked Sparseout q={q:g}", [locked(q), lstm(), locked(q)]) for q in QS
    ]
    compare("LSTM", [("LSTM", [lstm()]), *around])

    print("\nnoise on inputs and states")
    both = "LSTM(dropout, recurrent_dropout)"
    theirs = both, [lstm(dropout=0.4, recurrent_dropout=0.3)]
    ours = [(f"SparseoutCellWrapper q={q:g}", [wrapped(0.4, 0.3, q)]) for q in QS]
    adjustable = [wrapped(0.4, 0.3, 1.5, adjustable=True)]
    compare(
        both,
        [
            theirs,
            *ours,
            ("SparseoutCellWrapper q=1.5, adjustable", adjustable),
            ("RNN(LSTMCell), no noise", [plain()]),
        ],
    )

    print("\nnoise on inputs alone")
    ours = [(f"SparseoutCellWrapper q={q:g}", [wrapped(0.4, 0.0, q)]) for q in QS]
    compare("LSTM(dropout)", [("LSTM(dropout)", [lstm(dropout=0.4)]), *ours])

    print("\nnoise on inputs and states, inside a function with jit_compile=True")
    ours = [(f"SparseoutCellWrapper q={q:g}", [wrapped(0.4, 0.3, q)]) for q in QS]
    compare(both, [theirs, *ours], jit_compile=True)


if __name__ == "__main__":
    main()
