"""What ActivationPenalty refuses: arguments, values, inputs and masks."""

import math

import keras
import numpy as np
import pytest
from penalties import normal

from keras_sparseout import ActivationPenalty


@pytest.mark.parametrize(
    ("argument", "value", "remedy"),
    [
        *[
            ("weight", value, "Give for example weight=1e-3.")
            for value in (-0.1, math.nan, math.inf, "1", None, True)
        ],
        ("kind", "hoyer", "Did you mean 'hoyer_square'?"),
        ("kind", "L1", "Did you mean 'l1'?"),
        ("kind", 3, "Leave it out for 'l1'."),
        ("epsilon", 0, "Leave it None"),
        ("epsilon", 1e-31, "Leave it None"),
        ("adjustable", 1, "Give adjustable=True or adjustable=False."),
    ],
)
def test_bad_arguments_are_named_at_construction(argument, value, remedy):
    with pytest.raises(ValueError, match=f"`{argument}` must be") as error:
        ActivationPenalty(**{"weight": 0.1, argument: value})
    assert f"Received: {argument}={value!r}." in str(error.value)
    assert remedy in str(error.value)


def test_unknown_keywords_are_named():
    for keyword, remedy in (("wieght", "Did you mean `weight`?"), ("q", "Leave it ")):
        with pytest.raises(ValueError, match="no argument of ActivationP") as error:
            ActivationPenalty(0.1, **{keyword: 2})
        assert f"Received: {keyword}=2. {remedy}" in str(error.value)


def test_assigning_needs_an_adjustable_layer_and_a_good_value():
    layer = ActivationPenalty(0.1)
    with pytest.raises(AttributeError, match=r"ActivationPenalty\(..., adjustable"):
        layer.weight = 0.2
    layer = ActivationPenalty(0.1, adjustable=True)
    with pytest.raises(ValueError, match="Received: weight=-1"):
        layer.weight = -1
    assert layer.weight == 0.1


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_inputs_that_are_not_real_floats_are_named(dtype):
    for inputs in (keras.Input((4,), dtype=dtype), np.ones((2, 4), dtype)):
        with pytest.raises(ValueError, match=f"Received: inputs.dtype={dtype}."):
            ActivationPenalty(0.1)(inputs)


def test_inputs_and_masks_of_other_shapes_are_named():
    for inputs in (keras.Input(()), np.ones(3, "float32")):
        with pytest.raises(ValueError, match=r"Received: inputs.shape=\((None|3),\)"):
            ActivationPenalty(0.1)(inputs)
    with pytest.raises(ValueError, match=r"shape \(2,\).*mask.shape=\(2, 4\)"):
        ActivationPenalty(0.1)(normal(2, 4), mask=np.ones((2, 4), bool))


def test_sequences_are_asked_for():
    layer = ActivationPenalty(1.0, "tar")
    for inputs in (keras.Input((4,)), normal(3, 4)):
        with pytest.raises(ValueError, match="must have a time dimension") as error:
            layer(inputs)
        assert f"Received: inputs.shape={tuple(inputs.shape)}. " in str(error.value)
        assert "return_sequences=True" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("TAR", "Did you mean 'tar'?"),
        ("l1 ", "Did you mean 'l1'?"),
        ("hoyersquare", "Did you mean 'hoyer_square'?"),
        # Another penalty than 'l1', however alike the names are.
        ("L2", "Leave it out for 'l1'."),
        (["ar"], "Leave it out for 'l1'."),
        ("2", "Leave it out for 'l1'."),
    ],
)
def test_other_kinds_are_named(kind, remedy):
    with pytest.raises(ValueError, match="`kind` must be one of 'l1',") as error:
        ActivationPenalty(1.0, kind)
    assert f"'ar', 'tar'. Received: kind={kind!r}. " in str(error.value)
    assert remedy in str(error.value)
