"""Activations that come of weights or a loss that are not finite are never sparse."""

import dataclasses

import keras
import numpy as np
import pytest
from stepped import X, Y, fit, tracker

from keras_sparseout import (
    Sparseout,
    SparsityController,
    activation_sparsity,
    finite,
    watching,
)


class Block(keras.layers.Layer):
    """With a weight of its own before the layer in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = Sparseout(0.3, adjustable=True, name="drop", jit_compile=False)

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.drop.build(shape)

    def call(self, x, training=False):
        return self.drop(keras.ops.relu(self.scale * x), training=training)


def net():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "relu", name="a"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(5, "relu", name="b"),
            Block(name="block"),
            keras.layers.Dense(1, name="out"),
        ]
    )


def break_weight(model, path, value=np.nan):
    [weight] = [w for w in model.weights if w.path.endswith(path)]
    values = np.array(weight.numpy())
    values.flat[-1] = value
    weight.assign(values)
    return path.split("/")[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("path", "broken"),
    [
        ("a/kernel", {"a", "norm", "b", "block", "block/drop", "out"}),
        ("norm/moving_variance", {"norm", "b", "block", "block/drop", "out"}),
        ("block/scale", {"block", "block/drop", "out"}),
        ("out/bias", {"out"}),
    ],
)
def test_a_weight_breaks_its_layer_and_those_behind_it(path, broken, value):
    model = net()
    found = watching.find(model)
    assert finite.broken(model, found) == {}
    name = break_weight(model, path, value)
    cause = f"the weights of layer {name!r} are not finite"
    assert finite.broken(model, found) == dict.fromkeys(broken, cause)
    inputs = [dataclasses.replace(w, side="input") for w in found]
    assert set(finite.broken(model, inputs)) == broken - {name}
    loss = finite.broken(model, found, loss=np.float32(value))
    assert set(loss) == {w.name for w in found}
    assert all("the loss is" in cause for cause in loss.values())


def test_large_and_small_weights_are_finite():
    model = net()
    for layer, dtype in (("a", "float32"), ("b", "float32")):
        kernel = model.get_layer(layer).kernel
        kernel.assign(np.full(kernel.shape, np.finfo(dtype).max))
    assert finite.broken(model, watching.find(model)) == {}
    half = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, dtype="float16")])
    half.layers[0].kernel.assign(np.full((4, 4), np.finfo("float16").max))
    assert finite.broken(half, watching.find(half)) == {}


@pytest.mark.onednn
@pytest.mark.parametrize("compiled", [{}, {"jit_compile": True}])
def test_a_tracker_has_nan_and_says_why(compiled):
    names = ("zero_fraction", "dead_units", "firing_rate", "histogram")
    model = net()
    break_weight(model, "b/kernel")
    inside = tracker(layers=["a", "b", "block/drop"], metrics=names)
    probing = tracker(x=X, layers=["a", "b", "block/drop"], metrics=names)
    with pytest.warns(UserWarning, match="not finite|hold NaN|the loss is") as warned:
        fit(model, inside, probing, compiled=compiled, epochs=2)
    assert len([w for w in warned if "layer 'b' are not finite" in str(w.message)]) <= 2
    for t, prefix in ((inside, ""), (probing, "val_")):
        for name in ("b", "block/drop"):
            for metric in names[:3]:
                assert np.isnan(t.history[f"{prefix}{metric}/{name}"]).all()
            assert np.isnan(t.units[f"{prefix}firing_rate/{name}"]).all()
            histogram = t.histograms[f"{prefix}activations/{name}"]
            assert np.isnan(histogram.gini())
        assert np.isnan(t.history[f"{prefix}zero_fraction"]).all()


@pytest.mark.onednn
def test_layers_before_keep_their_figures():
    model = net()
    break_weight(model, "b/kernel")
    t = tracker(x=X, layers=["a", "b"], metrics="zero_fraction")
    model.compile("sgd", "mse")
    t.set_model(model)
    t.on_train_begin()
    t.on_epoch_begin(0)
    with pytest.warns(UserWarning, match="layer 'b'"):
        t.on_epoch_end(0)
    assert 0 < t.history["val_zero_fraction/a"][0] < 1
    assert np.isnan(t.history["val_zero_fraction/b"]).all()


@pytest.mark.onednn
@pytest.mark.parametrize("probe", [None, X])
def test_a_controller_stays_where_it_is(probe):
    model = net()
    break_weight(model, "b/kernel")
    layer = model.get_layer("block").drop
    controller = SparsityController(0.7, x=probe, every=1, verbose=0)
    with pytest.warns(UserWarning, match="not finite|hold NaN|the loss is"):
        fit(model, controller, epochs=2)
    assert np.isnan(controller.history["zero_fraction/block/drop"]).all()
    assert layer.q == 2
    assert controller._groups[0].loop.held is False


@pytest.mark.onednn
def test_a_table_has_nan_and_says_why():
    model = net()
    break_weight(model, "b/kernel")
    table = activation_sparsity(model, X)
    rows = {row["layer"]: row for row in table.rows}
    assert 0 < rows["a"]["zeros"] < 1
    for name in ("b", "block/drop"):
        for column in ("hoyer", "zeros", "dead", "rms", "needless_macs"):
            assert np.isnan(rows[name][column])
    said = "NaN, since the weights of layer 'b' are not finite: b, "
    assert any(note.startswith(said) for note in table.notes)
    assert not any("NaN or infinity" in note for note in table.notes)


@pytest.mark.onednn
def test_a_loss_that_is_not_finite_is_no_figure():
    y = Y.copy()
    y[0] = np.nan
    t = tracker(layers=["a"], metrics="zero_fraction")
    model = net()
    with pytest.warns(
        UserWarning, match="loss is nan, first seen in epoch 1.*of a are"
    ):
        fit(model, t, y=y, validation_data=(X[1:], Y[1:]), optimizer=Frozen())
    assert np.isnan(t.history["zero_fraction/a"]).all()
    assert np.isfinite(t.history["val_zero_fraction/a"]).all()


class Frozen(keras.optimizers.SGD):
    """Leaves the weights, whatever the gradients are."""

    def update_step(self, gradient, variable, learning_rate):
        pass
