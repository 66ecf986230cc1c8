"""The sums of several layers in one call, compiled where that pays."""

import types

import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.measure import layer_sums
from keras_sparseout.measure.layer_calls import LayerCall
from keras_sparseout.metrics import get

COMPILED = (
    "hoyer",
    "zero_fraction",
    "pq_index",
    "kurtosis",
    "firing_rate",
    "histogram",
)


def layers(seed=0):
    """Two layers' activations: vectors with zeros, and silent and infinite ones."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(6, 3, 5)).astype("float32")
    a[rng.random(a.shape) < 0.4] = 0
    a[1, 2] = 0
    b = np.abs(rng.normal(size=(6, 8))).astype("float32")
    b[2], b[3] = 0, 1e30
    return [tf.constant(a), tf.constant(b)]


def sums(activations, metrics):
    watched = types.SimpleNamespace(name="a layer")
    calls = [LayerCall(watched, x, None, x) for x in activations]
    return layer_sums.packed_sums(calls, metrics)


def in_a_graph(names, shapes=((None, 3, 5), (None, 8))):
    """The sums as a function of the activations."""
    metrics = get.check_metrics(names)
    function = tf.function(lambda *xs: sums(xs, metrics), autograph=False)
    signature = [tf.TensorSpec(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    return function.get_concrete_function(*signature)


def compiled_calls(graph):
    return sum(
        op.type in ("PartitionedCall", "StatefulPartitionedCall")
        and op.get_attr("_XlaMustCompile")
        for op in graph.get_operations()
    )


def test_all_layers_are_one_compiled_call_and_little_else():
    graph = in_a_graph(COMPILED).graph
    assert compiled_calls(graph) == 1
    # What it is there for: each operation outside costs some microseconds a step.
    assert len(graph.get_operations()) < 12


@pytest.mark.parametrize(
    "slow", ["gini", lambda x: tf.reduce_sum(x, -1)], ids=["sorts", "any function"]
)
def test_what_xla_is_slow_at_or_may_not_know_is_left_plain(slow):
    assert compiled_calls(in_a_graph(["hoyer", slow]).graph) == 0


def test_sizes_that_change_are_left_plain():
    graph = in_a_graph(["hoyer"], shapes=[(None, 8), (None, None, 5)]).graph
    assert compiled_calls(graph) == 0


@pytest.mark.onednn
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_sums_are_the_plain_ones(name):
    activations = layers()
    plain = sums(activations, get.check_metrics([name]))
    for a, b in zip(in_a_graph([name])(*activations), plain, strict=True):
        # In float32, and the kurtosis is what is left of 3.4 after 3.
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.onednn
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("name", ["hoyer", "zero_fraction", "population_sparseness"])
def test_nan_shows_in_the_compiled_sums_wherever_it_is(name, place):
    activations = layers()
    a = activations[0].numpy()
    a[4, 1] = 0
    a[4, 1, place] = np.nan
    of_a, of_b = in_a_graph([name])(tf.constant(a), activations[1])
    assert np.isnan(of_a[0])
    assert np.isfinite(of_b).all()
