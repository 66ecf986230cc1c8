"""The scales on which the controller moves its actuators."""

import pytest

from keras_sparseout.callbacks.control.actuators import ACTUATORS


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("q", (0.02, 0.5, 1.0, 2.0, 4.0, 50.0)),
        ("rate", (0.01, 0.3, 0.5, 0.99)),
        ("weight", (0.0, 1e-5, 1e-3, 0.1, 10.0)),
    ],
)
def test_scales_rise_and_turn_back(name, values):
    actuator = ACTUATORS[name]
    scales = [actuator.to_scale(value) for value in values]
    assert scales == sorted(scales)
    for value, scale in zip(values, scales, strict=True):
        assert actuator.from_scale(scale) == pytest.approx(value, rel=1e-9, abs=1e-12)
    low, high = actuator.limits
    assert low <= actuator.default_bounds[0] < actuator.default_bounds[1] <= high
