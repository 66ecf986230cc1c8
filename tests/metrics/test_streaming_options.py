"""Streaming metrics: what counts, their options and configs, and bad arguments."""

import inspect
import math
from itertools import product

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
    every_metric_of_positions,
)

from keras_sparseout import metrics


@pytest.mark.onednn
@every_metric
def test_nan_activations_show(name):
    metric, x = METRICS[name][0](), activations()
    x[5, 2, 4] = np.nan
    metric.update_state(x)
    result = np.asarray(metric.result())
    if result.ndim:
        # Unit 3 is dead, so LifetimeSparseness has no figure for it.
        expected = [
            i == 4 or (name == "LifetimeSparseness" and i == 3) for i in range(9)
        ]
        np.testing.assert_array_equal(np.isnan(result), expected)
    else:
        assert np.isnan(result)


@pytest.mark.onednn
def test_infinite_activations_show():
    for value in (math.inf, -math.inf):
        metric = metrics.Hoyer()
        metric.update_state(np.array([[value] * 3, [1, 0, 0]]))
        assert np.isnan(metric.result())


@pytest.mark.onednn
@every_metric
def test_whole_weights_are_repeated_samples(name):
    metric, x = METRICS[name][0](), activations()
    weights = np.arange(len(x)) % 3
    x[0] = np.nan
    metric.update_state(x, sample_weight=weights)
    assert_figure(name, metric.result(), np.repeat(x, weights, axis=0))


@pytest.mark.onednn
@every_metric
def test_masked_samples_do_not_count(name):
    metric, x = METRICS[name][0](), activations()
    mask = np.arange(len(x)) % 3 > 0
    x[0] = np.nan
    metric.update_state(x, mask=mask)
    assert_figure(name, metric.result(), x[mask])


@pytest.mark.onednn
@every_metric_of_positions
@pytest.mark.parametrize("where", ["argument", "tensor"])
def test_masked_positions_do_not_count(name, where):
    metric, x = METRICS[name][0](), activations()
    # The first position of each sample, and no other; the rest of it is not zeros.
    x[:, 1:] += 1
    x[3, 2] = np.nan
    mask = np.zeros(x.shape[:2], bool)
    mask[:, 0] = True
    mask[4] = False
    if where == "argument":
        metric.update_state(x, mask=mask)
    else:
        x = tf.constant(x)
        x._keras_mask = tf.constant(mask)
        metric.update_state(x)
    kept = np.delete(np.asarray(x)[:, :1], 4, axis=0)
    assert_figure(name, metric.result(), kept)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        # Without weights XLA compiles the other metrics for `SparsityTracker`.
        *product((*CLASSES, "Gini"), (True, False)),
    ],
)
def test_weights_and_masks_in_a_graph_of_unknown_sizes(name, jit_compile):
    metric, x = METRICS[name][0](), activations()
    weights = np.arange(len(x), dtype="float32") % 3
    mask = np.random.default_rng(1).random(x.shape[:2]) < 0.5
    specs = [
        tf.TensorSpec((None, None, UNITS)),
        tf.TensorSpec((None,)),
        tf.TensorSpec((None, None), tf.bool),
    ]
    traced = tf.function(
        metric.sums, input_signature=specs, jit_compile=jit_compile, autograph=False
    )
    np.testing.assert_allclose(
        metric.figure(*traced(x, weights, mask)),
        metric.figure(*metric.sums(x, weights, mask)),
        rtol=1e-5,
    )


def test_weights_of_at_most_one_sample_have_no_lifetime_sparseness():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    for weight in (0.25, 0.5):
        metric = metrics.LifetimeSparseness()
        metric.update_state(x, sample_weight=[weight, weight])
        np.testing.assert_array_equal(metric.result(), [math.nan] * 2)


def test_a_mask_of_timesteps_leaves_out_maps():
    x = np.random.default_rng(0).normal(size=(3, 4, 5, UNITS))
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    weight = np.array([2.0, 1.0, 1.0])
    figures = metrics.hoyer(x).mean(-1)
    expected = (2 * figures[0, :2].mean() + figures[2].mean()) / 3
    metric = metrics.Hoyer()
    metric.update_state(x, weight, mask)
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-6)
    rate = metrics.FiringRate(threshold=1)
    rate.update_state(x, weight, mask)
    fires = (np.abs(x) > 1).mean(2)
    expected = (2 * fires[0, :2].sum(0) + fires[2].sum(0)) / 8
    np.testing.assert_allclose(rate.result(), expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [None, 1, -2])
def test_a_mask_can_not_leave_out_a_part_of_a_vector(axis):
    with pytest.raises(ValueError, match="`mask` must not leave out") as error:
        metrics.Hoyer(axis=axis).update_state(
            activations(), mask=np.ones((30, 4), bool)
        )
    message = f"Received: mask.shape=(30, 4) with axis={axis}. Give axis=-1, or no mask"
    assert message in str(error.value)


@pytest.mark.parametrize("axis", [None, 1, -2])
def test_a_mask_that_keras_keeps_can_be_left_behind(axis):
    words = np.array([[1, 2, 0], [3, 0, 0]])
    x = keras.layers.Embedding(9, 4, mask_zero=True)(words)
    metric = metrics.Hoyer(axis=axis)
    with pytest.raises(ValueError, match="which Keras keeps with `x`") as error:
        metric.update_state(x)
    assert (
        f"Received: mask.shape=(2, 3), which Keras keeps with `x`, with axis={axis}"
        in (str(error.value))
    )
    # What the message says to do.
    assert "keras.ops.stop_gradient(x)" in str(error.value)
    metric.update_state(keras.ops.stop_gradient(x))
    expected = metrics.hoyer(x.numpy(), axis).mean()
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-6)


