"""What is run, what is run again, and what is left when something goes wrong."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from studies.runner import report, running
from studies.runner.local import run_local
from studies.runner.results import Results
from studies.runner.study import FOLDER, Study

COINS = str(Path(__file__).parents[1] / "data" / "studies" / "coins.py")
LOCAL = functools.partial(run_local, jobs=2)


@pytest.fixture(scope="module")
def study():
    return Study(COINS)


def run(study, results, runs=None, retries=0, runner=LOCAL):
    lister = running.lister(study, results, {}, False)
    if runs:
        lister = runs if callable(runs) else lambda: runs
    running.run_missing(study, results, lister, runner, retries, jobs=2)


def test_each_run_is_a_process_with_its_own_threads(study, tmp_path):
    results = Results(study, tmp_path)
    make = study.module.Settings
    runs = [make(1.0, ("a", "b")), make(1.0, threads=3)]
    run(study, results, runs)
    one, other = results.of(runs).values()
    assert one["places"] == ["a", "b"]
    assert (one["threads"], other["threads"]) == ("1", "3")
    assert len({one["process"], other["process"], os.getpid()}) == 3


def test_a_run_may_depend_on_others_and_none_is_repeated(study, tmp_path):
    results = Results(study, tmp_path)
    asked = []

    def runner(study, runs):
        asked.append(list(runs))
        for settings in runs:
            yield settings, {"figures": {"sum": settings.q + settings.seed}}

    run(study, results, runner=runner)
    assert [len(runs) for runs in asked] == [4, 1]
    assert asked[1] == [study.module.Settings(2.0, best=True)]
    run(study, Results(study, tmp_path), runner=runner)
    assert len(asked) == 2


def test_a_changed_study_finds_the_runs_that_others_depend_on(study, tmp_path):
    results = Results(study, tmp_path)
    changes = {"threads": 2}
    lister = running.lister(study, results, changes, False)

    def runner(study, runs):
        for settings in runs:
            yield settings, {"figures": {"sum": settings.q + settings.seed}}

    run(study, results, lister, runner=runner)
    assert len(results.done) == 5
    assert study.module.Settings(2.0, best=True, threads=2) in results.done
    # Its tables too look for settings of its own.
    text = report.text(study, results, lister(), changes)
    assert text.startswith("5 of 5 runs of version 3.\n\n1 0 1\n1 1 2\n2 0 2\n")


def test_a_run_that_fails_costs_only_itself(study, tmp_path):
    results = Results(study, tmp_path)
    make = study.module.Settings
    faults = ("raises", "killed", "exits", "returns nothing")
    runs = [*(make(1.0, fault=fault) for fault in faults), make(1.0)]
    run(study, results, runs)
    assert [*results.done] == [make(1.0)]
    raised, killed, left, empty = (results.failed[settings] for settings in runs[:4])
    assert raised["error"] == "RuntimeError: The coin is lost."
    assert "in run" in raised["traceback"]
    assert killed["error"] == "The process of the run ended by signal 9."
    assert left["error"] == "SystemExit: 0"
    assert "run() of coins must return a dict" in empty["error"]
    assert "Received: None" in empty["error"]


def test_figures_that_are_not_finite_are_none_in_json(study, tmp_path):
    results = Results(study, tmp_path)
    settings = study.module.Settings(1.0, fault="returns nan")
    run(study, results, [settings])
    (path,) = (tmp_path / "runs").iterdir()
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    expected = {"sum": 1.0, "parts": {"each": [None, None, 2]}}
    assert content["outcome"]["figures"] == results.done[settings] == expected


def test_what_a_run_prints_is_not_its_outcome(study, tmp_path, monkeypatch):
    # The disk for temporary files may be full: nothing of a run is there.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    settings = study.module.Settings(1.0, fault="prints")
    ((_, outcome),) = run_local(study, [settings])
    assert outcome["figures"]["sum"] == 1


def ended(process):
    """Whether a process is gone, or only waits for being counted."""
    command = Path(f"/proc/{process}/cmdline")
    return not command.exists() or not command.read_bytes()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_run_goes_on_without_the_study(study, tmp_path, how):
    arguments = ["--results", str(tmp_path), "--set", "fault=waits"]
    command = [sys.executable, "-m", "studies", COINS, *arguments]
    process = subprocess.Popen(
        [*command, "--set", f"folder={tmp_path}"],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        stderr=subprocess.DEVNULL,
    )
    mark = tmp_path / "waits"
    while not (mark.exists() and mark.read_text().endswith("\n")):
        time.sleep(0.01)
    process.send_signal(how)
    process.wait()
    for each in mark.read_text().split():
        for _ in range(1000):
            if ended(each):
                break
            time.sleep(0.01)
        assert ended(each)


def test_a_run_that_fails_is_tried_again_as_told(study, tmp_path):
    once = study.module.Settings(1.0, fault="killed once", folder=str(tmp_path))
    always = study.module.Settings(1.0, fault="raises")
    asked = []

    def runner(study, runs):
        asked.extend(runs)
        yield from run_local(study, runs)

    results = Results(study, tmp_path)
    run(study, results, [once, always], retries=1, runner=runner)
    assert asked == [once, always] * 2
    assert once in results.done
    assert always in results.failed


def test_one_run_of_each_kind_is_enough_for_a_forecast(study, tmp_path):
    results = Results(study, tmp_path)
    runs = study.runs({}, {})
    firsts = running.one_of_each_kind(study, results, runs)
    assert [settings.q for settings in firsts] == [1, 2]
    results.add(firsts[0], {"figures": {}, "seconds": 1.0})
    assert running.one_of_each_kind(study, results, runs) == firsts[1:]


def test_a_study_that_was_killed_goes_on(study, tmp_path):
    """All runs of the second start are those that the first one lacks."""
    command = [sys.executable, "-m", "studies", COINS, "--results", str(tmp_path)]
    path = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    process = subprocess.Popen(command, env=path, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("runs/*.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = Results(study, tmp_path).done
    assert 1 <= len(killed) < 5
    run(study, Results(study, tmp_path))
    done = Results(study, tmp_path).done
    assert len(done) == 5
    # The same process, so the same run.
    assert {s: f["process"] for s, f in done.items() if s in killed} == {
        s: f["process"] for s, f in killed.items()
    }
