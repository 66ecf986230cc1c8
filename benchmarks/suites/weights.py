"""Layers with Bridgeout and Shakeout beside the same layers without.

The CPU time of a training step, forward and backward, as a multiple of what the layer
by itself takes; then the same in `fit`.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from benchmarks.processes import Turns
from benchmarks.ratios import table_of_times
from benchmarks.report import Table
from benchmarks.settings import Settings
from keras_sparseout import Bridgeout, Shakeout

QS = (1.5, 2, 1.3)
STEPS = 20
PLAIN = "plain"
DENSE = "Dense, 1024 to 1024, batch 128"
EMBEDDING = "Embedding, 10000 by 128, batch of 20 windows of 70"

Step = Callable[[], object]
# Makes the plain layer.
MakeLayer = Callable[[], keras.layers.Layer]


def noisy(layer: MakeLayer) -> dict[str, keras.layers.Layer]:
    """The plain layer, and layers around it with noise."""
    return {
        PLAIN: layer(),
        **{f"Bridgeout q={q:g}": Bridgeout(layer(), 0.5, q, seed=1) for q in QS},
        "Bridgeout q=1.5, adjustable": Bridgeout(layer(), 0.5, 1.5, adjustable=True),
        "Bridgeout q=1.5, through": Bridgeout(layer(), 0.5, 1.5, stop_gradient=False),
        "Shakeout c=0.1": Shakeout(layer(), 0.5, 0.1, seed=1),
    }


def dense() -> keras.layers.Layer:
    return keras.layers.Dense(1024)


def embedding() -> keras.layers.Layer:
    return keras.layers.Embedding(10000, 128)


def forward_and_backward(
    layer: keras.layers.Layer,
    x: tf.Tensor,
    steps: int,
    to_inputs: bool = True,
    jit_compile: bool = False,
) -> Step:
    """A function that runs training steps, without an optimizer's update."""

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


def dense_steps(
    steps: int, to_inputs: bool = True, jit_compile: bool = False
) -> dict[str, Step]:
    x = tf.random.normal((128, 1024))
    return {
        name: forward_and_backward(layer, x, steps, to_inputs, jit_compile)
        for name, layer in noisy(dense).items()
    }


def embedding_steps(steps: int) -> dict[str, Step]:
    words = tf.random.uniform((20, 70), 0, 10000, tf.int32)
    return {
        name: forward_and_backward(layer, words, steps, to_inputs=False)
        for name, layer in noisy(embedding).items()
    }


def dense_fits(steps: int) -> dict[str, Step]:
    x = np.random.default_rng(0).normal(size=(128, 1024)).astype("float32")
    y = np.zeros((128, 1024), "float32")

    def fit(layer):
        model = keras.Sequential([keras.Input(x.shape[1:]), layer])
        model.compile("adam", "mse", jit_compile=False)
        data = tf.data.Dataset.from_tensors((x, y)).repeat(steps)
        return lambda: model.fit(data, shuffle=False, verbose=0)

    return {name: fit(layer) for name, layer in noisy(dense).items()}


# By title: what makes the candidates, its arguments, and the target if there is one.
COMPARISONS = {
    f"{DENSE}, gradients of the weights and the inputs": (
        "dense_steps",
        {},
        "Bridgeout(Dense)",
    ),
    f"{DENSE}, gradients of the weights alone": (
        "dense_steps",
        {"to_inputs": False},
        None,
    ),
    f"{DENSE}, the first, inside a function with jit_compile=True": (
        "dense_steps",
        {"jit_compile": True},
        None,
    ),
    f"{DENSE}, in fit with Adam": ("dense_fits", {}, None),
    EMBEDDING: ("embedding_steps", {}, "Bridgeout(Embedding)"),
}


def run(settings: Settings) -> Iterable[Table]:
    """Yields the tables of this suite."""
    steps = 3 if settings.quick else STEPS
    with Turns(settings) as turns:
        for title, (function, arguments, target) in COMPARISONS.items():
            rounds_of = turns.measure(
                f"{__name__}:{function}",
                settings.rounds_or(15),
                title=title,
                steps=steps,
                **arguments,
            )
            rows = [f"Bridgeout q={q:g}" for q in QS] if target else []
            targets = dict.fromkeys(rows, (target, PLAIN))
            yield table_of_times(title, rounds_of, (PLAIN,), targets=targets, per=steps)
