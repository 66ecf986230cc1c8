"""Figures are NaN, not sparse, where a weight or the loss is not finite."""

import dataclasses

import keras
import numpy as np
import pytest
from stepped import X, Y, fit, tracker

from keras_sparseout import Sparseout, SparsityController, activation_sparsity
from keras_sparseout.measure import layer_selection, non_finite


class Block(keras.layers.Layer):
    """With weights of its own before the layer in it, one of which it does not use."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = Sparseout(0.3, adjustable=True, name="drop", jit_compile=False)

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        # What it breaks shows in no activation, whatever TensorFlow does with NaN.
        self.add_weight(shape=(), trainable=False, name="unused")
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
        ("block/unused", {"block", "block/drop", "out"}),
        ("out/bias", {"out"}),
    ],
)
def test_a_weight_breaks_its_layer_and_those_behind_it(path, broken, value):
    model = net()
    found = layer_selection.all_layers(model)
    assert non_finite.invalid_layers(model, found) == {}
    name = break_weight(model, path, value)
    cause = f"the weights of layer {name!r} are not finite"
    assert non_finite.invalid_layers(model, found) == dict.fromkeys(broken, cause)
    inputs = [dataclasses.replace(w, side="input") for w in found]
    assert set(non_finite.invalid_layers(model, inputs)) == broken - {name}
    loss = non_finite.invalid_layers(model, found, loss=np.float32(value))
    assert set(loss) == {w.name for w in found}
    assert all("the loss is" in cause for cause in loss.values())


def test_large_and_small_weights_are_finite():
    model = net()
    for layer, dtype in (("a", "float32"), ("b", "float32")):
        kernel = model.get_layer(layer).kernel
        kernel.assign(np.full(kernel.shape, np.finfo(dtype).max))
    assert non_finite.invalid_layers(model, layer_selection.all_layers(model)) == {}
    half = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, dtype="float16")])
    half.layers[0].kernel.assign(np.full((4, 4), np.finfo("float16").max))
    assert non_finite.invalid_layers(half, layer_selection.all_layers(half)) == {}
    double = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, dtype="float64")]
    )
    double.layers[0].kernel.assign(np.full((4, 4), 1e300))
    assert non_finite.invalid_layers(double, layer_selection.all_layers(double)) == {}


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("path", "compiled"), [("b/kernel", {"jit_compile": True}), ("block/unused", {})]
)
def test_a_tracker_has_nan_and_says_why(path, compiled):
    names = ("zero_fraction", "dead_units", "firing_rate", "histogram")
    model = net()
    name = break_weight(model, path)
    inside = tracker(layers=["b", "block/drop"], metrics=names)
    probed = {name: name for name in names if name != "histogram"}
    probing = tracker(x=X, layers=["block/drop"], metrics=probed)
    with pytest.warns(UserWarning, match="not finite|contain NaN|loss is") as warned:
        # Batches of one size, each of which XLA would compile.
        fit(model, inside, probing, x=X[:16], y=Y[:16], compiled=compiled)
    if path == "block/unused":
        said = f"the weights of layer {name!r} are not finite, first seen in epoch 1. "
        assert sum(said in str(w.message) for w in warned) == 2
        assert 0 < inside.history["zero_fraction/b"][0] < 1
    for t, prefix in ((inside, ""), (probing, "val_")):
        for metric in ("zero_fraction", "dead_units", "firing_rate"):
            assert np.isnan(t.history[f"{prefix}{metric}/block/drop"]).all()
        assert np.isnan(t.units[f"{prefix}firing_rate/block/drop"]).all()
        assert np.isnan(t.history[f"{prefix}zero_fraction"]).all()
    assert np.isnan(inside.histograms["activations/block/drop"].gini())


@pytest.mark.onednn
@pytest.mark.parametrize("probe", [None, X])
def test_a_controller_stays_where_it_is(probe):
    model = net()
    break_weight(model, "block/unused")
    controller = SparsityController(0.7, x=probe, every=1, verbose=0)
    with pytest.warns(UserWarning, match="layer 'block' are not finite, so") as warned:
        fit(model, controller, epochs=2, compiled={"run_eagerly": True})
    assert sum("not finite" in str(w.message) for w in warned) == 1
    assert np.isnan(controller.history["zero_fraction/block/drop"]).all()
    assert model.get_layer("block").drop.q == 2


@pytest.mark.onednn
def test_a_table_has_nan_and_says_why():
    model = net()
    break_weight(model, "block/unused")
    table = activation_sparsity(model, X)
    rows = {row["layer"]: row for row in table.rows}
    assert 0 < rows["b"]["zeros"] < 1
    for name in ("block/drop", "out"):
        assert all(np.isnan(rows[name][c]) for c in ("hoyer", "zeros", "dead", "rms"))
    assert np.isnan(rows["block/drop"]["needless_macs"])
    said = "NaN, since the weights of layer 'block' are not finite: block/drop, out."
    assert said in table.notes
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
        fit(
            *(model, t),
            y=y,
            validation_data=(X[1:], Y[1:]),
            optimizer=Frozen(),
            compiled={"run_eagerly": True},
        )
    assert np.isnan(t.history["zero_fraction/a"]).all()
    assert np.isfinite(t.history["val_zero_fraction/a"]).all()


class Frozen(keras.optimizers.SGD):
    """Leaves the weights, whatever the gradients are."""

    def update_step(self, gradient, variable, learning_rate):
        pass
