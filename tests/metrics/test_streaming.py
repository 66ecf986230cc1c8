"""Streaming metrics add up over batches, in graphs, over replicas and metrics."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from streamed import (
    CLASSES,
    METRICS,
    PER_UNIT,
    UNITS,
    activations,
    assert_figure,
    every_class,
    every_metric,
    one_shot,
)

from keras_sparseout import metrics


def totals(sums, x, size):
    batches = [x[i : i + size] for i in range(0, len(x), size)]
    return [np.sum(parts, axis=0) for parts in zip(*map(sums, batches), strict=True)]


@every_metric
def test_any_split_into_batches_gives_the_figure_in_one_go(name):
    metric, x = METRICS[name][0](), activations(12)
    # The silent sample is one of two batches of one.
    for batch in np.split(x, [1, 2, 7]):
        metric.update_state(batch)
    assert_figure(name, metric.result(), x)
    whole = metric.figure(*metric.sums(x))
    np.testing.assert_allclose(metric.result(), whole, rtol=1e-5)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        *((name, True) for name in (*CLASSES, "whole map", "over time")),
        *((name, False) for name in ("Hoyer", "FiringRate", "whole map")),
    ],
)
def test_sums_in_a_graph_of_unknown_batch_size(name, jit_compile):
    metric, x = METRICS[name][0](), activations()
    traced = tf.function(
        metric.sums,
        input_signature=[tf.TensorSpec((None, 4, UNITS))],
        jit_compile=jit_compile,
        autograph=False,
    )
    # XLA compiles a program for each size.
    for size in (15,) if jit_compile else (7, 30):
        assert_figure(name, metric.figure(*totals(traced, x, size)), x)
    for part in traced(x[:0]):
        np.testing.assert_array_equal(part, tf.zeros_like(part))


@every_metric
def test_sums_have_the_shapes_that_are_told_and_touch_no_state(name):
    metric, x = METRICS[name][0](), activations()
    for batch in (x, x[:0]):
        sums = metric.sums(batch)
        assert isinstance(sums, tuple)
        assert all(tf.is_tensor(part) and part.dtype == "float64" for part in sums)
        assert tuple(tuple(part.shape) for part in sums) == metric.shapes(UNITS)
    assert not any(np.any(v) for v in metric.variables)
    assert len(metric.shapes(None)) == len(metric.shapes(UNITS))
    assert {metric.dtype, *(v.dtype for v in metric.variables)} == {"float64"}


@every_metric
def test_figures_of_arrays_are_arrays_and_of_tensors_tensors(name):
    metric, x = METRICS[name][0](), activations()
    sums = metric.sums(x)
    from_tensors = metric.figure(*sums)
    from_arrays = metric.figure(*[part.numpy() for part in sums])
    assert tf.is_tensor(from_tensors)
    assert isinstance(from_arrays, np.ndarray)
    np.testing.assert_array_equal(from_tensors, from_arrays)
    assert from_arrays.shape == one_shot(name, x).shape


@every_metric
def test_nothing_counted_is_nan_and_reset_forgets(name):
    metric, x = METRICS[name][0](), activations()
    assert np.isnan(metric.result())
    metric.update_state(x[:0])
    assert np.isnan(metric.result()).all()
    metric.update_state(x + 1)
    metric.reset_state()
    assert np.isnan(metric.result()).all()
    metric.update_state(x)
    assert_figure(name, metric.result(), x)


@every_metric
def test_update_and_result_in_a_graph(name):
    metric, x = METRICS[name][0](), activations()
    update = tf.function(metric.update_state)
    for start in range(0, len(x), 10):
        update(tf.constant(x[start : start + 10]))
    assert_figure(name, tf.function(metric.result)(), x)


@pytest.mark.parametrize(
    ("name", "replicas", "lazily"),
    [
        *((name, 2, True) for name in CLASSES),
        # With a state from the beginning.
        ("FiringRate", 4, False),
    ],
)
def test_replicas_add_up(name, replicas, lazily):
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    x = activations(24)
    options = {"units": UNITS} if name in PER_UNIT and not lazily else {}
    with strategy.scope():
        metric = METRICS[name][0](**options)

    @tf.function(autograph=False)
    def step(batch):
        strategy.run(metric.update_state, (batch,))
        sums = strategy.run(metric.sums, (batch,))
        return [strategy.reduce("SUM", part, axis=None) for part in sums]

    size = 12 // replicas
    parts = []
    for half in (x[:12], x[12:]):
        batch = strategy.experimental_distribute_values_from_function(
            lambda context, half=half: tf.constant(
                half[size * context.replica_id_in_sync_group :][:size]
            )
        )
        parts.append(step(batch))
    assert_figure(name, metric.result(), x)
    summed = [a.numpy() + b.numpy() for a, b in zip(*parts, strict=True)]
    assert_figure(name, metric.figure(*summed), x)


def first(x):
    return x[..., 0]


def test_counts_do_not_stick_at_2_to_24():
    x = np.array([[1.0, 0.0]])
    for metric in (metrics.SampleMean(first), metrics.FiringRate(units=2)):
        for variable in metric.variables:
            variable.assign(tf.fill(variable.shape, tf.constant(2.0**24, "float64")))
        metric.update_state(x)
        assert np.max(metric.variables[0]) == 2**24 + 1
        assert metric.variables[-1].numpy() == 2**24 + 1
    histogram = metrics.ActivationHistogram()
    counts = histogram.variables[0]
    counts.assign(tf.fill(counts.shape, tf.constant(2.0**24, "float64")))
    histogram.update_state(x)
    assert np.sum(counts == 2**24 + 1) == 2


def test_samples_are_added_up_in_float64():
    # In float32 the first would swallow all others.
    x = np.full((1000, 2), 0.25, "float32")
    x[0] = 2**24
    metric = metrics.SampleMean(first)
    metric.update_state(x)
    assert float(metric.result()) == (2**24 + 999 / 4) / 1000
    lifetime = metrics.LifetimeSparseness(units=2)
    assert lifetime.sums(x)[1][0] == 2**48 + 999 / 16
    assert metrics.RMS().sums(x)[0] == 2**49 + 999 / 8


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_overflow_nor_vanish(scale):
    x = activations() * np.float32(scale)
    for name in ("RMS", "LifetimeSparseness"):
        metric = METRICS[name][0]()
        metric.update_state(x)
        np.testing.assert_allclose(metric.result(), one_shot(name, x), rtol=1e-5)


@every_class
@pytest.mark.parametrize("begun", [False, True])
def test_merged_states_are_those_of_all_data(name, begun):
    build, x = METRICS[name][0], activations()
    metric, parts = build(), [build(), build(), build()]
    if begun:
        metric.update_state(x[:6])
    for part, data in zip(parts, (x[:6], x[6:]), strict=False):
        part.update_state(data)
    metric.merge_state(parts[begun:])
    assert_figure(name, metric.result(), x)


def test_metrics_of_functions_that_can_not_be_saved_merge():
    nearly = functools.partial(metrics.zero_fraction, threshold=0.1)
    for function in (nearly, lambda x: x[..., 0]):
        metric, other = (metrics.SampleMean(function) for _ in range(2))
        other.update_state(np.ones((2, 3)))
        metric.merge_state([other])
        assert metric.variables[1] == 2


@pytest.mark.parametrize(
    ("metric", "other"),
    [
        (metrics.Hoyer(), metrics.Gini()),
        (metrics.Hoyer(), metrics.Hoyer(axis=None)),
        (metrics.Hoyer(), keras.metrics.Mean()),
        (metrics.FiringRate(), metrics.FiringRate(threshold=0.1)),
        (metrics.PQIndex(), metrics.PQIndex(p=0.5)),
        (metrics.SampleMean(first), metrics.SampleMean(abs)),
    ],
)
def test_merging_what_does_not_match_says_what_to_do(metric, other):
    with pytest.raises(ValueError, match=r"`metrics` .* Leave it out") as error:
        metric.merge_state([metric, other])
    assert f"Received: {other!r}" in str(error.value)


def test_merging_metrics_of_other_layers_says_what_to_do():
    metric, other = metrics.FiringRate(units=2), metrics.FiringRate(units=3)
    with pytest.raises(ValueError, match=r"2 units.* Received: 3 units\. Give each"):
        metric.merge_state([other])


def test_every_streaming_metric_is_in_the_battery():
    public = (getattr(metrics, name) for name in metrics.__all__)
    streaming = {
        member
        for member in public
        if isinstance(member, type) and member is not metrics.StreamingMetric
    }
    assert streaming == {type(build()) for build, _ in METRICS.values()}
