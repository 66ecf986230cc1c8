"""Copies of models of a user's own class compute, and train, as the models do."""

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import X, assert_same_outputs

from keras_sparseout.models import insert


def copied(model, place="d"):
    return insert(model, {place: lambda layer: L.GaussianNoise(0.1)})


class Scaled(keras.Model):
    def __init__(self, *args, **kwargs):
        scale = kwargs.pop("scale", 1.0)
        super().__init__(*args, **kwargs)
        self.scale = scale

    def call(self, *args, **kwargs):
        return super().call(*args, **kwargs) * self.scale


class Told(Scaled):
    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


class Named(keras.Model):
    def __init__(self, inputs, outputs, *, power=1, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.powers = [power]

    def call(self, *args, **kwargs):
        return super().call(*args, **kwargs) ** self.powers[0]

    def get_config(self):
        return {**super().get_config(), "power": self.powers[0]}


class InOrder(keras.Sequential):
    def __init__(self, *args, **kwargs):
        scales = [kwargs.pop("scale", 1.0)]
        super().__init__(*args, **kwargs)
        self.scales = scales

    def call(self, *args, **kwargs):
        return super().call(*args, **kwargs) * self.scales[0]

    def get_config(self):
        return {**super().get_config(), "scale": self.scales[0]}


class Doubled(keras.Model):
    def __init__(self, inputs, outputs, name=None):
        super().__init__(inputs, outputs, name=name)

    def call(self, *args, **kwargs):
        return super().call(*args, **kwargs) * 2


def functional(cls, **options):
    x = keras.Input((8,))
    return cls(x, L.Dense(2, name="d")(x), **options)


def in_order(cls, **options):
    layers = [keras.Input((8,)), L.Dense(2, name="d")]
    return cls(layers, **options)


@pytest.mark.parametrize(
    "model",
    [
        functional(Doubled),
        functional(Told, scale=3.0),
        functional(Named, power=2),
        in_order(InOrder, scale=3.0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_class_stays_with_the_arguments_of_its_config(model):
    new = copied(model)
    assert type(new) is type(model)
    assert_same_outputs(model, new, X)
    outer = keras.Sequential([keras.Input((8,)), model])
    assert_same_outputs(outer, copied(outer, f"{model.name}/d"), X)


class Untold(keras.Model):
    def __init__(self, inputs, outputs, power=1, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.power = power

    def call(self, *args, **kwargs):
        return super().call(*args, **kwargs) ** self.power


def test_arguments_that_nothing_tells_are_an_error():
    with pytest.raises(ValueError, match="class Untold, whose `__init__` takes more"):
        copied(functional(Untold, power=2))


class Listed(InOrder):
    def get_config(self):
        return keras.Sequential.get_config(self)


@pytest.mark.parametrize(
    "model",
    [functional(Scaled, scale=3.0), in_order(Listed, scale=3.0)],
    ids=lambda model: type(model).__name__,
)
def test_what_attributes_tell_needs_no_config(model):
    new = copied(model)
    assert type(new) is type(model)
    assert_same_outputs(model, new, X)


def test_copies_share_no_list():
    model = in_order(Listed)
    model.options = {"powers": [1, 2], "name": ("a", np.float32(3))}
    new = copied(model)
    assert new.options == {"powers": [1, 2], "name": ("a", 3)}
    new.options["powers"].append(3)
    assert model.options["powers"] == [1, 2]


class Wrong(InOrder):
    def get_config(self):
        return {**super().get_config(), "other": 1}


def test_arguments_that_the_class_does_not_take_are_named():
    with pytest.raises(ValueError, match=r"scale=\.\.\., other=\.\.\.\) raises"):
        copied(in_order(Wrong))


class Weighted(keras.Model):
    weight = 1.0

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("name", "weighted")
        super().__init__(*args, **kwargs)
        self.kind = "first"

    def call(self, *args, **kwargs):
        return super().call(*args, **kwargs) * self.weight


def test_numbers_and_strings_that_were_set_from_outside_stay():
    model = functional(Weighted)
    model.weight, model.kind = np.float32(0.5), "second"
    new = copied(model)
    assert_same_outputs(model, new, X)
    assert (new.weight, new.kind) == (0.5, "second")
