"""Which samples of a batch tell how hard the loss pushes a layer."""

import keras
import numpy as np
import pytest
from pushed import Pushing

from keras_sparseout.callbacks.control import penalty_push


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 64, 1000])
def test_rows_that_are_measured_are_spread_over_the_batch(size):
    rows = np.asarray(penalty_push._rows(np.zeros((size, 2)), 16))
    assert len(rows) == min(size, 16)
    if size <= 16:
        np.testing.assert_array_equal(rows, np.arange(size))
    else:
        # One in each part of the batch, and neither all even nor all odd.
        parts = np.array_split(np.arange(size), 16)
        assert all(row in part for row, part in zip(rows, parts, strict=True))
        assert 0 < np.mean(rows % 2) < 1


@pytest.mark.parametrize("many", [5000, 2**40])
def test_a_number_above_all_samples_means_all(many):
    rows = np.asarray(penalty_push._rows(np.zeros((20, 2)), many))
    np.testing.assert_array_equal(rows, np.arange(20))


def test_many_rows_are_spread_too():
    rows = np.asarray(penalty_push._rows(np.zeros((12_000, 2)), 5000))
    assert (np.diff(rows) > 0).all()
    assert len(rows) == 5000
    assert rows[-1] > 11_990


@pytest.mark.parametrize("weights", [[0] * 8 + [1] * 8, [1, 0] * 8, [0, 1] * 8])
def test_samples_without_a_loss_do_not_hide_that_of_others(weights):
    hidden = keras.layers.Dense(9, "relu", name="hidden")
    model = keras.Sequential([keras.Input((5,)), hidden, keras.layers.Dense(1)])
    pushing = Pushing("hidden", samples=8)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    options = {"callbacks": [pushing], "shuffle": False, "verbose": 0}
    x = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
    model.fit(x, x[:, :1], batch_size=16, sample_weight=np.float32(weights), **options)
    assert pushing.norms()[0] > 0
