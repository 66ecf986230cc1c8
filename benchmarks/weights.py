"""Layers with Bridgeout and Shakeout against the same layers without.

    python benchmarks/weights.py

prints the CPU time of all threads and the wall time of a training step, forward and
backward, and the CPU time as a multiple of what the layer by itself takes.
"""

import argparse
import os
from collections.abc import Callable, Mapping

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from interleave import fastest, measure, print_machine

from keras_sparseout import Bridgeout, Shakeout

QS = (1.5, 2, 1.3)


def forward_and_backward(
    layer: keras.layers.Layer,
    x: tf.Tensor,
    steps: int,
    to_inputs: bool = True,
    jit_compile: bool = False,
) -> Callable[[], float]:
    """A function that runs `steps` training steps, without an optimizer's update."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            if to_inputs:
                tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x, training=True)))
        sources = [v.value for v in layer.trainable_variables]
        return tape.gradient(loss, [*sources, x] if to_inputs else sources)

    layer.build(x.shape)

    def run():
        for _ in range(steps):
            gradients = step(x)
        # Reading an element waits for the step to end.
        return float(tf.reshape(gradients[0], [-1])[0])

    return run


def fit(
    layer: keras.layers.Layer, x: np.ndarray, y: np.ndarray
) -> Callable[[], object]:
    """A function that runs an epoch of `fit`."""
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.compile("adam", "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensors((x, y)).repeat(20)
    return lambda: model.fit(data, shuffle=False, verbose=0)


def table(results: Mapping[str, tuple[float, float]], steps: int) -> None:
    reference, _ = next(iter(results.values()))
    for name, (cpu, wall) in results.items():
        print(
            f"{name:<28} {cpu / steps * 1e3:8.2f} ms CPU {wall / steps * 1e3:8.2f} ms "
            f"wall  {cpu / reference:6.2f}"
        )


def noisy(layer: Callable[[], keras.layers.Layer]) -> dict[str, keras.layers.Layer]:
    """The plain layer, which `layer` makes, and layers around it with noise."""
    return {
        "plain": layer(),
        **{f"Bridgeout q={q:g}": Bridgeout(layer(), 0.5, q, seed=1) for q in QS},
        "Bridgeout q=1.5, adjustable": Bridgeout(layer(), 0.5, 1.5, adjustable=True),
        "Bridgeout q=1.5, through": Bridgeout(layer(), 0.5, 1.5, stop_gradient=False),
        "Shakeout c=0.1": Shakeout(layer(), 0.5, 0.1, seed=1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    print_machine()

    def compare(title, candidates, steps=args.steps):
        print(f"\n{title}")
        table(fastest(measure(candidates, args.rounds)), steps)

    def dense():
        return keras.layers.Dense(1024)

    def embedding():
        return keras.layers.Embedding(10000, 128)

    x = tf.random.normal((128, 1024))
    for title, settings in {
        "gradients of the weights and the inputs": {},
        "gradients of the weights alone": {"to_inputs": False},
        "the first, inside a function with jit_compile=True": {"jit_compile": True},
    }.items():
        steps = {
            name: forward_and_backward(layer, x, args.steps, **settings)
            for name, layer in noisy(dense).items()
        }
        compare(f"Dense, 1024 to 1024, batch 128, {title}", steps)

    y = np.zeros((128, 1024), "float32")
    steps = {name: fit(layer, x.numpy(), y) for name, layer in noisy(dense).items()}
    compare("the same in fit, with Adam", steps, 20)

    words = tf.random.uniform((20, 70), 0, 10000, tf.int32)
    steps = {
        name: forward_and_backward(layer, words, args.steps, to_inputs=False)
        for name, layer in noisy(embedding).items()
    }
    compare("Embedding, 10000 by 128, batch of 20 windows of 70", steps)


if __name__ == "__main__":
    main()