def test_silent_and_single_positions_do_not_count():
    metric = metrics.Hoyer()
    x = np.zeros((3, 2, 4))
    x[0, 0, 0] = 5
    x[1] = 1
    metric.update_state(x)
    # The first sample has one position, with 1; the second two, with 0; the third none.
    np.testing.assert_allclose(metric.result(), 0.5, atol=1e-7)
    metric.update_state(np.ones((8, 2, 1)))
    np.testing.assert_allclose(metric.result(), 0.5, atol=1e-7)
    # Of these vectors Hoyer's sparsity is 0, but kurtosis undefined.
    kurtosis = metrics.Kurtosis()
    kurtosis.update_state(np.array([[0.1] * 49, [1, 2] * 24 + [1]], "float32"))
    assert np.isfinite(kurtosis.result())


@pytest.mark.parametrize(
    ("kind", "axis", "jit_compile"),
    [
        (metrics.Hoyer, -1, True),
        (metrics.Hoyer, None, True),
        (metrics.Hoyer, 1, False),
        (metrics.PopulationSparseness, -1, False),
        (metrics.PopulationSparseness, None, False),
    ],
)
def test_single_elements_do_not_count_where_sizes_are_unknown(kind, axis, jit_compile):
    metric = kind(axis=axis)
    signature = [tf.TensorSpec((None, None, None))]
    traced = tf.function(
        metric.sums, signature, jit_compile=jit_compile, autograph=False
    )
    np.testing.assert_array_equal(traced(tf.fill((3, 1, 1), 0.1)), [0, 0])
    np.testing.assert_allclose(traced(activations()), metric.sums(activations()))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: keras.ops.max(x, axis=-1),
        lambda x, axis: keras.ops.max(x, axis),
        keras.ops.max,
    ],
)
@pytest.mark.parametrize("axis", [-1, 1, None])
def test_functions_with_and_without_an_axis(function, axis):
    x = activations()
    metric = metrics.SampleMean(function, axis=axis)
    metric.update_state(x)
    axes = (1, 2) if axis is None else axis
    np.testing.assert_allclose(metric.result(), x.max(axes).mean(), rtol=1e-6)


@every_metric
def test_config_round_trip(name):
    build = METRICS[name][0]
    options = {"units": UNITS} if name in PER_UNIT else {}
    # A registered function has this name too.
    metric = build(name="hoyer", **options)
    arguments = set(inspect.signature(type(metric)).parameters)
    assert set(metric.get_config()) == arguments
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert type(copy) is type(metric)
    assert copy.get_config() == metric.get_config()
    x = activations()
    metric.update_state(x)
    copy.update_state(x)
    np.testing.assert_array_equal(copy.result(), metric.result())


def test_a_lambda_is_not_loaded_unasked():
    metric = metrics.SampleMean(lambda x: keras.ops.max(x, axis=-1))
    with pytest.warns(UserWarning, match="lambda"):
        config = metric.get_config()
    with pytest.raises(ValueError, match="lambda"):
        metrics.SampleMean.from_config(config)


X = np.ones((4, 3, 2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.Hoyer(axis=0), ["`axis`", "Received: axis=0", "Give -1"]),
        (lambda: metrics.Hoyer(axis=True), ["`axis`", "Received: axis=True"]),
        (lambda: metrics.Hoyer(axis=-3).sums(X), ["`axis`", "Received: axis=-3"]),
        (lambda: metrics.Hoyer(axis=3).sums(X), ["`axis`", "Received: axis=3"]),
        (lambda: metrics.SampleMean("hoyer"), ["`function`", "function='hoyer'"]),
        (
            lambda: metrics.SampleMean(keras.ops.abs).sums(X),
            ["`function`", "returned shape (4, 3, 2)", "Reduce"],
        ),
        (lambda: metrics.FiringRate(units=0), ["`units`", "Received: units=0"]),
        (lambda: metrics.FiringRate(units=2.0), ["`units`", "Received: units=2.0"]),
        (
            lambda: metrics.FiringRate(units=3).update_state(X),
            ["`x` must have 3 units", "Received: 2 units"],
        ),
        (
            lambda: tf.function(
                metrics.FiringRate().update_state,
                input_signature=[tf.TensorSpec((None, None))],
            ).get_concrete_function(),
            ["`x` must have a known number of units", "units=... to FiringRate"],
        ),
    ],
)
def test_bad_arguments_say_what_to_do(call, says):
    with pytest.raises(ValueError, match=r"Give|Reduce|Leave|make") as error:
        call()
    for words in says:
        assert words in str(error.value)


@every_class
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.ones(3),), ["`x`", "Received: x.shape=(3,)", "x[None]"]),
        ((np.ones((3, 0)),), ["`x`", "Received: x.shape=(3, 0)"]),
        ((X > 0,), ["`x`", "Received: x.dtype=bool", "Convert"]),
        (
            (X, np.ones((4, 3))),
            ["`sample_weight`", "shape=(4, 3) for x.shape=(4, 3, 2)"],
        ),
        ((X, np.ones(3)), ["`sample_weight`", "shape=(3,) for", "shape (samples,)"]),
        ((X, None, X > 0), ["`mask`", "mask.shape=(4, 3, 2) for x.shape=(4, 3, 2)"]),
        ((X, None, np.ones(3)), ["`mask`", "Received: mask.shape=(3,)", "timestep"]),
        ((X, None, np.array(True)), ["`mask`", "Received: mask.shape=()"]),
    ],
)
def test_bad_activations_say_what_to_do(name, arguments, says):
    with pytest.raises(ValueError, match="Received") as error:
        METRICS[name][0]().update_state(*arguments)
    for words in says:
        assert words in str(error.value)
