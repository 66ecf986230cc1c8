"""Sparseout against keras.layers.Dropout, forward and backward on one large tensor.

    python benchmarks/layer.py
    python benchmarks/layer.py --against FOLDER

prints the CPU time of all threads and the wall time, and the CPU time as a multiple of
two others. One is keras.layers.Dropout in its fastest mode, which on CPU means without
XLA. The other is a copy: the same step on `x * 0.5`, compiled with XLA as a whole, so
it reads x and the upstream gradient once and writes y and dx once. With --against the
layers of another checkout of this repository take turns with these.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from interleave import fastest, measure, print_machine

import keras_sparseout

DROPOUT, COPY = "keras Dropout", "copy"


def forward_and_backward(
    layer: Callable, x: tf.Tensor, upstream: tf.Tensor, jit_compile: bool = False
) -> Callable[[], float]:
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


def table(results: Mapping[str, tuple[float, float]]) -> None:
    for name, (cpu, wall) in results.items():
        to_dropout, to_copy = (cpu / results[base][0] for base in (DROPOUT, COPY))
        print(
            f"{name:<38} {cpu * 1e3:8.1f} ms CPU {wall * 1e3:8.1f} ms wall "
            f"{to_dropout:7.3f} of {DROPOUT} {to_copy:7.2f} copies"
        )


def another_version(folder: str) -> ModuleType:
    """Imports the package of another checkout, beside this one."""
    own = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "keras_sparseout"}
    for name in own:
        del sys.modules[name]
    sys.path.insert(0, folder)
    package = importlib.import_module("keras_sparseout")
    sys.path.remove(folder)
    sys.modules.update(own)
    return package


def layers_of(package: ModuleType) -> dict[str, keras.layers.Layer]:
    def layer(q, **options):
        return package.Sparseout(0.5, q=q, seed=1, **options)

    return {
        **{f"Sparseout q={q:g}": layer(q) for q in (1, 1.5, 2, 2.5, 3)},
        **{f"Sparseout q={q:g}": layer(q) for q in (0.5, 1.3, 4, 5)},
        "Sparseout q=1.5, adjustable": layer(1.5, adjustable=True),
        "Sparseout q=1.5, through": layer(1.5, stop_gradient=False),
        **{
            f"Sparseout q={q:g}, jit_compile=False": layer(q, jit_compile=False)
            for q in (1.3, 1.5, 2)
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--elements", type=int, default=8 * 2**20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", help="folder of another checkout")
    args = parser.parse_args()

    shape = (args.elements // 4096, 4096)
    x, upstream = tf.random.normal(shape), tf.random.normal(shape)
    layers = {DROPOUT: keras.layers.Dropout(0.5, seed=1)}
    others = {}
    if args.against:
        others = layers_of(another_version(args.against))
    for name, layer in layers_of(keras_sparseout).items():
        if others:
            layers[f"{name}, other"] = others[name]
        layers[name] = layer
    print_machine()
    print(f"\nforward and backward, {shape[0] * shape[1]:,} float32 elements, rate 0.5")
    copy = forward_and_backward(
        lambda x, training: x * 0.5, x, upstream, jit_compile=True
    )
    steps = {n: forward_and_backward(layer, x, upstream) for n, layer in layers.items()}
    table(fastest(measure({COPY: copy, **steps}, args.rounds)))

    print("\nthe same inside a function with jit_compile=True")
    inside = ("Sparseout q=1.5", "Sparseout q=2", "Sparseout q=1.3")
    steps = {
        n: forward_and_backward(layer, x, upstream, jit_compile=True)
        for n, layer in layers.items()
        if n == DROPOUT or n.removesuffix(", other") in inside
    }
    table(fastest(measure({COPY: copy, **steps}, min(args.rounds, 5))))


if __name__ == "__main__":
    main()
