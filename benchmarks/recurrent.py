"""Recurrent layers with Sparseout against those of Keras, a training step of each.

    python benchmarks/recurrent.py

prints the CPU time of all threads and the wall time, forward and backward, and two
ratios of CPU times: an LSTM between two locked Sparseout layers to that LSTM alone, and
SparseoutCellWrapper to the dropout and recurrent_dropout of keras.layers.LSTM.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from interleave import fastest, measure, print_machine

from keras_sparseout import Sparseout, SparseoutCellWrapper

QS = (1.5, 2, 1.3)
TIMES = 5  # One training step is too short to be timed.


def forward_and_backward(
    layers: Sequence[keras.layers.Layer], x: tf.Tensor, jit_compile: bool
) -> Callable[[], float]:
    """A function that runs training steps, without an optimizer's update."""
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


def table(results: Mapping[str, tuple[float, float]], baseline: str) -> None:
    reference = results[baseline][0]
    for name, (cpu, wall) in results.items():
        print(
            f"{name:<38} {cpu * 1e3:8.1f} ms CPU {wall * 1e3:8.1f} ms wall  "
            f"{cpu / reference:7.3f} of {baseline}"
        )


def locked(q: float) -> Sparseout:
    return Sparseout(0.4, q, noise_shape=(None, 1, None))


def wrapped(units: int, recurrent_rate: float, q: float, **kwargs) -> keras.layers.RNN:
    cell = keras.layers.LSTMCell(units)
    cell = SparseoutCellWrapper(cell, 0.4, recurrent_rate, q, **kwargs)
    return keras.layers.RNN(cell, return_sequences=True)


class Comparison(NamedTuple):
    """Candidates of a table, by name; one of them is the baseline."""

    title: str
    baseline: str
    candidates: dict[str, list[keras.layers.Layer]]
    jit_compile: bool = False


def comparisons(units: int) -> list[Comparison]:
    def lstm(**kwargs):
        return [keras.layers.LSTM(units, return_sequences=True, **kwargs)]

    def wrappers(recurrent_rate):
        return {
            f"SparseoutCellWrapper q={q:g}": [wrapped(units, recurrent_rate, q)]
            for q in QS
        }

    around = {
        f"in locked Sparseout q={q:g}": [locked(q), *lstm(), locked(q)] for q in QS
    }
    inputs, both = "LSTM(dropout)", "LSTM(dropout, recurrent_dropout)"
    keras_both = {both: lstm(dropout=0.4, recurrent_dropout=0.3)}
    adjustable = wrapped(units, 0.3, 1.5, adjustable=True)
    plain = keras.layers.RNN(keras.layers.LSTMCell(units), return_sequences=True)
    others = {
        "SparseoutCellWrapper q=1.5, adjustable": [adjustable],
        "RNN(LSTMCell), no noise": [plain],
    }
    return [
        Comparison("noise between layers", "LSTM", {"LSTM": lstm(), **around}),
        Comparison(
            "noise on inputs and states",
            both,
            {**keras_both, **wrappers(0.3), **others},
        ),
        Comparison(
            "noise on inputs alone",
            inputs,
            {inputs: lstm(dropout=0.4), **wrappers(0.0)},
        ),
        Comparison(
            "noise on inputs and states, inside a function with jit_compile=True",
            both,
            {**keras_both, **wrappers(0.3)},
            jit_compile=True,
        ),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()

    x = tf.random.normal((args.batch, args.steps, args.units))
    print_machine()
    print(
        f"\nbatch {args.batch}, {args.steps} timesteps, {args.units} units; "
        f"{TIMES} steps"
    )
    for comparison in comparisons(args.units):
        print(f"\n{comparison.title}")
        steps = {
            name: forward_and_backward(layers, x, comparison.jit_compile)
            for name, layers in comparison.candidates.items()
        }
        table(fastest(measure(steps, args.rounds)), comparison.baseline)


if __name__ == "__main__":
    main()
