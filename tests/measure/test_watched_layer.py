"""Where the units of a layer's activations are."""

import keras
import numpy as np
import pytest
from channels import ChannelsFirst
from keras import layers as kl

from keras_sparseout import (
    ActivationPenalty,
    Bridgeout,
    Sparseout,
    SparsityTracker,
    SpatialSparseout2D,
    TargetSparsity,
    activation_sparsity,
    metrics,
)
from keras_sparseout.measure.watched_layer import WatchedLayer

FIRST = {"data_format": "channels_first"}
LAST = {"data_format": "channels_last"}


@pytest.fixture
def channels_first():
    """Keras' own data format, as a configuration file sets it."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def axes(layer):
    """The dimension of the units of activations of each rank from 2 to 6."""
    watched = WatchedLayer("layer", layer, "output", False)
    return [watched.units_axis(rank) for rank in range(2, 7)]


NONE, ALL = [-1] * 5, [-1, 1, 1, 1, 1]
MAPS = [-1, -1, 1, 1, -1]  # Images and volumes.


@pytest.mark.parametrize(
    ("make", "expected", "under_channels_first"),
    [
        (kl.ReLU, NONE, MAPS),
        (lambda: kl.Activation("gelu"), NONE, MAPS),
        (lambda: kl.Dropout(0.5), NONE, MAPS),
        (lambda: Sparseout(0.5, 1.5), NONE, MAPS),
        (kl.Add, NONE, MAPS),
        # A layer's own data format comes first.
        (lambda: kl.Conv1D(2, 1, **FIRST), ALL, ALL),
        (lambda: kl.MaxPooling2D(**FIRST), ALL, ALL),
        (lambda: kl.MaxPooling2D(**LAST), NONE, NONE),
        (lambda: SpatialSparseout2D(0.5, **FIRST), ALL, ALL),
        (lambda: kl.Conv2D(2, 1), NONE, ALL),
        # These have their units last whatever comes before.
        (lambda: kl.Dense(2), NONE, NONE),
        (lambda: kl.EinsumDense("abc,cd->abd", (None, 2)), NONE, NONE),
        (lambda: kl.MultiHeadAttention(2, 2), NONE, NONE),
        (lambda: kl.LSTM(2), NONE, NONE),
        (lambda: ActivationPenalty(0.1), NONE, NONE),
        (lambda: TargetSparsity(0.5, axis=-1), NONE, NONE),
        # The dimension that is normalized.
        (lambda: kl.BatchNormalization(axis=1), ALL, ALL),
        (lambda: kl.BatchNormalization(axis=-3), [-1, -1, 1, 2, 3], [-1, -1, 1, 2, 3]),
        (kl.BatchNormalization, NONE, NONE),
        (lambda: kl.LayerNormalization(axis=(1, 2)), NONE, MAPS),
        # What is around another layer.
        (lambda: kl.SpectralNormalization(kl.Dense(2)), NONE, NONE),
        (lambda: Bridgeout(kl.Dense(2), 0.5), NONE, NONE),
        (lambda: Bridgeout(kl.Conv2D(2, 1, **FIRST), 0.5), ALL, ALL),
        # Behind the timesteps.
        (lambda: kl.TimeDistributed(kl.Dense(2)), NONE, NONE),
        (lambda: kl.TimeDistributed(kl.ReLU()), NONE, [-1, -1, -1, 2, 2]),
        (
            lambda: kl.TimeDistributed(kl.Conv2D(2, 1, **FIRST)),
            [-1, -1, 2, 2, 2],
            [-1, -1, 2, 2, 2],
        ),
    ],
)
def test_the_dimension_of_the_units(make, expected, under_channels_first, request):
    assert axes(make()) == expected
    request.getfixturevalue("channels_first")
    assert axes(make()) == under_channels_first


@pytest.mark.parametrize(("sequences", "axis"), [(True, 2), (False, 1)])
def test_maps_of_a_recurrent_convolution_are_behind_the_timesteps(sequences, axis):
    layer = kl.ConvLSTM2D(2, 1, return_sequences=sequences, **FIRST)
    shape = layer.compute_output_shape((None, 5, 3, 4, 4))
    watched = WatchedLayer("layer", layer, "output", False)
    assert watched.units_axis(len(shape)) == axis
    assert shape[axis] == 2
    both = WatchedLayer("layer", kl.Bidirectional(layer), "output", False)
    assert both.units_axis(len(shape)) == axis
    assert WatchedLayer("layer", layer, "input", False).units_axis(5) == 2


def images(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def measured(layers, x, **options):
    """The figures of the layers named "a" in a training run that changes nothing."""
    end = [kl.Reshape((-1,)), kl.Dense(1)]
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers, *end])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    tracker = SparsityTracker(
        layers="a", metrics=["hoyer", "firing_rate"], sample_size=len(x), **options
    )
    y = np.zeros((len(x), 1))
    model.fit(x, y, batch_size=len(x), verbose=0, callbacks=[tracker])
    return tracker.history["hoyer"], tracker.units["firing_rate/a"]


def test_figures_are_those_of_the_same_model_with_channels_last(channels_first):
    x = images(6, 3, 4, 5)
    hoyer, units = measured([kl.ReLU(name="a")], x)
    keras.config.set_image_data_format("channels_last")
    last = measured([kl.ReLU(name="a")], np.moveaxis(x, 1, -1))
    assert hoyer == pytest.approx(last[0], rel=1e-5)
    assert units.shape == (3,)
    np.testing.assert_allclose(units, last[1], rtol=1e-6)


def test_so_they_are_of_maps_for_each_timestep():
    x = images(6, 2, 3, 4, 5)

    def pooling(data_format):
        layer = kl.ZeroPadding2D(0, data_format=data_format)
        return [kl.TimeDistributed(layer, name="a")]

    hoyer, units = measured(pooling("channels_first"), x)
    last = measured(pooling("channels_last"), np.moveaxis(x, 2, -1))
    assert hoyer == pytest.approx(last[0], rel=1e-5)
    assert units.shape == (3,)
    np.testing.assert_allclose(units, last[1], rtol=1e-6)


def test_what_a_mask_covers_are_no_units():
    x = np.abs(images(6, 4, 4)) + 1
    x[:, 2:] = 0  # Padding.
    layers = [kl.Masking(), kl.BatchNormalization(axis=1, epsilon=0.0, name="a")]
    model = keras.Sequential([keras.Input((4, 4)), *layers])
    (row,) = activation_sparsity(model, x, layers="a").rows
    # At inference of a new layer it passes its input on.
    assert row["hoyer"] == pytest.approx(metrics.hoyer(x[:, :2]).mean(), 1e-5)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_the_output_of_the_model_is_left_out_with_channels_first(
    channels_first, run_eagerly
):
    inputs = keras.Input((3, 4, 5))
    end = ChannelsFirst(3, 1, activation="sigmoid", name="end")
    model = keras.Model(inputs, end(kl.ReLU(name="hidden")(inputs)))
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    tracker = SparsityTracker(metrics="hoyer")
    x = images(4, 3, 4, 5)
    model.fit(x, x, verbose=0, callbacks=[tracker])
    assert "hoyer/hidden" in tracker.history
    assert "hoyer/end" not in tracker.history


def test_the_summary_finds_what_multiplies_channels_first(channels_first):
    # The products are those of an operation behind layers without a data format.
    inputs = keras.Input((3, 4, 5))
    x = kl.ReLU(name="hidden")(inputs)
    x = kl.Dropout(0.5)(x)
    x = kl.Permute((2, 3, 1))(x)
    model = keras.Model(inputs, kl.Dense(7, name="end")(x))
    data = images(6, 3, 4, 5)
    table = activation_sparsity(model, data, layers="hidden")
    (row,) = table.rows
    assert row["shape"] == (4, 5, 3)
    assert row["needless_macs"] == pytest.approx(np.mean(data <= 0))
