"""What is learned of a plant: the size, the sign and the lag of its answer."""

import math

import numpy as np
import pytest

from keras_sparseout.callbacks.control.plant_model import LAGS, PlantModel


def learned(size, lag, *, noise=0.0, drift=0.0, readings=150, seed=0):
    """The model of a plant with these properties, whose setting moves at random."""
    rng = np.random.default_rng(seed)
    model, followed = PlantModel.initial(0.0), 0.0
    outputs = np.repeat(rng.uniform(-0.7, 0.7, readings), 8)
    for n in range(readings):
        followed += (outputs[n] - followed) / lag
        figure = 0.5 + size * followed + drift * n + noise * rng.normal()
        model = model.after(outputs[n], figure)
    return model


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("size", [-0.2, 0.1])
def test_size_and_lag_are_found_in_spite_of_a_drift(size, lag):
    effect = learned(size, lag, drift=0.002).effect(-0.15)
    assert effect.lag == lag
    # The prior weighs a little.
    assert effect.size == pytest.approx(size, abs=0.02)
    assert effect.error < 0.01


def test_the_error_is_about_how_far_the_size_is_off():
    effects = [learned(0.1, 3, noise=0.01, seed=s).effect(-0.15) for s in range(40)]
    off = np.array([(effect.size - 0.1) / effect.error for effect in effects])
    # Noise of a figure comes in twice, up and down again: the error is too large.
    assert 0.2 < np.sqrt(np.mean(off**2)) < 1.5


def test_a_setting_that_does_not_move_tells_nothing():
    model = PlantModel.initial(0.3)
    assert model.effect(-0.15).error == math.inf
    for n in range(50):
        model = model.after(0.3, 0.5 + 0.01 * n)
    assert model.effect(-0.15).size == pytest.approx(-0.15)


def test_it_can_be_saved_as_numbers():
    model = learned(0.1, 3, noise=0.01)
    assert PlantModel.from_numbers(list(model.numbers())) == model
