"""The algebra of Sparseout: against the release, NumPy, Dropout and its moments."""

from itertools import product
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from formula import (
    BOTH,
    DTYPES,
    EPSILON,
    FORMS,
    QS,
    as_float64,
    compile_if,
    reference,
    signed,
    value_and_gradient,
)

from keras_sparseout import ops
from keras_sparseout.ops import masks

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "sparseout_2019.npz")


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
    for q in QS if dtype == "float32" else (0.0, 1.3, 2.0, 8.0):
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


@pytest.mark.parametrize("q", [0.0, 1.3, 2.0, 8.0])
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


@pytest.mark.parametrize(
    ("rate", "q"),
    [(0.1, 0.5), (0.1, 2.0), (0.5, 1.0), (0.5, 3.0), (0.9, 0.5), (0.9, 1.5)],
)
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
@pytest.mark.parametrize("q", [0.0, 1.3, 2.0, 3.0])
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


@pytest.mark.parametrize(
    ("q", "stop_gradient"), [(1.3, True), (1.3, False), (3.0, False)]
)
def test_forward_mode_agrees_with_reverse_mode(q, stop_gradient):
    x, mask = numbers_and_mask()
    tangent = tf.cast(tf.linspace(-1, 1, 40), x.dtype)
    with tf.autodiff.ForwardAccumulator(x, tangent) as accumulator:
        y, gradient = value_and_gradient(x, None, 0.4, q, stop_gradient, mask=mask)
    np.testing.assert_allclose(accumulator.jvp(y), gradient * tangent, rtol=1e-12)


@pytest.mark.parametrize("q", [0.0, 1.0, 1.3, 2.0, 3.0, 8.0])
def test_rate_and_q_in_tensors_agree_with_numbers(q):
    x = signed(np.random.default_rng(6), (20, 5))
    for rate, stop_gradient in zip((0.3, 0.9), BOTH, strict=True):
        expected, *results = (
            value_and_gradient(x, None, of_rate(rate), of_q(q), stop_gradient, seed=9)
            for of_rate, of_q in product(FORMS, FORMS)
        )
        for result in results:
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("make", [tf.Variable, keras.Variable])
@pytest.mark.parametrize("given", [False, True])
def test_variables_are_read_and_x_gets_its_gradient(given, make, stop_gradient):
    x = np.array([4.0, -2.0, 0.25], "float32")
    mask = np.array([True, False, True])
    settings = {"stop_gradient": stop_gradient}
    settings.update({"mask": mask} if given else {"seed": 3})
    expected = value_and_gradient(tf.constant(x), None, 0.5, 1.5, **settings)
    if given:
        settings["mask"] = make(mask)
    x, rate, q = make(x), make(np.float32(0.5)), make(np.float32(1.5))
    sources = [getattr(v, "value", v) if make is keras.Variable else v for v in (x, q)]
    with tf.GradientTape() as tape:
        y = ops.sparseout(x, rate, q, **settings)
    gradient, gradient_of_q = tape.gradient(y, sources)
    np.testing.assert_allclose(y, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)
    assert gradient_of_q is None


@pytest.mark.onednn
def test_compiled_agrees_with_plain_on_a_given_mask():
    rng = np.random.default_rng(8)
    x, upstream = (signed(rng, 100) for _ in range(2))
    mask = tf.constant(rng.random(100) < 0.7)
    # One exponent of each way to take the power, all in one function: XLA takes longer
    # over many.
    cases = [*product((0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0), [True]), (1.3, True)]
    cases += [(1.3, False), (3.0, False)]

    def call(x, upstream):
        return [
            value_and_gradient(x, upstream, 0.3, *case, mask=mask) for case in cases
        ]

    results = zip(compile_if(True, call)(x, upstream), call(x, upstream), strict=True)
    for (result, expected), case in zip(results, cases, strict=True):
        np.testing.assert_allclose(
            result, expected, rtol=1e-5, atol=1e-5, err_msg=str(case)
        )


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


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("noise_shape", "compiled"),
    [(None, False), ((None, 1), False), ((1, None), False), (None, True)],
    ids=str,
)
def test_unknown_batch_sizes_give_what_the_known_ones_give(noise_shape, compiled):
    def call(x):
        return value_and_gradient(x, None, 0.5, 1.0, noise_shape=noise_shape, seed=1)

    signature = [tf.TensorSpec((None, 3))]
    unknown = tf.function(
        call, input_signature=signature, jit_compile=compiled, autograph=False
    )
    # Compiled as well: on some processors XLA's rsqrt rounds otherwise than eager's.
    known = compile_if(compiled, call)
    for batch in (7, 4, 0):
        x = tf.fill((batch, 3), 4.0)
        assert unknown(x)[0].shape == (batch, 3)
        np.testing.assert_array_equal(unknown(x), known(x))


@pytest.mark.parametrize(
    ("kwargs", "compiled"),
    [({"noise_shape": (4, None)}, False), ({"mask": [[True]] * 4}, True)],
    ids=["drawn", "given"],
)
def test_a_mask_larger_than_an_unknown_batch_does_not_enlarge_x(kwargs, compiled):
    # Users have autograph. Other tests do not: converting the package takes a second.
    @tf.function(
        input_signature=[tf.TensorSpec((None, 3))],
        jit_compile=compiled,
        autograph=not compiled,
    )
    def call(x):
        return ops.sparseout(x, 0.5, **kwargs)

    assert call(tf.ones((4, 3))).shape == (4, 3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(tf.ones((1, 3)))
