"""What Bridgeout and Shakeout say of arguments that can't be."""

import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers
SECOND = {Bridgeout: 1.5, Shakeout: 0.1}
every_layer = pytest.mark.parametrize("make", SECOND)


def ones(*shape):
    return np.ones(shape, "float32")


def bad_values(argument, *values):
    return [pytest.param(argument, v, id=f"{argument}={v!r}") for v in values]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *bad_values("rate", -0.1, 1.01, math.nan, math.inf, "0.5", None, True),
        *bad_values("q", -1, math.nan, math.inf, "2", None, True),
        *bad_values("c", -1, math.nan, math.inf, "2", None, True),
        *bad_values("epsilon", 0, 1e-31, math.nan, "1e-7"),
        *bad_values("noise_shape", (None, 0), (None, 1.5), "11", 3),
        *bad_values("seed", 1.0, "1", True, 2**63),
        *bad_values("stop_gradient", 1, None),
        *bad_values("adjustable", 1, None),
        *bad_values("weights", (), ("",), 3, (3,), {"kernel"}),
        *bad_values("axis", (), 1.5, (None,), True, "2"),
    ],
)
def test_bad_arguments_are_named_at_construction(argument, value):
    takers = [c for c in SECOND if argument in inspect.signature(c).parameters]
    assert takers
    for make in takers:
        second = "q" if make is Bridgeout else "c"
        given = {"rate": 0.5, second: 1.0, argument: value}
        with pytest.raises(ValueError, match=f"`{argument}` must be") as error:
            make(L.Dense(2), **given)
        assert f"Received: {argument}={value!r}." in str(error.value)


@every_layer
def test_a_layer_is_a_layer(make):
    cases = {
        3: "Give for example",
        None: "Give for example",
        L.Dense: f"Make one first: {make.__name__}(Dense(...), 0.5).",
    }
    for layer, remedy in cases.items():
        with pytest.raises(ValueError, match="`layer` must be a keras") as error:
            make(layer, 0.5, SECOND[make])
        assert f"Received: layer={layer!r}. {remedy}" in str(error.value)


@every_layer
def test_unknown_keywords_and_dtype_are_refused(make):
    with pytest.raises(ValueError, match="is no argument of") as error:
        make(L.Dense(2), 0.5, SECOND[make], rates=0.5)
    assert "Received: rates=0.5. Did you mean `rate`?" in str(error.value)
    with pytest.raises(ValueError, match="comes from the layer that it wraps") as error:
        make(L.Dense(2), 0.5, SECOND[make], dtype="float16")
    assert "Received: dtype='float16'. Give it to that layer." in str(error.value)


@every_layer
def test_a_layer_without_weights_is_refused(make):
    with pytest.raises(ValueError, match="`layer` must be a layer with") as error:
        make(L.Dropout(0.5), 0.5, SECOND[make])(ones(2, 3))
    assert str(error.value).endswith("which has none. Wrap a layer that has weights.")


def test_a_layer_of_no_main_weight_needs_its_name():
    with pytest.raises(ValueError, match="`weights` must be names") as error:
        Bridgeout(L.BatchNormalization(), 0.5)(ones(2, 3))
    assert "Received: weights=None" in str(error.value)
    assert str(error.value).endswith("Give for example weights=('gamma',).")
    layer = Bridgeout(L.BatchNormalization(), 0.5, weights=["gamma"])
    assert len(np.unique(layer(ones(2, 30), training=True))) == 1


@every_layer
def test_integer_weights_are_refused(make):
    class Counting(L.Dense):
        def build(self, shape):
            super().build(shape)
            self.kernel_count = self.add_weight(
                shape=(3, 2), dtype="int32", trainable=False, name="count"
            )

    with pytest.raises(ValueError, match="`count` must be real floating") as error:
        make(Counting(2), 0.5, SECOND[make], weights="count")(ones(2, 3))
    assert "count.dtype=int32" in str(error.value)


class Compiled(L.Layer):
    """Traces itself, around a layer."""

    def __init__(self, inner):
        super().__init__(name="compiled")
        self.inner = inner
        self.scale = self.add_weight(name="scale", initializer="ones")

    @tf.function
    def call(self, x):
        return self.scale * self.inner(x)


