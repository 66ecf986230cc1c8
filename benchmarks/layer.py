"""Sparseout against keras.layers.Dropout, forward and backward on one large tensor.

    python benchmarks/layer.py

prints CPU time of all threads and wall time, and the ratio of the CPU times to the
fastest mode of keras.layers.Dropout, which on CPU is without XLA.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from interleave import fastest, measure, print_machine

from keras_sparseout import Sparseout


def forward_and_backward(layer, x, upstream, jit_compile=False):
    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x, output_gradients=upstream)

    def run():
        y, dx = step(x, upstream)
        # Reading an element waits for the step to end.
        return float(y[0, 0]) + float(dx[0, 0])

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
    parser.add_argument("--elements", type=int, default=8 * 2**20)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()

    shape = (args.elements // 4096, 4096)
    x, upstream = tf.random.normal(shape), tf.random.normal(shape)
    layers = {
        "keras Dropout": keras.layers.Dropout(0.5, seed=1),
        **{
            f"Sparseout q={q:g}": Sparseout(0.5, q=q, seed=1)
            for q in (1, 1.5, 2, 2.5, 3)
        },
        **{f"Sparseout q={q:g}": Sparseout(0.5, q=q, seed=1) for q in (0.5, 1.3, 4, 5)},
        "Sparseout q=1.5, adjustable": Sparseout(0.5, q=1.5, seed=1, adjustable=True),
        "Sparseout q=1.5, through": Sparseout(0.5, q=1.5, seed=1, stop_gradient=False),
        **{
            f"Sparseout q={q:g}, jit_compile=False": Sparseout(
                0.5, q=q, seed=1, jit_compile=False
            )
            for q in (1.3, 1.5, 2)
        },
    }
    print_machine()
    print(f"\nforward and backward, {shape[0] * shape[1]:,} float32 elements, rate 0.5")
    steps = {n: forward_and_backward(layer, x, upstream) for n, layer in layers.items()}
    steps["multiply by a constant"] = forward_and_backward(
        lambda x, training: x * 0.5, x, upstream, jit_compile=True
    )
    table(fastest(measure(steps, args.rounds)), "keras Dropout")

    print("\nthe same inside a function with jit_compile=True")
    names = ("keras Dropout", "Sparseout q=1.5", "Sparseout q=2", "Sparseout q=1.3")
    steps = {
        n: forward_and_backward(layers[n], x, upstream, jit_compile=True) for n in names
    }
    table(fastest(measure(steps, min(args.rounds, 5))), "keras Dropout")


if __name__ == "__main__":
    main()
