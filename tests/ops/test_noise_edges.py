"""Sparseout at the edges of its dtypes and arguments."""

from itertools import product

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from formula import (
    BOTH,
    DTYPES,
    DTYPES_AND_MODES,
    EPSILON,
    FORMS,
    QS,
    as_float64,
    compile_if,
    reference,
    value_and_gradient,
)

from keras_sparseout import ops


def edge_grid(dtype):
    """Inputs, masks and upstream gradients, each combined with each."""
    info = ml_dtypes.finfo(dtype)
    edges = (0.0, info.smallest_subnormal, info.smallest_normal, 1e-8, 1, info.max)
    x = np.array([[edge, -edge] for edge in edges], dtype).reshape(-1, 1, 1)
    keep, upstream = np.array([[True], [False]]), np.array([0, 1, 1000], dtype)
    return tuple(map(tf.constant, np.broadcast_arrays(x, upstream, keep)))


def assert_finite(result, case):
    for name, tensor in zip(("value", "gradient"), result, strict=True):
        assert np.all(np.isfinite(as_float64(tensor))), (case, name)


@pytest.mark.onednn
@pytest.mark.parametrize(("dtype", "compiled"), DTYPES_AND_MODES)
def test_edge_inputs_stay_finite(dtype, compiled):
    cases = [
        *product((0.1, 0.9), QS, BOTH, [EPSILON]),
        *product([0.9], [q for q in QS if q < 2], BOTH, [1e-30]),
    ]
    if compiled:
        # One exponent of each way to take the power, all in one function: XLA takes
        # longer over many. The smallest epsilon makes the powers of those below 2
        # largest.
        cases = [
            *product([0.9], (0.0, 1.0, 1.3), BOTH, [1e-30]),
            *product([0.9], (2.5, 8.0), BOTH, [EPSILON]),
        ]

    def call(x, upstream, mask):
        return [
            value_and_gradient(x, upstream, *case, mask=mask, epsilon=epsilon)
            for *case, epsilon in cases
        ]

    results = compile_if(compiled, call)(*edge_grid(dtype))
    for result, case in zip(results, cases, strict=True):
        assert_finite(result, case)


@pytest.mark.parametrize(("dtype", "compiled"), DTYPES_AND_MODES)
def test_edge_inputs_stay_finite_with_rate_and_q_in_tensors(dtype, compiled):
    call = compile_if(compiled, value_and_gradient)
    x, upstream, mask = edge_grid(dtype)
    for rate, q, held in product((0.0, 0.1, 0.9, 1.0), (0.0, 1.3, 2.0, 3.0, 8.0), BOTH):
        result = call(x, upstream, tf.constant(rate), tf.constant(q), held, mask=mask)
        assert_finite(result, (rate, q, held))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_next_to_1_stays_finite_on_a_given_mask(dtype):
    x, upstream, mask = edge_grid(dtype)
    rates = (
        np.nextafter(1, 0),
        tf.constant(np.nextafter(np.float32(1), np.float32(0))),
    )
    for case in product(rates, (0.0, 2.0, 8.0), BOTH):
        result = value_and_gradient(x, upstream, *case, mask=mask, epsilon=1e-30)
        assert_finite(result, case)


