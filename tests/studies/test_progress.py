"""How long runs take, and what is shown of it."""

from pathlib import Path

import pytest

from studies.runner import running
from studies.runner.progress import Progress, clock, forecast, seconds_left
from studies.runner.results import Results
from studies.runner.study import Study

COINS = str(Path(__file__).parents[1] / "data" / "studies" / "coins.py")


@pytest.fixture
def study():
    return Study(COINS)


@pytest.fixture
def results(study, tmp_path):
    return Results(study, tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"),
        (0.4, "0 s"),
        (31, "31 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3569, "59 min"),
        (3571, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_a_length_of_time_is_said_as_it_is(seconds, text):
    assert clock(seconds) == text


def test_the_time_left_is_by_kind_and_not_less_than_the_longest_run(study, results):
    make = study.module.Settings
    assert seconds_left(study, results, [make(1.0)], 2) is None
    results.add(make(1.0), {"figures": {}, "seconds": 10.0})
    results.add(make(2.0), {"figures": {}, "seconds": 60.0})
    more = [make(1.0, seed=1), make(1.0, seed=2), make(2.0, seed=1)]
    assert seconds_left(study, results, more[:2], 2) == 10
    assert seconds_left(study, results, more, 2) == 60
    assert seconds_left(study, results, more, 1) == 80
    # Of another kind: the mean of all.
    assert seconds_left(study, results, [make(3.0)], 2) == 35
    assert seconds_left(study, results, [], 2) == 0


def test_a_run_that_failed_says_nothing_of_the_time(study, results, tmp_path):
    runs = study.runs({}, {})
    failure = {"error": "ValueError: no", "traceback": "", "seconds": 0.1}
    results.add(runs[0], failure)
    for each in (results, Results(study, tmp_path)):
        assert seconds_left(study, each, runs, 1) is None
        assert running.one_of_each_kind(study, each, runs) == [runs[0], runs[2]]
        assert forecast(study, each, runs, 1).endswith(
            "4 runs are missing: unknown, 1 at a time"
        )


def test_without_a_terminal_it_is_a_line_a_run(study, results, capsys):
    runs = study.runs({}, {})[:2]
    with Progress(study, results, 1) as progress:
        for settings in runs:
            missing = [run for run in runs if run not in results.done]
            progress.show(2, missing)
            progress.show(2, missing)
            results.add(settings, {"figures": {}, "seconds": 200.0})
        progress.show(2, [])
    assert capsys.readouterr().err == (
        "coins: 0 of 2 runs, unknown left\n"
        "coins: 1 of 2 runs, 3 min left\n"
        "coins: 2 of 2 runs\n"
    )
