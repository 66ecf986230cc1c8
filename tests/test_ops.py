from itertools import product
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import masks, ops

GOLDEN = np.load(Path(__file__).parent / "data" / "sparseout_2019.npz")
DTYPES = ("float16", "bfloat16", "float32", "float64")
QS = (0.0, 0.5, 1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0)
BOTH = (True, False)
EPSILON = 1e-7  # Keras' default
# A number given as it is, or in a float32 tensor.
FORMS = (float, tf.constant)


def value_and_gradient(x, upstream, rate, q, stop_gradient=True, **kwargs):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.sparseout(x, rate, q, stop_gradient=stop_gradient, **kwargs)
    return y, tape.gradient(y, x, output_gradients=upstream)


def compile_if(compiled, function):
    if not compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def as_float64(tensor):
    return tf.cast(tensor, tf.float64).numpy()


def reference(x, keep, keep_prob, q, epsilon=EPSILON):
    """The value x n and the multiplier n of the formula, in float64."""
    n = 1 + (np.abs(x) + epsilon) ** ((q - 2) / 2) * (keep / keep_prob - 1)
    return x * n, n


def signed(rng, shape, dtype="float32"):
    """Numbers of either sign, far enough from 0 for a finite difference."""
    return tf.cast(rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape), dtype)


@pytest.mark.parametrize("case", sorted({key.split("/")[0] for key in GOLDEN}))
def test_value_and_gradient_are_those_of_the_authors_release(case):
    x, upstream, keep, y, dx = (
        tf.constant(GOLDEN[f"{case}/{name}"])
        for name in ("x", "upstream", "keep", "y", "dx")
    )
    rate, q = GOLDEN[f"{case}/rate_q"].tolist()
    result = value_and_gradient(x, upstream, rate, q, mask=keep, epsilon=1e-12)
    np.testing.assert_allclose(result, (y, dx), rtol=2e-4, atol=1e-5)


