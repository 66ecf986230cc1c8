"""What Sparseout and its spatial layers refuse: arguments, values, inputs."""

import math
import re

import keras
import numpy as np
import pytest
from sparseout_layers import CASES, every_layer, every_spatial, normal

from keras_sparseout import Sparseout, SpatialSparseout1D, SpatialSparseout2D


def bad_values(argument, *values):
    return [pytest.param(argument, v, id=f"{argument}={v!r}") for v in values]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *bad_values("rate", -0.1, 1.01, math.nan, math.inf, "0.5", None, True, 1j),
        *bad_values("q", -1, math.nan, math.inf, "2", None, True, (None, 1, None)),
        *bad_values("epsilon", 0, -1e-7, 1e-31, math.nan, math.inf, "1e-7"),
        *bad_values("noise_shape", (None, 0), (None, -1), (None, 1.5), "11", 3),
        *bad_values("seed", 1.0, "1", True, 2**63),
        *bad_values("stop_gradient", 1, "yes", None),
        *bad_values("adjustable", 1, "yes", None),
        *bad_values("jit_compile", 1, "yes", None),
        *bad_values("target_fraction", -0.1, 1.01, math.nan, "0.75", None, True),
        *bad_values("data_format", "channels", 3),
    ],
)
def test_bad_arguments_are_named_at_construction(argument, value):
    takers = {"noise_shape": CASES[:1], "data_format": CASES[2:]}
    for case in takers.get(argument, CASES):
        with pytest.raises(ValueError, match=f"`{argument}` must be") as error:
            case.ours(**{"rate": 0.5, argument: value})
        assert f"Received: {argument}={value!r}." in str(error.value)
        # Our second argument is q, the second one of Dropout is noise_shape.
        told = f"Pass noise_shape={value!r} by name." in str(error.value)
        assert told == (argument == "q" and isinstance(value, tuple))


@every_layer
def test_unknown_keywords_are_named(case):
    name = case.ours.__name__
    for keyword, remedy in (("rates", "Did you mean `rate`?"), ("x", "Leave it out.")):
        with pytest.raises(ValueError, match="is no argument of") as error:
            case.ours(0.5, **{keyword: 0.25})
        assert str(error.value) == (
            f"`{keyword}` is no argument of {name}. Received: {keyword}=0.25. {remedy}"
        )


def test_noise_shape_and_data_format_belong_to_some_layers_alone():
    with pytest.raises(ValueError, match=r"Received: noise_shape=\(None, 1\)"):
        SpatialSparseout2D(0.5, noise_shape=(None, 1))
    with pytest.raises(ValueError, match="`data_format` is no argument of"):
        SpatialSparseout1D(0.5, data_format="channels_last")


@every_layer
def test_assigning_to_a_constant_raises_and_tells_of_adjustable(case):
    layer = case.ours(0.5, q=1.5)
    for name, value in [("rate", 0.25), ("q", 3.0)]:
        with pytest.raises(AttributeError, match="adjustable=True") as error:
            setattr(layer, name, value)
        assert f"`{name}` of layer {layer.name!r}" in str(error.value)
        assert f"Received: {name}={value!r}" in str(error.value)
    assert (layer.rate, layer.q) == (0.5, 1.5)


@every_layer
def test_assigning_a_bad_value_raises_and_changes_nothing(case):
    layer = case.ours(0.5, q=1.5, adjustable=True)
    for name, value in [("rate", 1.5), ("rate", None), ("q", -1.0), ("q", math.nan)]:
        with pytest.raises(ValueError, match=f"`{name}` must be") as error:
            setattr(layer, name, value)
        assert f"Received: {name}={value!r}" in str(error.value)
    assert (layer.rate, layer.q) == (0.5, 1.5)


@every_layer
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_inputs_that_are_not_real_floats_raise_symbolically_and_eagerly(case, dtype):
    symbolic = keras.Input(case.shape[1:], dtype=dtype)
    for inputs in (symbolic, np.ones(case.shape, dtype)):
        with pytest.raises(ValueError, match="`inputs` must be real") as error:
            case.ours(0.0)(inputs)
        assert f"Received: inputs.dtype={dtype}." in str(error.value)


@every_spatial
def test_a_spatial_layer_names_the_rank_it_takes(case):
    for shape in (case.shape[:-1], (*case.shape, 2)):
        for inputs in (keras.Input(shape[1:]), normal(shape)):
            received = re.escape(str(tuple(inputs.shape)))
            with pytest.raises(ValueError, match="Received: inputs.shape=" + received):
                case.ours(0.5)(inputs)


@pytest.mark.parametrize("noise_shape", [(None, 1), (None,) * 4, (None, 2, None)])
def test_a_noise_shape_that_does_not_fit_raises_as_the_model_is_built(noise_shape):
    received = re.escape(f"Received: noise_shape={noise_shape} for an input of shape ")
    with pytest.raises(ValueError, match="`noise_shape` must have .*" + received):
        keras.Sequential([keras.Input((5, 16)), Sparseout(0.5, 1.5, noise_shape)])