@pytest.mark.parametrize("q", [0.0, 2.0, 3.0, 4.0, 8.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_representable_becomes_the_largest_finite_number(dtype, q):
    info = ml_dtypes.finfo(dtype)
    largest = float(info.max)
    x = np.array([0.0, 0.01, 3.0, 0.3 * largest, 0.9 * largest, largest])
    x = tf.cast(np.concatenate([x, -x]), dtype)
    upstream = tf.constant(0.9 * largest, dtype, x.shape)
    for keep in BOTH:
        with np.errstate(over="ignore"):
            value, n = reference(as_float64(x), keep, 0.5, q)
            exact = np.stack([value, as_float64(upstream) * n])
        result = value_and_gradient(x, upstream, 0.5, q, mask=[keep])
        result = np.stack([as_float64(tensor) for tensor in result])
        saturated = np.clip(exact, -largest, largest)
        rtol = max(1e-5, float(info.eps))
        np.testing.assert_allclose(result, saturated, rtol=rtol)
        over = np.abs(exact) > largest
        np.testing.assert_array_equal(result[over], saturated[over])


@pytest.mark.onednn
@pytest.mark.parametrize(("dtype", "compiled"), DTYPES_AND_MODES)
def test_infinite_and_nan_numbers_stay_what_they_are(dtype, compiled):
    fine, bad = [1.0, -2.0, 0.0], [np.inf, -np.inf, np.nan]
    # In each column one of the two is bad; the rows are kept and dropped.
    grid = [tf.constant([row] * 2, dtype) for row in (bad + fine, fine + bad)]
    mask = tf.constant([[True], [False]])
    cases = [*product((0.5, 1.0), (1.3, 2.0, 8.0), BOTH, FORMS)]
    if compiled:
        few = ((1.0, 2.0, True), (0.5, 8.0, False))
        cases = [(*case, form) for case, form in product(few, FORMS)]

    def call(x, upstream):
        return [
            value_and_gradient(x, upstream, form(rate), form(q), held, mask=mask)
            for rate, q, held, form in cases
        ]

    results = compile_if(compiled, call)(*grid)
    for result, case in zip(results, cases, strict=True):
        value, gradient = map(as_float64, result)
        case = str(case)
        np.testing.assert_array_equal(value[:, :3], [bad] * 2, case)
        np.testing.assert_array_equal(gradient[:, 3:], [bad] * 2, case)


@pytest.mark.onednn
@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_infinite_and_nan_inputs_stay_under_a_drawn_mask(rate):
    bad = [np.inf, -np.inf, np.nan]
    for form in FORMS:
        value = ops.sparseout(tf.constant(bad), form(rate), seed=1)
        np.testing.assert_array_equal(value, bad, form.__name__)


X = np.ones((2, 3), "float32")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *product(["rate"], (-0.1, 1.1, np.nan, "0.5", None, True)),
        *product(["q"], (-1, np.nan, np.inf, "2", None)),
        *product(["epsilon"], (0, -1, 1e-31, np.nan, np.inf, "1")),
        *product(["noise_shape"], ((3,), (2, 2), (2.0, 3), "12")),
        *product(["seed"], (1.5, "a", True, 2**63)),
        ("stop_gradient", "yes"),
        *product(["target_fraction"], (-0.1, 1.1, np.nan, "1", None, True)),
    ],
)
def test_a_bad_value_is_named_with_what_was_received(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .* Received: ") as caught:
        ops.sparseout(**{"x": X, "rate": 0.5, name: value})
    assert f"{name}={value!r}" in str(caught.value).split("Received: ")[1]


@pytest.mark.parametrize(
    ("kwargs", "rule", "received"),
    [
        ({"q": (None, 1, 3)}, "`noise_shape`", "Pass noise_shape=(None, 1, 3)"),
        ({"x": X.astype("int32")}, "`x`", "x.dtype=int32"),
        ({"x": X.astype("complex64")}, "`x`", "x.dtype=complex64"),
        ({"x": X.astype("bool")}, "`x`", "x.dtype=bool"),
        ({"seed": tf.constant([1.5, 2.0])}, "`seed`", "float32"),
        ({"seed": tf.constant([1, 2, 3])}, "`seed`", "(3,)"),
        ({"noise_shape": (0, 3)}, "tuple of positive", "noise_shape=(0, 3)"),
        ({"noise_shape": (-1, 3)}, "tuple of positive", "noise_shape=(-1, 3)"),
        ({"noise_shape": (2, 2)}, "`noise_shape`", "of shape (2, 3)"),
        ({"mask": np.ones((2, 3), "int32")}, "`mask`", "mask.dtype=int32"),
        ({"mask": np.ones((2, 2), bool)}, "`mask`", "mask.shape=(2, 2)"),
        ({"mask": np.ones((1, 2, 3), bool)}, "`mask`", "mask.shape=(1, 2, 3)"),
        ({"mask": X > 0, "noise_shape": (1, 3)}, "`mask`", "noise_shape=(1, 3)"),
        ({"mask": X > 0, "seed": 4}, "`mask`", "seed=4"),
        ({"x": X[0], "target_fraction": 0.5}, "`x`", "x.shape=(3,)"),
    ],
)
def test_bad_input_is_named_with_what_was_received(kwargs, rule, received):
    with pytest.raises(ValueError, match="Received: ") as caught:
        ops.sparseout(**{"x": X, "rate": 0.5, **kwargs})
    before, after = str(caught.value).split("Received: ")
    assert rule in before
    assert received in after


def test_another_backend_needs_a_given_mask(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Received: "):
        ops.sparseout(X, 0.5)
    np.testing.assert_array_equal(ops.sparseout(X, 0.5, mask=X > 0), 2 * X)


@pytest.mark.parametrize("name", ["rate", "q"])
def test_tensors_of_rate_and_q_are_scalars(name):
    arguments = {"rate": 0.5, "q": 2.0, name: tf.constant([0.5, 0.5])}
    with pytest.raises(ValueError, match=f"`{name}`, where it is a tensor") as error:
        ops.sparseout(X, **arguments)
    assert f"Received: {name} of shape (2,)" in str(error.value)


VALUES = np.array([[4.0, -1.0, 0.25], [-2.0, 3.0, -0.5]], "float32")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"seed": 1},
        {"seed": 1, "noise_shape": (None, 1)},
        {"seed": 1, "noise_shape": (None, None), "target_fraction": 0.5},
        {"mask": VALUES > 0},
        {"mask": VALUES[:, :1] > 0},
        {"mask": [True, False, True]},
    ],
    ids=str,
)
def test_of_unknown_rank_it_gives_what_it_gives_otherwise(kwargs):
    def call(x):
        return value_and_gradient(x, None, 0.5, 1.0, **kwargs)

    unknown = tf.function(call, [tf.TensorSpec(None)], autograph=False)
    for found, expected in zip(unknown(VALUES), call(tf.constant(VALUES)), strict=True):
        assert found.shape == VALUES.shape
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_mask_of_unknown_rank_may_not_enlarge_x():
    @tf.function(input_signature=[tf.TensorSpec(None, "bool")], autograph=False)
    def call(mask):
        return ops.sparseout(VALUES, 0.5, mask=mask)

    for mask in (VALUES > 0, VALUES[0] > 0):
        assert call(mask).shape == VALUES.shape
        np.testing.assert_array_equal(call(mask), 2 * VALUES * mask)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no greater than"):
        call(np.ones((2, 2, 3), bool))


@pytest.mark.parametrize(
    ("specs", "name"),
    [
        ([tf.TensorSpec(None)], "x"),
        ([tf.TensorSpec(None), tf.TensorSpec((2, 3), "bool")], "x"),
        ([tf.TensorSpec((2, 3)), tf.TensorSpec(None, "bool")], "mask"),
    ],
)
def test_units_need_a_known_rank(specs, name):
    def call(x, mask=None):
        return ops.sparseout(x, 0.5, mask=mask, target_fraction=0.5)

    rule = f"`{name}` must have a known rank if .* Received: {name} of unknown rank"
    with pytest.raises(ValueError, match=rule):
        tf.function(call, specs, autograph=False).get_concrete_function()


@pytest.mark.parametrize("name", ["x", "mask"])
def test_a_symbolic_tensor_is_for_the_layer(name):
    kwargs = {"x": VALUES, name: keras.Input((3,), dtype="bool")}
    message = f"`{name}` must be an array .* Received: {name} of type KerasTensor"
    with pytest.raises(ValueError, match=message) as error:
        ops.sparseout(rate=0.5, **kwargs)
    assert "the layer keras_sparseout.Sparseout" in str(error.value)
