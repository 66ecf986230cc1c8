"""How often a controller reads in a run of a given length."""

import math

import pytest

from keras_sparseout.callbacks.control.run_length import RunLength
from keras_sparseout.callbacks.progress import Progress


def length(epochs, steps, every=None, **progress):
    of_run = Progress()
    of_run.steps = steps
    for name, value in progress.items():
        setattr(of_run, name, value)
    return RunLength(of_run, every, {"epochs": epochs})


@pytest.mark.parametrize(
    ("epochs", "steps", "every"),
    [
        (8, 63, 4),
        (12, 44, 4),
        (6, 16, 1),
        (1, 100, 1),
        (100, 20, 20),
        (2, 3200, 32),
        (50, 500, 32),
        (None, 500, 32),
    ],
)
def test_readings_come_from_the_length_of_the_run(epochs, steps, every):
    run = length(epochs, steps)
    assert run.every == run.now.every == every
    readings = (epochs or math.inf) * math.ceil(steps / every)
    assert run.now.readings == readings
    assert readings >= min(100, (epochs or 1) * steps)


def test_what_the_user_gives_counts_in_longer_epochs():
    assert length(8, 63, every=50).every == 50
    assert length(8, 63, every=50).now.readings == 16
    assert length(8, 20, every=50).every == 20
    assert length(8, None, every=50).every == 50


def test_data_of_unknown_length_are_known_after_the_first_epoch():
    # At first as if each batch were the last one of the epoch.
    growing = [length(5, None, batches=n).every for n in (1, 19, 40, 85, 2000)]
    assert growing == [1, 1, 2, 4, 32]
    assert length(5, None, batches=85).now.readings == math.inf
    later = length(5, None, epoch=2, before=180, batches=3)
    assert later.every == 4
    assert later.now == (183, 5 * 23, pytest.approx(115 * (3 - 3 / 90) / 5), 4)


def test_outside_of_fit_nothing_is_known():
    run = RunLength(Progress(), None, None)
    assert run.every == 32
    assert run.now.readings == math.inf
