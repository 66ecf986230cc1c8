"""Figures of several batches, and the lines below the table."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from counted import rectified, rows
from keras import layers as kl

from keras_sparseout import activation_sparsity, metrics


def test_figures_are_those_of_the_metrics_over_all_batches():
    inputs = keras.Input((8, 8, 3))
    conv = kl.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    flat = kl.Flatten(name="flat")(kl.MaxPooling2D(name="pool")(conv))
    dense = kl.Dense(5, activation="relu", name="dense")(flat)
    model = keras.Model(inputs, kl.Dense(1, name="head")(dense))
    x = np.random.default_rng(0).normal(size=(30, 8, 8, 3)).astype("float32")
    table = rows(activation_sparsity(model, x, batch_size=7))
    assert list(table) == ["conv", "pool", "flat", "dense", "head"]
    seen = {n: keras.Model(inputs, model.get_layer(n).output)(x).numpy() for n in table}
    for name, activations in seen.items():
        row = table[name]
        each = metrics.Hoyer(), metrics.ZeroFraction()
        for metric in each:
            metric.update_state(activations)
        hoyer, zeros = (float(m.result()) for m in each)
        assert row["hoyer"] == pytest.approx(hoyer, rel=1e-5, nan_ok=True)
        assert row["zeros"] == pytest.approx(zeros)
        assert row["dead"] == pytest.approx(float(metrics.dead_units(activations)))
        assert row["rms"] == pytest.approx(float(metrics.rms(activations)), rel=1e-5)
        assert row["shape"] == activations.shape[1:]
        assert row["kind"] == type(model.get_layer(name)).__name__
    share = np.mean(seen["flat"] == 0)
    assert [table[n]["needless_macs"] for n in ("conv", "pool", "flat")] == (
        pytest.approx([share] * 3)
    )
    assert table["dense"]["needless_macs"] == pytest.approx(np.mean(seen["dense"] == 0))
    assert table["head"]["needless_macs"] is None
    whole = rows(activation_sparsity(model, x, axis=None, layers="conv"))
    hoyer = metrics.hoyer(seen["conv"].reshape(30, -1)).mean()
    assert list(whole) == ["conv"]
    assert whole["conv"]["hoyer"] == pytest.approx(float(hoyer), rel=1e-5)


def test_layers_whose_number_of_units_varies_are_left_out_and_said():
    def batches():
        # A number that comes back, and one that could be broadcast.
        for length in (5, 8, 8, 1):
            yield rectified(2, length, 4, seed=length)

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec((None, None, 4))
    )
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            kl.ReLU(name="relu"),
            kl.Permute((2, 1), name="turned"),
        ]
    )
    table = activation_sparsity(model, data)
    assert list(rows(table)) == ["relu"]
    zeros = np.mean([np.mean(x == 0, (1, 2)) for x in batches()])
    assert rows(table)["relu"]["zeros"] == pytest.approx(zeros)
    assert table.notes == [
        "Left out, since their number of units varies between batches: turned."
    ]
    with pytest.raises(ValueError, match=r"one number of units.*Received: turned"):
        activation_sparsity(model, data, layers="turned")


@pytest.mark.onednn
def test_nan_shows_in_the_row_and_a_note():
    model = keras.Sequential([keras.Input((4,)), kl.ReLU(name="relu"), kl.Dense(2)])
    x = rectified(5, 4)
    x[0, 0] = np.nan
    # What a ReLU makes of NaN is up to TensorFlow.
    table = activation_sparsity(model, x, layers=["relu"], where="input")
    assert math.isnan(rows(table)["relu"]["hoyer"])
    assert math.isnan(rows(table)["relu"]["rms"])
    assert table.notes == ["NaN or infinity among the activations of: relu."]


class Idle(kl.Layer):
    """It has layers that it does not call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.idle = [kl.ReLU(name=f"{i}") for i in range(9)]

    def call(self, x):
        return x


def test_lines_below_the_table_name_a_few_layers():
    inputs = keras.Input((3,))
    x = Idle(name="idle")(inputs)
    model = keras.Model(inputs, [kl.Dense(2, name=f"used_{i}")(x) for i in range(9)])
    table = activation_sparsity(model, np.full((4, 3), np.inf, "float32"))
    used = ", ".join(f"used_{i}" for i in range(7))
    idle = ", ".join(f"idle/{i}" for i in range(8))
    assert [note.split(": ")[1] for note in table.notes] == [
        f"idle, {used} and 2 more.",
        f"{idle} and 1 more.",
    ]
