"""How often a controller reads in a run of a given length."""

import math
import types

import pytest

from keras_sparseout.callbacks.control.run_length import RunLength
from keras_sparseout.callbacks.progress import Progress

# What a callback in a `fit` has.
CALLBACK = types.SimpleNamespace(params=None, model=None)


def length(epochs, steps, every=None, **progress):
    of_run = Progress()
    of_run.begin_run()
    of_run.begin_epoch(progress.get("first", 0), CALLBACK)
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
    progress = Progress()
    progress.end_batch(999)  # Of an earlier run.
    progress.begin_run()
    for epoch in (10, 11, 12):
        progress.begin_epoch(epoch, CALLBACK)
        for batch in range(3 if epoch == 12 else 90):
            progress.end_batch(batch)
    later = RunLength(progress, None, {"epochs": 15})
    assert later.every == 4
    assert later.left == 3 * 90 - 3
    assert later.now == (1183, 5 * 23, pytest.approx(115 * (3 - 3 / 90) / 5), 4)


def test_a_first_epoch_of_unknown_length_is_taken_to_be_half_over():
    guesses = [length(6, None, batches=n).left + n for n in (0, 40, 83, 100, 700)]
    assert guesses == [1000, 1000, 1000, 1200, 8400]
    assert length(1, None, batches=300).left == 700
    assert length(36, None, first=30, epoch=30, batches=700).left == 8400 - 700
    assert length(None, None, batches=700).left == 1000


def test_epochs_before_the_initial_one_belong_to_no_run():
    run, later = length(5, 160, batches=40), length(105, 160, first=100, batches=40)
    assert later.every == run.every == 8
    assert later.left == run.left == 4 * 160 + 120
    assert later.now == run.now


def test_an_interrupted_run_goes_on_with_its_length():
    progress = Progress()
    progress.begin_run()
    for epoch, batches in ((3, 50), (4, 70)):
        progress.begin_epoch(epoch, CALLBACK)
        progress.end_batch(batches - 1)
    again = Progress()
    again.begin_run()
    again.begin_epoch(5, CALLBACK)
    assert again.mean_steps is None
    again.resume(*progress.after_epoch)
    progress.begin_epoch(5, CALLBACK)
    for run in (progress, again):
        assert (run.first, run.mean_steps) == (3, 60)
        run.end_batch(29)
        assert run.of_whole_run == 150
        run.begin_epoch(6, CALLBACK)
        assert run.mean_steps == 50


def test_outside_of_fit_nothing_is_known():
    run = RunLength(Progress(), None, None)
    assert run.every == 32
    assert run.left == 1000
    assert run.now.readings == math.inf