def test_there_are_42_golden_cases():
    assert len(GOLDEN) == 42 * 6


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_q_2_is_keras_dropout_with_the_same_mask(rate):
    x = signed(np.random.default_rng(0), (50, 40))
    keep = keras.layers.Dropout(rate, seed=3)(tf.ones_like(x), training=True) > 0
    assert abs(np.mean(keep) - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / 2000)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = keras.layers.Dropout(rate, seed=3)(x, training=True)
    result = value_and_gradient(x, None, rate, 2.0, mask=keep)
    np.testing.assert_allclose(result, (y, tape.gradient(y, x)), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_drawn_noise_agrees_with_a_float64_reference(dtype):
    rng = np.random.default_rng(1)
    x, upstream = (signed(rng, (30, 7), dtype) for _ in range(2))
    keep, keep_prob = masks.bernoulli((30, 7), 0.3, masks.seed_pair(5))
    wide = "float64" if dtype == "float64" else "float32"
    for q in QS:
        value, gradient = value_and_gradient(x, upstream, 0.3, q, seed=5)
        assert value.dtype == gradient.dtype == x.dtype
        expected, n = reference(as_float64(x), keep.numpy(), keep_prob, q)
        np.testing.assert_allclose(
            [as_float64(value), as_float64(gradient)],
            [expected, as_float64(upstream) * n],
            rtol=float(ml_dtypes.finfo(dtype).eps),
            # A multiplier near 0 is a difference of numbers of up to this size.
            atol=8 * np.abs(expected).max() * np.finfo(wide).eps,
            err_msg=f"{q=}",
        )


@pytest.mark.parametrize("q", [0.0, 1.0, 1.3, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rate_0_is_the_identity_and_rate_1_gives_zeros(rate, q):
    x = tf.constant([-40.0, -1.0, -0.0, 0.0, 1e-8, 3.0])
    upstream = tf.constant([1.0, 2.0, -3.0, 4.0, 5.0, 6.0])
    expected = (1 - rate) * tf.stack([x, upstream])
    given = (None, [True], [False]) if rate else (None, [True])
    for form, mask, stop_gradient in product(FORMS, given, BOTH):
        result = value_and_gradient(
            x, upstream, form(rate), q, stop_gradient, mask=mask
        )
        case = f"{form.__name__}, {mask=}, {stop_gradient=}"
        assert result[1] is not None, case
        np.testing.assert_array_equal(result, expected, case)


@pytest.mark.parametrize("q", [0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_mean_is_x_and_variance_is_that_of_the_paper(rate, q):
    n = 10**6
    x = np.array([-0.3, 2.0])
    y = ops.sparseout(tf.broadcast_to(tf.cast(x, "float32"), (n, 2)), rate, q, seed=1)
    p = 1 - masks.quantise(rate)[1]
    variance = np.abs(x) ** q * p / (1 - p)
    deviation = y.numpy().astype("float64") - x
    assert np.all(np.abs(deviation.mean(0)) < 5 * np.sqrt(variance / n))
    # The relative variance of xi^2, where xi is p / (1 - p) with probability 1 - p and
    # -1 with p; at p = .5 it is 0, and what remains is the rounding of float32.
    fourth, second = (
        np.dot([1 - p, p], np.array([p / (1 - p), -1.0]) ** k) for k in (4, 2)
    )
    error = np.sqrt(max(fourth / second**2 - 1, 0) / n)
    ratio = np.mean(deviation**2, 0) / variance
    assert np.all(np.abs(ratio - 1) < 5 * error + 1e-5)


@pytest.mark.parametrize("q", [0.5, 1.0, 1.3, 2.0, 3.0])
def test_exactly_two_values_occur_for_each_x(q):
    x = np.array([-3.0, -0.25, 0.5, 4.0], "float32")
    for rate in (0.1, 0.5, 0.9):
        y = ops.sparseout(tf.broadcast_to(x, (10_000, 4)), rate, q, seed=2).numpy()
        keep_prob = masks.quantise(rate)[1]
        both, _ = reference(x, np.array([[False], [True]]), keep_prob, q)
        for column, expected in zip(y.T, both.T, strict=True):
            values = np.unique(column)
            assert values.size == 2
            np.testing.assert_allclose(values, np.sort(expected), rtol=1e-5, atol=1e-6)


def derivative(f, x, step=1e-6):
    """Central finite differences of an elementwise function."""
    return (as_float64(f(x + step)) - as_float64(f(x - step))) / (2 * step)


def numbers_and_mask():
    rng = np.random.default_rng(3)
    return signed(rng, 40, "float64"), rng.random(40) < 0.6


# The large epsilon makes its own part in the derivative visible.
@pytest.mark.parametrize("epsilon", [EPSILON, 0.1])
@pytest.mark.parametrize("q", QS)
def test_gradient_is_the_multiplier_or_the_derivative(q, epsilon):
    x, mask = numbers_and_mask()
    kwargs = {"mask": mask, "epsilon": epsilon}
    numeric = derivative(lambda x: ops.sparseout(x, 0.4, q, **kwargs), x)
    _, through = value_and_gradient(x, None, 0.4, q, False, **kwargs)
    np.testing.assert_allclose(through, numeric, rtol=1e-7, atol=1e-7)
    _, held = value_and_gradient(x, None, 0.4, q, **kwargs)
    _, n = reference(x.numpy(), mask, 0.6, q, epsilon)
    np.testing.assert_allclose(held, n, rtol=1e-12, atol=1e-12)
    if q == 2:
        np.testing.assert_array_equal(through, held)
    else:
        assert np.all(np.abs(through - held) > 1e-3)


@pytest.mark.parametrize("stop_gradient", BOTH)
@pytest.mark.parametrize("q", [0.0, 1.0, 1.3, 2.0, 3.0, 5.0])
def test_second_order_is_right(q, stop_gradient):
    x, mask = numbers_and_mask()

    def first(x, rate=0.4):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = ops.sparseout(x, rate, q, mask=mask, stop_gradient=stop_gradient)
            loss = y**2
        return tape.gradient(loss, x)

    # Held, the first is 2 y n with n a constant.
    held = 2 * reference(x.numpy(), mask, 0.6, q)[1] ** 2
    expected = held if stop_gradient else derivative(first, x)
    for rate, wanted in ((0.4, expected), (tf.constant(1.0), np.zeros(40))):
        with tf.GradientTape() as tape:
            tape.watch(x)
            gradient = first(x, rate)
        second = tape.gradient(gradient, x)
        np.testing.assert_allclose(second, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stop_gradient", BOTH)
@pytest.mark.parametrize("q", [0.0, 1.3, 2.0, 3.0])
def test_forward_mode_agrees_with_reverse_mode(q, stop_gradient):
    x, mask = numbers_and_mask()
    tangent = tf.cast(tf.linspace(-1, 1, 40), x.dtype)
    with tf.autodiff.ForwardAccumulator(x, tangent) as accumulator:
        y, gradient = value_and_gradient(x, None, 0.4, q, stop_gradient, mask=mask)
    np.testing.assert_allclose(accumulator.jvp(y), gradient * tangent, rtol=1e-12)


def edge_grid(dtype):
    """Inputs, masks and upstream gradients, each combined with each."""
    info = ml_dtypes.finfo(dtype)
    edges = (0.0, info.smallest_subnormal, info.smallest_normal, 1e-8, 1, info.max)
    x = np.array([[edge, -edge] for edge in edges], dtype).reshape(-1, 1, 1)
    keep, upstream = np.array([[True], [False]]), np.array([1, 2, 1000], dtype)
    return tuple(map(tf.constant, np.broadcast_arrays(x, upstream, keep)))


def assert_finite(result, case):
    for name, tensor in zip(("value", "gradient"), result, strict=True):
        assert np.all(np.isfinite(as_float64(tensor))), (case, name)


@pytest.mark.parametrize("compiled", BOTH)
@pytest.mark.parametrize("dtype", DTYPES)
def test_edge_inputs_stay_finite(dtype, compiled):
    low = [q for q in QS if q < 2]
    cases = [
        *product((0.1, 0.5, 0.9), QS, BOTH, [EPSILON]),
        *product([0.9], low, BOTH, [1e-30]),
    ]

    # All of them in one function, since XLA takes longer over many.
    def call(x, upstream, mask):
        return [
            value_and_gradient(x, upstream, *case, mask=mask, epsilon=epsilon)
            for *case, epsilon in cases
        ]

    results = compile_if(compiled, call)(*edge_grid(dtype))
    for result, case in zip(results, cases, strict=True):
        assert_finite(result, case)


@pytest.mark.parametrize("compiled", BOTH)
@pytest.mark.parametrize("dtype", DTYPES)
def test_edge_inputs_stay_finite_with_rate_and_q_in_tensors(dtype, compiled):
    call = compile_if(compiled, value_and_gradient)
    x, upstream, mask = edge_grid(dtype)
    for rate, q, held in product((0.0, 0.1, 0.5, 0.9, 1.0), QS, BOTH):
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


@pytest.mark.parametrize("compiled", BOTH)
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_and_nan_numbers_stay_what_they_are(dtype, compiled):
    fine, bad = [1.0, -2.0, 0.0], [np.inf, -np.inf, np.nan]
    # In each column one of the two is bad; the rows are kept and dropped.
    grid = [tf.constant([row] * 2, dtype) for row in (bad + fine, fine + bad)]
    mask = tf.constant([[True], [False]])
    call = compile_if(compiled, value_and_gradient)
    for rate, q, held, form in product((0.5, 1.0), (1.3, 2.0, 8.0), BOTH, FORMS):
        result = call(*grid, form(rate), form(q), held, mask=mask)
        value, gradient = map(as_float64, result)
        case = f"{rate=}, {q=}, {held=}, {form=}"
        np.testing.assert_array_equal(value[:, :3], [bad] * 2, case)
        np.testing.assert_array_equal(gradient[:, 3:], [bad] * 2, case)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_infinite_and_nan_inputs_stay_under_a_drawn_mask(rate):
    bad = [np.inf, -np.inf, np.nan]
    for form in FORMS:
        value = ops.sparseout(tf.constant(bad), form(rate), seed=1)
        np.testing.assert_array_equal(value, bad, form.__name__)


@pytest.mark.parametrize("q", QS)
def test_rate_and_q_in_tensors_agree_with_numbers(q):
    x = signed(np.random.default_rng(6), (20, 5))
    for rate, stop_gradient in product((0.1, 0.3, 0.9), BOTH):
        expected, *results = (
            value_and_gradient(x, None, of_rate(rate), of_q(q), stop_gradient, seed=9)
            for of_rate, of_q in product(FORMS, FORMS)
        )
        for result in results:
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_compiled_agrees_with_plain_on_a_given_mask():
    rng = np.random.default_rng(8)
    x, upstream = (signed(rng, 100) for _ in range(2))
    mask = tf.constant(rng.random(100) < 0.7)
    compiled = compile_if(True, value_and_gradient)
    for case in product([0.3], QS, BOTH):
        result = compiled(x, upstream, *case, mask=mask)
        expected = value_and_gradient(x, upstream, *case, mask=mask)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (4, 1), (1, 1), (3, 1, 5), ()], ids=str)
def test_a_given_mask_broadcasts(shape):
    rng = np.random.default_rng(7)
    x, mask = signed(rng, (3, 4, 5)), rng.random(shape) < 0.5
    result, expected = (
        value_and_gradient(x, None, 0.5, 1.5, mask=each)
        for each in (mask, np.broadcast_to(mask, x.shape))
    )
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "noise_shape", [(None,) * 3, (None, 1, None), [4, 1, 1], (1, 1, 1)], ids=str
)
def test_noise_shape_gives_one_draw_where_it_is_1(noise_shape):
    shape = (4, 6, 3)
    drawn = tuple(noise or dim for noise, dim in zip(noise_shape, shape, strict=True))
    keep, _ = masks.bernoulli(drawn, 0.5, masks.seed_pair(1))
    y = ops.sparseout(tf.ones(shape), 0.5, noise_shape=noise_shape, seed=1)
    np.testing.assert_array_equal(y, np.broadcast_to(2.0 * keep.numpy(), shape))


def test_the_seed_decides_the_draw():
    def draw(seed):
        return ops.sparseout(tf.ones(100), 0.5, seed=seed).numpy()

    for same in (3, np.int64(3), tf.constant([3, 0])):
        np.testing.assert_array_equal(draw(3), draw(same))
    assert np.any(draw(3) != draw(4))

    generator, twin = (keras.random.SeedGenerator(3) for _ in range(2))
    first, second = draw(generator), draw(generator)
    assert np.any(first != second)
    np.testing.assert_array_equal(draw(twin), first)

    keras.utils.set_random_seed(1)
    first, second = draw(None), draw(None)
    assert np.any(first != second)
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(draw(None), first)


@pytest.mark.parametrize("noise_shape", [None, (None, 1), (1, None)], ids=str)
@pytest.mark.parametrize("compiled", BOTH)
def test_unknown_batch_sizes_give_what_the_known_ones_give(noise_shape, compiled):
    def known(x):
        return value_and_gradient(x, None, 0.5, 1.0, noise_shape=noise_shape, seed=1)

    signature = [tf.TensorSpec((None, 3))]
    unknown = tf.function(known, input_signature=signature, jit_compile=compiled)
    for batch in (7, 4, 0):
        x = tf.fill((batch, 3), 4.0)
        assert unknown(x)[0].shape == (batch, 3)
        np.testing.assert_array_equal(unknown(x), known(x))


@pytest.mark.parametrize(
    "kwargs",
    [{"noise_shape": (4, None)}, {"mask": [[True]] * 4}],
    ids=["drawn", "given"],
)
@pytest.mark.parametrize("compiled", BOTH)
def test_a_mask_larger_than_an_unknown_batch_does_not_enlarge_x(kwargs, compiled):
    @tf.function(input_signature=[tf.TensorSpec((None, 3))], jit_compile=compiled)
    def call(x):
        return ops.sparseout(x, 0.5, **kwargs)

    assert call(tf.ones((4, 3))).shape == (4, 3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(tf.ones((1, 3)))


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
