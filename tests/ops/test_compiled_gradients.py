"""Gradients of compiled noise: of which order, in which mode, and what they keep."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Sparseout, ops
from keras_sparseout.ops import masks


def pair(q, **kwargs):
    """A compiled and a plain layer, which draw the same masks."""
    return [
        Sparseout(0.4, q, seed=3, jit_compile=jit, **kwargs) for jit in (True, False)
    ]


def numbers(shape=(6, 5)):
    x = np.random.default_rng(0).uniform(0.2, 3, shape) * (-1) ** np.arange(shape[1])
    return tf.constant(x, tf.float32)


def three_orders(layer, x):
    """Value, gradient, and second derivative of the sum of squares."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = y**2
        gradient = tape.gradient(loss, x)
    return y, gradient, outer.gradient(gradient, x)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("q", "kwargs", "traced"),
    [
        (1.3, {"stop_gradient": False, "adjustable": True}, True),
        (1.5, {"stop_gradient": False}, False),
        (2.0, {"adjustable": True}, True),
        (1.3, {"noise_shape": (None, 1)}, False),
    ],
)
def test_compiled_derivatives_are_the_plain_ones(q, kwargs, traced):
    x = numbers()
    results = []
    for layer in pair(q, **kwargs):
        call = tf.function(three_orders) if traced else three_orders
        results.append(call(layer, x))
    for compiled, plain in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("q", "stop_gradient"), [(2.0, True), (1.5, True), (1.3, False)]
)
def test_compiled_forward_mode_agrees_with_reverse_mode(q, stop_gradient):
    x = numbers()
    tangent = tf.cast(tf.reshape(tf.linspace(-1, 1, 30), (6, 5)), "float32")
    forward, _ = pair(q, stop_gradient=stop_gradient)
    reverse, _ = pair(q, stop_gradient=stop_gradient)
    with tf.autodiff.ForwardAccumulator(x, tangent) as accumulator:
        y = forward(x, training=True)
    with tf.GradientTape() as tape:
        tape.watch(x)
        again = reverse(x, training=True)
    np.testing.assert_array_equal(again, y)
    slope = tape.gradient(again, x)
    np.testing.assert_allclose(accumulator.jvp(y), slope * tangent, rtol=1e-6)


def inputs_of_gradient_program(layer):
    """What the compiled program of a layer's gradient gets, each input once."""

    @tf.function(autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, x, output_gradients=upstream)

    spec = tf.TensorSpec((None, 16))
    library = step.get_concrete_function(spec, spec).graph.as_graph_def().library
    programs = {
        f.signature.name for f in library.function if f.attr["_XlaMustCompile"].b
    }
    (backward,) = (f for f in library.function if "__backward_" in f.signature.name)
    nodes = {node.name: node for node in backward.node_def}
    (call,) = (n for n in nodes.values() if n.attr["f"].func.name in programs)
    inputs = set()
    for name in call.input:
        node = nodes.get(name.split(":")[0])
        is_passed_on = node is not None and node.op == "StopGradient"
        inputs.add(node.input[0] if is_passed_on else name)
    return inputs


@pytest.mark.parametrize(
    ("q", "kwargs", "keeps_x"),
    [(2.0, {}, False), (1.5, {}, True), (1.3, {"stop_gradient": False}, True)],
)
def test_x_alone_is_kept_for_the_gradient_and_with_q_2_nothing(q, kwargs, keeps_x):
    layer = Sparseout(0.5, q, seed=1, jit_compile=True, **kwargs)
    inputs = inputs_of_gradient_program(layer)
    # The others: upstream gradient, threshold, q, seed pair.
    assert len(inputs) == 4 + keeps_x


@pytest.mark.parametrize(
    ("q", "size"), [(2.0, 2**11), (1.5, 2**15), (1.3, 2**11), (1.3, 2**15)]
)
def test_x_and_the_mask_alone_are_kept_for_a_plain_gradient(q, size):
    layer = Sparseout(0.5, q, seed=1, jit_compile=False)
    x = tf.ones((size,))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)

    @tf.function(autograph=False)
    def backward(upstream):
        return tape.gradient(y, x, output_gradients=upstream)

    captured = backward.get_concrete_function(x).captured_inputs
    arrays = [np.asarray(memoryview(tensor)) for tensor in captured]
    # Tensors that share their memory count once.
    memory = {array.ctypes.data: array.nbytes for array in arrays}
    # Scalars are the rest.
    assert sum(memory.values()) <= (4 + 1) * size + 64


