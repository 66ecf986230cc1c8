"""Copies of models of a user's own class compute, and train, as the models do."""

import keras
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


def functional(cls, **options):
    x = keras.Input((8,))
    return cls(x, L.Dense(2, name="d")(x), **options)


def in_order(cls, **options):
    layers = [keras.Input((8,)), L.Dense(2, name="d")]
    return cls(layers, **options)


@pytest.mark.parametrize(
    "model",
    [
        functional(Told, scale=3.0),
        functional(Named, power=2),
        in_order(InOrder, scale=3.0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_arguments_of_ones_own_are_those_of_the_config(model):
    new = copied(model)
    assert type(new) is type(model)
    assert_same_outputs(model, new, X)
    outer = keras.Sequential([keras.Input((8,)), model])
    assert_same_outputs(outer, copied(outer, f"{model.name}/d"), X)


def test_arguments_that_nothing_tells_are_an_error():
    with pytest.raises(ValueError, match="class Scaled, whose `__init__` takes more"):
        copied(functional(Scaled, scale=3.0))


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
    model.weight, model.kind = 0.5, "second"
    new = copied(model)
    assert_same_outputs(model, new, X)
    assert (new.weight, new.kind) == (0.5, "second")
