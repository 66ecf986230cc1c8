"""Arguments that SparsityController refuses, and what it says."""

import json

import numpy as np
import pytest
import tensorflow as tf
from controlled import X, classifier, fit

from keras_sparseout import SparsityController, metrics


def test_targets_are_numbers_that_a_file_can_have():
    for target in (np.float32(0.9), np.float64(0.9), {"a": np.float32(0.9)}):
        kept = SparsityController(target).target
        assert json.loads(json.dumps(kept)) == target
    assert json.dumps(SparsityController(np.int64(3), metric=needless).target) == "3.0"


def needless(x):
    return x


def needless_macs(x):
    return x


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((1.5,), {}, ["`target`", "above 0 and below 1", "Received: target=1.5"]),
        ((0,), {}, ["`target`", "Received: target=0"]),
        (("high",), {}, ["`target`", "Received: target='high'"]),
        (({},), {}, ["`target`", "at least one layer"]),
        (({"hidden": 2},), {}, ["`target`", "Received: target={'hidden': 2}"]),
        ((1.5, metrics.hoyer), {}, ["`target`", "above 0 and below 1"]),
        ((1.5, metrics.Gini()), {}, ["`target`", "above 0 and below 1"]),
        ((0.5, "hoyr"), {}, ["`metric`", "Did you mean 'hoyer'?"]),
        ((0.5, "firing_rate"), {}, ["`metric`", "rises with sparsity"]),
        ((0.5, needless_macs), {}, ["`metric`", "another name than 'needless_macs'"]),
        ((0.5, ["hoyer"]), {}, ["`metric`", "Received: metric=['hoyer']"]),
        ((0.5, metrics.ActivationHistogram()), {}, ["`metric`", "one name or func"]),
        ((0.5, metrics.DeadUnits()), {}, ["`metric`", "sums for each unit", "'hoyer'"]),
        ((0.5, metrics.FiringRate(units=4)), {}, ["Received: metric=<FiringRate"]),
        ((0.5, metrics.lifetime_sparseness), {}, ["`metric`", "sums for each unit"]),
        (({"a": 0.5, "b": 0.6},), {"together": True}, ["`target`", "together=False"]),
        ((0.5,), {"actuator": ["q"]}, ["`actuator`", "Received: actuator=['q']"]),
        ((0.5,), {"actuator": "p"}, ["`actuator`", "q, rate, weight"]),
        ((0.5,), {"bounds": (4, 1)}, ["`bounds`", "Received: bounds=(4, 1)"]),
        ((0.5,), {"bounds": 3}, ["`bounds`", "Received: bounds=3"]),
        ((0.5,), {"bounds": (-1, 2)}, ["`bounds`", "within [0, 1e+06]"]),
        (
            (0.5,),
            {"bounds": (-1, 2), "actuator": "q"},
            ["`bounds`", "within [0.01, 100]. Received: bounds=(-1, 2)", "(1.0, 4.0)"],
        ),
        (
            (0.5,),
            {"bounds": (0, 2000), "actuator": "penalty"},
            ["the least and the largest penalty, rising and within [0, 1000]"],
        ),
        ((0.5,), {"bounds": (0, 1), "actuator": "threshold"}, ["within [0, 0.999]"]),
        ((0.5,), {"reach_by": 0}, ["`reach_by`", "> 0 and <= 1", "reach_by=0"]),
        ((0.5,), {"reach_by": 1.5}, ["`reach_by`", "Received: reach_by=1.5"]),
        ((0.5,), {"reach_by": True}, ["`reach_by`", "Received: reach_by=True"]),
        ((0.5,), {"reach_by": np.nan}, ["`reach_by`", "Received: reach_by=nan"]),
        ((0.5,), {"kind": "l2"}, ["`kind`", "'l1', 'hoyer_square'", "kind='l2'"]),
        ((0.5,), {"kind": np.ones(2)}, ["`kind`", "Received: kind="]),
        (
            (0.5,),
            {"kind": "l1", "actuator": "q"},
            ["`kind` is the kind of penalty", "kind='l1' with actuator='q'"],
        ),
        ((0.5,), {"every": 0}, ["`every`", "Received: every=0"]),
        ((0.5,), {"gain": 0}, ["`gain`", "Received: gain=0"]),
        ((0.5,), {"dead_band": -1}, ["`dead_band`", "Received: dead_band=-1"]),
        ((0.5,), {"dead_band": tf.constant(0.5)}, ["`dead_band`", "Leave it out"]),
        ((0.5,), {"max_dead": tf.constant(0.5)}, ["`max_dead`", "Leave it out"]),
        ((0.5,), {"actuator": np.ones(2)}, ["`actuator`", "q, rate, weight"]),
        ((0.5,), {"freeze_after": 0}, ["`freeze_after`", "Received: freeze_after=0"]),
        ((0.5,), {"max_dead": 2}, ["`max_dead`", "Received: max_dead=2"]),
        ((0.5,), {"together": 1}, ["`together`", "Received: together=1"]),
        ((0.5,), {"sample_size": 0}, ["`sample_size`", "Received: sample_size=0"]),
        ((0.5,), {"x": X[:0]}, ["`x`", "at least one sample"]),
    ],
)
def test_bad_arguments_say_what_to_do(args, kwargs, says):
    with pytest.raises(ValueError, match="Received") as error:
        SparsityController(*args, **kwargs)
    for words in says:
        assert words in str(error.value)


def test_probe_data_must_fit():
    with pytest.raises(
        ValueError, match="`x` must have the shape of the model's inputs"
    ):
        fit(classifier(), SparsityController(0.5, x=X[:, :5]))


def test_names_of_targets_are_those_of_layers():
    model = classifier(names=("first", "second"))
    for target, layers in (
        ({"f.*": 0.5}, None),
        ({"first": 0.5}, ["second"]),
        ({"first": 0.5, "second": 0.5}, ["second"]),
    ):
        with pytest.raises(ValueError, match="`target` must have one number for each"):
            fit(model, SparsityController(target, layers=layers))


def test_a_name_of_a_target_that_is_no_layer_is_told():
    model = classifier(names=("first", "second"))
    with pytest.raises(ValueError, match="`target` must have one number") as error:
        fit(model, SparsityController({"first": 0.5, "secnd": 0.5}))
    assert "where 'secnd' is no layer of the model" in str(error.value)
    assert "second" in str(error.value).split("The model has: ")[1]
