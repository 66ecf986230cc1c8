"""The state of a loop as numbers, which a file keeps."""

import pytest

from keras_sparseout.callbacks.control.actuators import ACTUATORS
from keras_sparseout.callbacks.control.feedback_loop import FeedbackLoop
from keras_sparseout.callbacks.control.loop_state import LoopState


def loop(target):
    return FeedbackLoop(target, 2.0, ACTUATORS["q"], (0.5, 8.0))


def test_the_state_is_all_of_it():
    first, second = loop(0.7), loop(0.7)
    for figure in (0.5, 0.52, 0.55, 0.57, 0.6):
        first.update(figure)
    first.shift_setpoint(0.59)
    second.state = LoopState.from_numbers(first.state.numbers)
    for figure in (0.61, 0.64, 0.66, 0.69):
        assert second.update(figure) == first.update(figure)
    for controlled in (first, second):
        controlled.shift_setpoint(0.65)
    assert second.state == first.state


def test_the_state_of_an_earlier_version_begins_to_learn_anew():
    first = loop(0.7)
    for figure in (0.5, 0.52, 0.55):
        first.update(figure)
    state = LoopState.from_numbers(first.state.numbers[:12])
    assert state[:12] == first.state[:12]
    assert state.plant.weight == 0
    assert state.plant.lags[0].followed == state.output
    with pytest.raises(ValueError, match="there should be 39"):
        LoopState.from_numbers(first.state.numbers[:13])
