"""Measuring watched layers: on probe data, and inside the model's own steps.

Both ways add up, for each layer, the sums of its streaming metrics.
"""

import contextlib

import keras
import tensorflow as tf

from keras_sparseout.backend import compiling, numerics
from keras_sparseout.measure import hooks

# Functions that were compiled, by what they are for.
_COMPILED = {}
_MOST_COMPILED = 32


def layer_sums(watched, metrics, x, mask):
    """Returns the sums of all `metrics` of one layer's activations, in order."""
    if hooks.rank_of(x) < 2:
        raise ValueError(
            "`layers` must be layers whose activations have a batch and a feature "
            f"dimension. Received: {watched.name} with shape {getattr(x, 'shape', ())}."
            " Leave it out."
        )
    try:
        return [part for m in metrics.values() for part in m.sums(x, mask=mask)]
    except ValueError as error:
        raise ValueError(f"{error} `x` are the activations of {watched.name}.") from (
            error
        )


@numerics.unchecked()
def packed_sums(seen, metrics):
    """Returns the sums of all `metrics` of several layers, a vector for each.

    Args:
        seen: List of (watched, x, mask), one for each call of a layer.
        metrics: Dict of streaming metrics by name.
    """
    activations = [(x, mask) for _, x, mask in seen]
    # By themselves they are some 20 operations a metric and layer, that take longer to
    # start than to run. Not in eager mode, where it would be compiled at each call.
    if (
        not tf.executing_eagerly()
        and all(metric.compiles for metric in metrics.values())
        and all(hooks.rank_of(x) and compiling.pays(x.shape) for x, _ in activations)
    ):
        with contextlib.suppress(ValueError):  # What follows tells of which layer.
            return _compiled(metrics, activations)(activations)
    return [_pack(layer_sums(w, metrics, x, mask)) for w, x, mask in seen]


def _compiled(metrics, activations):
    """Returns a compiled function of `activations`, one for all that are alike.

    What XLA compiled stays in memory, so that new callbacks share it with old ones.
    """
    key = [(type(m), repr(m.get_config())) for m in metrics.values()]
    for tensor in keras.tree.flatten(activations):
        key.append(None if tensor is None else (tensor.dtype, repr(tensor.shape)))
    key = tuple(key)
    if key not in _COMPILED:

        @tf.function(jit_compile=True, autograph=False)
        def call(activations):
            return [
                _pack(part for m in metrics.values() for part in m.sums(x, mask=mask))
                for x, mask in activations
            ]

        _COMPILED[key] = call
        if len(_COMPILED) > _MOST_COMPILED:
            del _COMPILED[next(iter(_COMPILED))]
    return _COMPILED[key]


def _pack(sums):
    return tf.concat([tf.reshape(s, [-1]) for s in sums], axis=0)


def shapes(metrics, units):
    """Returns the shapes of the sums of all `metrics`, in order."""
    return [shape for metric in metrics.values() for shape in metric.shapes(units)]


def check_same_units(watched, shapes, others):
    """Raises unless the sums of a call have the shapes of those before."""
    for a, b in zip(shapes, others, strict=True):
        if None not in (*a, *b) and tuple(a) != tuple(b):
            raise ValueError(
                "`metrics` with a figure for each unit need layers with one number of "
                f"units. Received: {watched.name}, which is called with {a[0]} and "
                f"{b[0]} units. Leave it out of `layers`."
            )


def add(totals, name, sums):
    """Adds one layer's `sums` to its entry in `totals`."""
    old = totals.get(name)
    totals[name] = (
        sums if old is None else [a + b for a, b in zip(old, sums, strict=True)]
    )


def split(sums, metrics):
    """Yields (name, metric, its own sums), from all sums of a layer."""
    start = 0
    for name, metric in metrics.items():
        stop = start + len(metric.shapes(None))
        yield name, metric, sums[start:stop]
        start = stop
