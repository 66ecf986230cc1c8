"""Thresholds around the mode: where it is, and which bias makes up for it."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from sparsified import normal, outputs_of, run, thresholds

from keras_sparseout import sparsify
from keras_sparseout.models.thresholds import centring


def test_the_mode_is_where_values_are_dense():
    x = normal(20000, 1)
    gelu = x * np.array([0.5 * (1 + np.tanh(0.8 * v)) for v in x])
    sharp = np.where(np.arange(20000)[:, None] % 8, x, 0.75)
    values = np.concatenate([x + 3, gelu, sharp, np.full_like(x, 2)], axis=1)
    modes = centring.mode(values)
    # A tenth of a normal distribution is within .126 of its middle.
    assert modes[0] == pytest.approx(3, abs=0.3)
    assert -0.2 < modes[1] < -0.1  # The least value of the GELU is -.17.
    assert modes[2:] == pytest.approx([0.75, 2])
    values[:, 0] = np.nan
    values[100:, 1] = np.nan
    assert centring.mode(values)[0] == 0
    assert np.isfinite(centring.mode(values)).all()


def constant(layer, centre, shape):
    """What a layer makes of a constant input, and of 0."""
    x = np.broadcast_to(centre, (1, *shape)).astype("float32")
    return run(layer, x) - run(layer, np.zeros_like(x))


LAYERS = [
    (kl.Dense(4), (6,)),
    (kl.Dense(4), (5, 6)),
    (kl.EinsumDense("abc,cd->abd", (5, 4), bias_axes="d"), (5, 6)),
    (kl.EinsumDense("abc,cde->abde", (5, 4, 3), bias_axes="de"), (5, 6)),
    (kl.EinsumDense("abcd,cde->abe", (5, 3), bias_axes="e"), (5, 2, 6)),
    (kl.Conv1D(4, 3, strides=2), (9, 6)),
    (kl.Conv2D(4, 3, groups=2, dilation_rate=2), (7, 7, 6)),
    (kl.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 6)),
    (kl.SeparableConv1D(4, 3, depth_multiplier=2), (5, 6)),
]


@pytest.mark.parametrize(
    ("layer", "shape", "per_unit"),
    [(*case, True) for case in LAYERS] + [(*case, False) for case in LAYERS[3::3]],
)
def test_a_bias_makes_up_for_the_centre(layer, shape, per_unit):
    layer = type(layer).from_config(layer.get_config())
    layer.build((None, *shape))
    centre = normal(6, seed=3) if per_unit else np.float32(0.7)
    assert centring.can_fold(layer, per_unit=per_unit)
    made = constant(layer, centre, shape)
    x = normal(2, *shape)
    before = run(layer, x)
    centring.fold(layer, centre)
    np.testing.assert_allclose(run(layer, x - centre), before, atol=2e-5)
    # The response to a constant is what went into the bias.
    np.testing.assert_allclose(np.broadcast_to(layer.bias, made.shape), made, atol=2e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (kl.Dense(4, use_bias=False), (6,)),
        (kl.Conv2D(4, 3, padding="same"), (5, 5, 6)),
        (kl.Conv1D(4, 3, padding="causal"), (5, 6)),
        (kl.Conv2DTranspose(4, 3), (5, 5, 6)),
        (kl.EinsumDense("abc,cd->abd", (5, 4)), (5, 6)),
        (kl.EinsumDense("abc,bcd->abd", (5, 4), bias_axes="d"), (5, 6)),
        (kl.EinsumDense("...c,cd->...d", 4, bias_axes="d"), (5, 6)),
        (kl.LSTM(4), (5, 6)),
        (kl.BatchNormalization(), (6,)),
    ],
)
def test_where_no_bias_can(layer, shape):
    layer.build((None, *shape))
    assert not centring.can_fold(layer, per_unit=False)


def test_an_axis_that_the_product_keeps_needs_one_centre_for_all():
    layer = kl.EinsumDense("abc,bd->adc", (4, 6), bias_axes="d")
    layer.build((None, 5, 6))
    assert centring.can_fold(layer, per_unit=False)
    assert not centring.can_fold(layer, per_unit=True)


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            kl.Conv2D(8, 3, activation="gelu", name="first"),
            kl.Conv2D(8, 3, activation="gelu", name="valid"),
            kl.Conv2D(8, 3, padding="same", activation="relu", name="same"),
            kl.Flatten(),
            kl.Dense(3, name="head"),
        ]
    )


def test_the_model_is_the_same_but_for_what_is_cut():
    model, x = convolutional(), normal(150, 8, 8, 2)
    sparse, table = sparsify(model, x, 0.6, centre="mode", return_table=True, verbose=0)
    found = thresholds(sparse)
    folded, added = found["valid_threshold"], found["same_threshold"]
    assert folded.centre_value.numpy() < -0.1
    [values, others] = outputs_of(sparse, list(found)[:2], x)
    assert np.mean(values == 0) == pytest.approx(0.6, abs=0.003)
    is_centre = others == np.float32(added.centre_value.numpy())
    assert np.mean(is_centre) == pytest.approx(0.6, abs=0.003)
    notes = "\n".join(table.notes)
    assert "The bias has the centre: valid." in notes
    assert "added back, so that nothing becomes 0: same." in notes
    assert "Around 0, since that is the mode, or no bias can have it: head." in notes
    assert table.rows[1]["zeros_after"] < 0.01
    for layer in found.values():
        layer.start(0.0)
    np.testing.assert_allclose(run(sparse, x), run(model, x), atol=1e-5)


def test_with_a_budget_what_has_no_bias_is_cut_around_zero():
    model, x = convolutional(), normal(150, 8, 8, 2)
    sparse, table = sparsify(
        model, x, budget=0.6, centre="mode", return_table=True, verbose=0
    )
    assert 0.59 <= table.effective_macs / table.macs <= 0.6
    config = thresholds(sparse)["same_threshold"].get_config()
    assert config["centre"] is None
    assert "no bias can have it: same" in "\n".join(table.notes)