@pytest.mark.parametrize(("size", "traced"), [(6, False), (2**15, True)])
def test_plain_noise_has_the_forward_mode_of_its_gradient(size, traced):
    x = tf.linspace(0.5, 2.0, size)
    layer = Sparseout(0.5, 1.5, seed=1, stop_gradient=False, jit_compile=False)

    def hessian_times_ones(x):
        with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer(x, training=True) ** 2)
            gradient = tape.gradient(loss, x)
        return gradient, accumulator.jvp(gradient)

    call = tf.function(hessian_times_ones) if traced else hessian_times_ones
    gradient, forward = call(x)
    layer.seed_generator.state.assign([1, 0])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        again = tape.gradient(loss, x)
    np.testing.assert_allclose(again, gradient, rtol=1e-5)
    np.testing.assert_allclose(outer.gradient(again, x), forward, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("q", "traced"), [(1.3, False), (2.0, True)])
def test_a_seed_that_is_an_input_gives_the_recomputed_gradient_of_its_mask(q, traced):
    x, seed = numbers(), masks.seed_pair(5)

    def noisy(x, seed):
        return ops.sparseout(x, 0.5, q, seed=seed)

    def gradient(function, x, seed):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, seed)
        return y, tape.gradient(y, x)

    call = tf.function(gradient, autograph=False) if traced else gradient
    y, slope = call(noisy, x, seed)
    again, recomputed = call(tf.recompute_grad(noisy), x, seed)
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(recomputed, slope)


def test_under_remat_a_layer_draws_again_as_dropout_does():
    # Documented, since only Keras could give the second call the seed of the first.
    states = []
    for layer in (Sparseout(0.5, seed=1), keras.layers.Dropout(0.5, seed=1)):
        x = tf.ones((4, 16))
        call = keras.remat(lambda x, layer=layer: layer(x, training=True))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        tape.gradient(y, x)
        states.append(layer.seed_generator.state.numpy()[1])
    assert states[0] == states[1]


def orders_in_all_modes(layer, x):
    """Forward mode, the third derivative, and the matrix of second derivatives."""

    def gradient(x):
        layer.seed_generator.state.assign([3, 0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 4)
        return tape.gradient(loss, x)

    with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
        forward = accumulator.jvp(gradient(x))
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            first = gradient(x)
        second = tape.gradient(first, x)
    return forward, second, outer.gradient(second, x), tape.jacobian(first, x)


def formula_of_high_order(x, q):
    """Second and third derivative of the sum of y^4, which is one of powers."""
    keep, keep_prob = masks.bernoulli(x.shape, 0.4, tf.constant([3, 0], tf.int64))
    xi, size = keep.numpy() / keep_prob - 1, np.abs(x)
    second = third = 0.0
    for k in range(5):
        # y is x and sign(x) xi |x|^(q / 2), to epsilon.
        factor, power = math.comb(4, k) * xi**k, 4 - k + k * q / 2
        factor = factor * power * (power - 1)
        second = second + factor * size ** (power - 2)
        third = third + factor * (power - 2) * size ** (power - 3)
    return second, np.sign(x) * third


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("jit_compile", "qs"),
    # Both sides of the branch by q in one program. Otherwise each side is programs of
    # its own, which take seconds to compile.
    [(True, (2.0, 1.5)), (False, (2.0,))],
)
def test_derivatives_of_high_order_in_all_modes(jit_compile, qs):
    # Of a shape of its own, or it would get the programs that the other one made.
    x = numbers((3, 4 + jit_compile))
    layer = Sparseout(
        0.4, 2.0, adjustable=True, stop_gradient=False, seed=3, jit_compile=True
    )
    call = tf.function(orders_in_all_modes, jit_compile=jit_compile)
    for q in qs:
        layer.q = q
        second, third = formula_of_high_order(x.numpy(), q)
        matrix = np.diag(second.ravel()).reshape(*x.shape, *x.shape)
        wanted = second, second, third, matrix
        for found, expected in zip(call(layer, x), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)
