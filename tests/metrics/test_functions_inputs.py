"""What measures make of infinities and NaN, and kinds of input that they refuse."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from measures import each_function

from keras_sparseout import metrics

INF, NAN = math.inf, math.nan
# Two samples of two units: with an infinity, with both signs, with NaN, with both.
INFINITE = [[INF, 1], [0, 2]]
OPPOSED = [[INF, 1], [-INF, 2]]
UNKNOWN = [[NAN, 1], [0, 2]]
MIXED = [[INF, 1], [NAN, 2]]
# Of each measure: its streaming twin, and both figures of the four.
RULES = {
    "gini": ("Gini", [[NAN, 0.5], [NAN, NAN], [NAN, 0.5], [NAN, NAN]]),
    "hoyer": ("Hoyer", [[NAN, 1], [NAN, NAN], [NAN, 1], [NAN, NAN]]),
    "population_sparseness": (
        "PopulationSparseness",
        [[NAN, 1], [NAN, NAN], [NAN, 1], [NAN, NAN]],
    ),
    "pq_index": (
        "PQIndex",
        [[NAN, 1 - 0.5**0.5], [NAN, NAN], [NAN, 1 - 0.5**0.5], [NAN, NAN]],
    ),
    "kurtosis": ("Kurtosis", [[NAN, -2], [NAN, NAN], [NAN, -2], [NAN, NAN]]),
    "zero_fraction": ("ZeroFraction", [[0, 0.5], [0, 0], [NAN, 0.5], [0, NAN]]),
    "firing_rate": ("FiringRate", [[0.5, 1], [1, 1], [NAN, 1], [NAN, 1]]),
    "dead_units": ("DeadUnits", [0, 0, NAN, NAN]),
    "lifetime_sparseness": (
        "LifetimeSparseness",
        [[NAN, 0.2], [NAN, 0.2], [NAN, 0.2], [NAN, 0.2]],
    ),
    "rms": ("RMS", [INF, INF, NAN, NAN]),
}


@pytest.mark.onednn
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_infinities_and_nan_alike_in_function_and_stream(name, dtype):
    twin, figures = RULES[name]
    for x, expected in zip((INFINITE, OPPOSED, UNKNOWN, MIXED), figures, strict=True):
        x = np.array(x, dtype)
        figure = getattr(metrics, name)(x)
        np.testing.assert_allclose(figure, expected, rtol=1e-6)
        metric = getattr(metrics, twin)()
        for sample in x:
            metric.update_state(sample[None])
        # A measure of vectors has their mean there: NaN if one that counts is.
        vectors = name in ("gini", "hoyer", "kurtosis", "pq_index", "zero_fraction")
        mean = vectors or name == "population_sparseness"
        expected = np.mean(expected) if mean else expected
        np.testing.assert_allclose(metric.result(), expected, rtol=1e-6)


@pytest.mark.onednn
@pytest.mark.parametrize("x", [INFINITE, OPPOSED, UNKNOWN, MIXED], ids=str)
def test_the_histogram_has_no_gini_index_of_them(x):
    metric = metrics.ActivationHistogram()
    metric.update_state(np.array(x))
    assert math.isnan(metric.result())
    assert math.isnan(metrics.gini(np.ravel(x)))


@pytest.mark.onednn
@pytest.mark.parametrize("x", [[[INF, 1]], [[-INF, 0, INF]], [[[3e38, 1], [INF, 0]]]])
@pytest.mark.parametrize("traced", [False, True])
def test_rms_of_an_infinity_is_infinite(x, traced):
    rms = tf.function(metrics.rms, autograph=False) if traced else metrics.rms
    assert rms(np.array(x, "float32")) == INF
    assert np.isnan(rms(np.array([[*np.ravel(x), NAN]], "float32")))


def test_what_is_masked_or_weighs_nothing_may_be_infinite():
    metric = metrics.RMS()
    metric.update_state(np.array([[3.0, 4], [INF, NAN]]), sample_weight=[1, 0])
    assert float(metric.result()) == pytest.approx(12.5**0.5)


REFUSED = {
    "ragged": (
        tf.ragged.constant([[1.0, 2], [3]]),
        "x of type RaggedTensor",
        "x.to_tensor()",
    ),
    "sparse": (
        tf.sparse.from_dense([[1.0, 0], [0, 0]]),
        "x of type SparseTensor",
        "with tf.sparse.to_dense",
    ),
    "slices": (
        tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), tf.constant([3, 2])),
        "x of type IndexedSlices",
        "Give tf.convert_to_tensor(x)",
    ),
    "masked": (
        np.ma.masked_array([[1.0, 2]], [[False, True]]),
        "x of type MaskedArray",
        "Give x.filled(value)",
    ),
    "symbolic": (
        keras.KerasTensor((2, 3)),
        "x of type KerasTensor",
        "Give the activations themselves",
    ),
    "lists": ([[1.0], [1.0, 2.0]], "a list of parts of different", "Pad them"),
    "None": (None, "x of type NoneType", "Give an array"),
    "dict": ({"a": [1.0]}, "x of type dict", "Give an array"),
    "objects": (np.array([[1, 2]], object), "x.dtype=object", "numpy.asarray"),
    "strings": (tf.constant([["a"]]), "x.dtype=string", "as numbers"),
    "dates": (np.zeros((1, 1), "datetime64[D]"), "x.dtype=datetime64", "as numbers"),
    "complex": (np.ones((2, 2), complex), "x.dtype=complex128", "numpy.abs(x)"),
    "booleans": (tf.ones((2, 2), "bool"), "x.dtype=bool", "keras.ops.cast(x,"),
}


def assert_refused(kind, call):
    x, received, remedy = REFUSED[kind]
    with pytest.raises(ValueError, match=r"^`x` must be an array or tensor") as error:
        call(x)
    assert f"Received: {received}" in str(error.value)
    assert remedy in str(error.value)


@each_function
def test_all_functions_refuse_kinds_of_input_that_make_no_sense(function):
    for kind in ("ragged", "booleans", "None"):
        assert_refused(kind, function)


@pytest.mark.parametrize("kind", REFUSED)
def test_functions_and_streaming_metrics_refuse_them_in_the_same_words(kind):
    assert_refused(kind, metrics.hoyer)
    assert_refused(kind, metrics.rms)
    for metric in (metrics.Hoyer(), metrics.RMS(), metrics.DeadUnits()):
        assert_refused(kind, metric.update_state)
        assert_refused(kind, metric.sums)
    assert_refused(kind, metrics.ActivationHistogram().update_state)


STREAMING = (metrics.Hoyer, metrics.RMS, metrics.DeadUnits, metrics.ActivationHistogram)


@pytest.mark.parametrize(
    "call",
    [
        *(metrics.hoyer, metrics.gini, metrics.zero_fraction),
        *(metrics.rms, metrics.firing_rate),
        *(lambda x, make=make: make().update_state(x) for make in STREAMING),
    ],
)
def test_an_unknown_rank_is_refused(call):
    message = "`x` must have a known rank.* Received: x of unknown rank. Set its shape"
    unknown = tf.function(call, [tf.TensorSpec(None)], autograph=False)
    with pytest.raises(ValueError, match=message):
        unknown.get_concrete_function()


@pytest.mark.parametrize("name", ["mask", "sample_weight"])
def test_an_unknown_rank_of_what_counts_is_refused(name):
    def call(counts):
        metrics.RMS().update_state(np.ones((2, 3, 4)), **{name: counts})

    unknown = tf.function(call, [tf.TensorSpec(None)], autograph=False)
    with pytest.raises(ValueError, match=f"Received: {name}.shape=unknown for x.shape"):
        unknown.get_concrete_function()


@pytest.mark.parametrize(
    "x", [[[3, 4]], keras.Variable([[3.0, 4.0]]), np.array([[3, 4]], "uint8")], ids=str
)
def test_what_can_be_taken_is(x):
    assert float(metrics.rms(x)) == pytest.approx(12.5**0.5)
    metric = metrics.RMS()
    metric.update_state(x)
    assert float(metric.result()) == pytest.approx(12.5**0.5)