@every_layer
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_that_traces_itself_is_refused(make, training):
    message = "`layer` must have no tf.function around the weights .* with 'compiled'"
    dense = L.Dense(2)
    # Its weights are made by the call.
    layer = make(keras.Sequential([Compiled(dense)]), 0.5, SECOND[make])
    with pytest.raises(ValueError, match=message):
        layer(ones(1, 4), training=training)
    assert dense.built
    layer = make(Compiled(dense), 0.5, SECOND[make])
    with pytest.raises(ValueError, match=message):
        layer.build((None, 4))


@every_layer
def test_one_that_traces_itself_may_be_without_noise(make):
    dense = L.Dense(2)
    layer = make(Compiled(dense), 0.0, SECOND[make])
    np.testing.assert_array_equal(layer(ones(1, 4), training=True), dense(ones(1, 4)))


@every_layer
def test_one_that_traces_itself_may_be_beside_the_weights(make):
    inner = Compiled(L.ReLU())
    layer = make(keras.Sequential([L.Dense(2), inner]), 0.5, SECOND[make], seed=1)
    x = ones(1, 4)
    noisy = [np.asarray(layer(x, training=True)) for _ in range(8)]
    assert len({y.tobytes() for y in noisy}) > 1
    np.testing.assert_array_equal(layer(x), layer.layer(x))


@pytest.mark.parametrize("noise_shape", [(None,), (None, 1, None), (None, 5), (2, 1)])
def test_a_noise_shape_that_does_not_fit_the_weight_is_refused(noise_shape):
    layer = Bridgeout(L.Dense(2), 0.5, noise_shape=noise_shape)
    with pytest.raises(ValueError, match="`noise_shape` must have one") as error:
        layer(ones(2, 3))
    received = f"Received: noise_shape={noise_shape!r} for kernel of shape (3, 2)."
    assert received in str(error.value)


def test_the_axis_of_inputs_is_asked_for_where_it_is_not_known():
    class Mine(L.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(4, shape[-1]), name="kernel")

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.kernel))

    x = np.eye(3, dtype="float32")
    with pytest.raises(ValueError, match="unless `axis` says it") as error:
        Shakeout(Mine(), 0.5, 0.1)(x)
    assert "Received: kernel of shape (4, 3) of Mine 'mine" in str(error.value)
    for axis in (1, -1, (1,)):
        layer = Shakeout(Mine(), 0.5, 0, axis=axis)
        y = layer(x, training=True).numpy()
        np.testing.assert_array_equal(y == 0, (y == 0)[:, :1] & np.ones((3, 4), bool))
    with pytest.raises(ValueError, match="`axis` must be among") as error:
        Shakeout(Mine(), 0.5, 0.1, axis=2)(x)
    assert "Received: axis=(2,) for kernel of shape (4, 3)." in str(error.value)


@pytest.mark.parametrize(
    ("layer", "weights", "name"),
    [
        (lambda: L.Dense(2), "bias", "bias of shape (2,) of Dense"),
        (lambda: L.BatchNormalization(), "gamma", "gamma of shape (3,) of BatchNorm"),
        (lambda: L.EinsumDense("ab,c->abc", (3, 4)), None, "kernel of shape (4,)"),
    ],
)
def test_weights_that_do_not_meet_the_input_are_refused(layer, weights, name):
    with pytest.raises(ValueError, match="`weights` must be kernels") as error:
        Shakeout(layer(), 0.5, 0.1, weights)(ones(2, 3))
    assert f"Received: {name}" in str(error.value)


@every_layer
def test_assigning_to_a_constant_raises_and_tells_of_adjustable(make):
    layer = make(L.Dense(2), 0.5, SECOND[make])
    second = "q" if make is Bridgeout else "c"
    for name in ("rate", second):
        with pytest.raises(AttributeError, match="adjustable=True") as error:
            setattr(layer, name, 0.25)
        assert f"Received: {name}=0.25" in str(error.value)
    layer = make(L.Dense(2), 0.5, SECOND[make], adjustable=True)
    for name, value in [("rate", 1.5), (second, -1.0), (second, math.nan)]:
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            setattr(layer, name, value)
    assert (layer.rate, getattr(layer, second)) == (0.5, SECOND[make])


def test_arguments_come_in_the_order_that_is_documented():
    def positional(c):
        parameters = inspect.signature(c).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    first = ["layer", "rate"]
    assert positional(Bridgeout) == [*first, "q", "weights", "noise_shape", "seed"]
    assert positional(Shakeout) == [*first, "c", "weights", "seed"]
