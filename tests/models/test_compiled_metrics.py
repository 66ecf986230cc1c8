"""Each output of a plain copy keeps its metrics, but for those of this package."""

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import X

import keras_sparseout as ks
from keras_sparseout.models import insert, strip

Y = X[:, :2] + 0.5


def mine(name="mine"):
    return ks.metrics.SampleMean(ks.metrics.hoyer, name=name)


def two_outputs():
    x = keras.Input((8,))
    h = ks.Sparseout(0.5)(x)
    return keras.Model(x, [L.Dense(2, name=name)(h) for name in "ab"])


def by_key():
    model = two_outputs()
    return keras.Model(model.input, dict(zip("ab", model.outputs, strict=True)))


def nested():
    x = keras.Input((8,))
    a, b, c = (L.Dense(2, name=name)(ks.Sparseout(0.5)(x)) for name in "abc")
    return keras.Model(x, {"x": [a, b], "y": c})


def one_output():
    x = keras.Input((8,))
    return keras.Model(x, L.Dense(2, name="a")(ks.Sparseout(0.5)(x)))


def scores(model):
    """The metrics of a model by name, without its losses, from one batch."""
    y = keras.tree.map_structure(lambda _: Y, model.output)
    found = model.test_on_batch(X, y, return_dict=True)
    return {name: value for name, value in found.items() if "loss" not in name}


def compiled(model, metrics, **options):
    model.compile("sgd", "mse", metrics=metrics, run_eagerly=True, **options)
    return model


@pytest.mark.parametrize(
    ("make", "metrics", "names"),
    [
        (two_outputs, [None, "mae"], {"b_mae"}),
        (two_outputs, ["mae", None], {"a_mae"}),
        (two_outputs, (None, ["mae", "mse"]), {"b_mae", "b_mse"}),
        (two_outputs, {"a": None, "b": "mae"}, {"b_mae"}),
        (by_key, [None, "mae"], {"b_mae"}),
        (nested, {"x": [None, "mae"], "y": None}, {"b_mae"}),
    ],
)
def test_an_output_without_metrics_has_none(make, metrics, names):
    model = compiled(make(), metrics)
    expected = scores(model)
    assert set(expected) == names
    assert scores(strip(model, verbose=0)) == pytest.approx(expected)
    new = insert(model, {ks.Sparseout: lambda layer: L.Activation("linear")})
    assert scores(new) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "metrics", "names"),
    [
        (two_outputs, lambda: [mine(), "mae"], {"b_mae"}),
        (two_outputs, lambda: ["mae", mine()], {"a_mae"}),
        (two_outputs, lambda: [["mae", mine()], [mine("m")]], {"a_mae"}),
        (two_outputs, lambda: [mine(), mine("m")], set()),
        (two_outputs, lambda: {"a": mine(), "b": [mine("m"), "mae"]}, {"b_mae"}),
        (by_key, lambda: [mine(), "mae"], {"b_mae"}),
        (by_key, lambda: {"a": [mine(), "mse"]}, {"a_mse"}),
        (
            nested,
            lambda: {"x": [mine(), "mae"], "y": [mine("m"), "mse", "mae"]},
            {"b_mae", "c_mae", "c_mse"},
        ),
        (one_output, lambda: [mine(), "mae"], {"mae"}),
        (one_output, lambda: {"a": mine()}, set()),
        (one_output, lambda: {"a": [mine(), "mae"]}, {"mae"}),
    ],
)
def test_metrics_of_this_package_leave_the_others_in_place(make, metrics, names):
    model = compiled(make(), metrics(), weighted_metrics=metrics())
    found = scores(strip(model, verbose=0))
    weighted = {name for name in found if name not in names}
    assert set(found) - weighted == names
    assert len(weighted) == len(names)
    y = keras.tree.map_structure(np.asarray, model(X))
    y = {path: own - Y for path, own in zip("abc", keras.tree.flatten(y), strict=False)}
    for name in names:
        output, _, kind = name.rpartition("_")
        error = np.abs(y[output or "a"]) ** (2 if kind == "mse" else 1)
        assert found[name] == pytest.approx(error.mean(), rel=1e-5)


class WithoutConfig(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1


def test_strip_prints_what_it_did_where_nothing_can_be_compiled(capsys):
    model = keras.Sequential([keras.Input((8,)), ks.Sparseout(0.5, name="drop")])
    optimizer = keras.optimizers.SGD(WithoutConfig())
    model.compile(optimizer, "mse", metrics=[mine()])
    with pytest.warns(UserWarning, match="is not compiled, since Keras"):
        plain = strip(model)
    assert not plain.compiled
    assert capsys.readouterr().out == "strip: removed drop\n"
