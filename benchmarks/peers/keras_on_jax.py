"""Keras Dropout on JAX, in one jitted program for forward and backward."""

from collections.abc import Callable, Sequence

import jax
import keras


def candidates(shape: Sequence[int], dtype: str) -> dict[str, Callable[[], float]]:
    layer = keras.layers.Dropout(0.5, seed=1, dtype=dtype)
    layer.build(shape)
    x, upstream = (
        jax.random.normal(jax.random.key(seed), shape, dtype) for seed in (0, 1)
    )
    state = [variable.value for variable in layer.non_trainable_variables]

    @jax.jit
    def step(state, x, upstream):
        def forward(x):
            return layer.stateless_call([], state, x, training=True)

        y, pull_back, state = jax.vjp(forward, x, has_aux=True)
        return y, pull_back(upstream)[0], state

    def run():
        nonlocal state
        y, dx, state = step(state, x, upstream)
        return float(y[0, 0]) + float(dx[0, 0])

    return {"Keras Dropout on JAX": run}
