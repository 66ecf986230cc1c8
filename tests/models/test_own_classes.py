"""Copies of models of a user's own class compute, and train, as the models do."""

import collections

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


class Ends(keras.Model):
    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs, L.Softmax()(outputs), **kwargs)


class EndsInOrder(keras.Sequential):
    def __init__(self, layers, **kwargs):
        super().__init__(layers, **kwargs)
        self.add(L.Softmax())


class Dict(keras.Model):
    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs, {"out": outputs}, **kwargs)


class Deep(keras.Sequential):
    def __init__(self, layers=2, **kwargs):
        super().__init__([keras.Input((8,))], **kwargs)
        for number in range(layers):
            self.add(L.Dense(4, name="d" if number == 0 else f"d{number}"))


class Sized(keras.Model):
    def __init__(self, inputs: int, outputs: int, **kwargs):
        x = keras.Input((inputs,))
        super().__init__(x, L.Dense(outputs, name="d")(x), **kwargs)


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        (functional(Ends), keras.Model),
        (in_order(EndsInOrder), keras.Sequential),
        (functional(Dict), keras.Model),
        (Deep(2), keras.Sequential),
        (Sized(8, 2), keras.Model),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_class_that_makes_its_own_graph_becomes_a_plain_model(model, plain):
    new = copied(model)
    assert isinstance(new, plain)
    assert type(new).__module__.startswith("keras.")
    assert len(new.layers) == len(model.layers) + 1
    assert_same_outputs(model, new, X)


class EndsInSteps(EndsInOrder):
    def train_step(self, *args):
        raise NotImplementedError


class SizedDoubled(Sized):
    def call(self, *args, **kwargs):
        return super().call(*args, **kwargs) * 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (in_order(EndsInSteps), "`train_step` .* changes the graph that it is given"),
        (
            SizedDoubled(8, 2),
            r"SizedDoubled\(inputs, outputs\) raises \w+: Cannot",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_where_a_plain_model_would_not_do_the_error_says_what_the_class_does(
    model, message
):
    with pytest.raises(ValueError, match=message):
        copied(model)


class Own(keras.losses.Loss):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.ops.mean((y_true - y_pred) ** 2, axis=-1)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Lossy(keras.Model):
    def __init__(self, *args, **kwargs):
        first, others = kwargs.pop("first", None), kwargs.pop("others", [])
        super().__init__(*args, **kwargs)
        self.first, self.others = first, others

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return self.first(y, y_pred) + sum(loss(y, y_pred) for loss in self.others)

    def get_config(self):
        write = keras.saving.serialize_keras_object
        own = {"first": write(self.first), "others": [*map(write, self.others)]}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        read = keras.saving.deserialize_keras_object
        config = {**config, "first": read(config["first"])}
        config["others"] = [*map(read, config["others"])]
        return super().from_config(config, custom_objects)


def test_objects_in_the_config_are_made_anew():
    others = [Own(3.0), keras.losses.MeanAbsoluteError()]
    model = functional(Lossy, first=Own(2.0), others=others)
    new = copied(model)
    assert new.first is not model.first
    assert new.first.factor == 2.0
    assert [type(loss) for loss in new.others] == [Own, keras.losses.MeanAbsoluteError]
    assert new.others[0].factor == 3.0
    y, y_pred = np.zeros((4, 2), "float32"), np.ones((4, 2), "float32")
    assert float(new.compute_loss(None, y, y_pred)) == 6.0
    new.compile("sgd")
    new.fit(X[:4], y, verbose=0)


class Counted(keras.Model):
    def __init__(self, *args, **kwargs):
        scale = kwargs.pop("scale", 1.0)
        super().__init__(*args, **kwargs)
        self.depth = len(self.layers)
        self.names = [layer.name for layer in self.layers]
        self.limit, self.scale = 10 * self.depth, scale
        self.layers[-1].trainable = False


class CountedInOrder(keras.Sequential):
    def __init__(self, layers, **kwargs):
        super().__init__(layers, **kwargs)
        self.depth = len(self.layers)
        self.names = [layer.name for layer in self.layers]
        self.limit = 10 * self.depth


def test_what_a_class_computes_from_its_layers_is_computed_anew():
    model = functional(Counted, scale=3.0)
    model.limit, model.layers[-1].trainable = 7, True
    new = copied(model)
    assert (new.depth, new.limit, new.scale) == (3, 7, 3.0)
    assert new.names == [layer.name for layer in new.layers]
    # The old model is as it was.
    assert (model.depth, model.layers[-1].trainable) == (2, True)
    model = in_order(CountedInOrder)
    model.limit = 7
    new = copied(model)
    assert (new.depth, new.limit) == (2, 7)
    assert new.names == [layer.name for layer in new.layers]


def test_a_named_tuple_does_not_become_another_type():
    model, kind = in_order(CountedInOrder), collections.namedtuple("Size", "a b")
    model.size, model.pair = kind(1, 2), (1, 2)
    new = copied(model)
    assert new.pair == (1, 2)
    assert not hasattr(new, "size")
