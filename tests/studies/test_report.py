"""Reports: what they say, and how they are compared with the runs."""

import errno
import os
import shlex
from pathlib import Path

import pytest

from studies import __main__ as command
from studies.runner.results import Results
from studies.runner.study import Study, names

COINS = str(Path(__file__).parents[1] / "data" / "studies" / "coins.py")
REPORT = "2 of 4 runs of version 3.\n\n1 0 1.25\n1 1 1.75\n"


@pytest.fixture
def folder(tmp_path):
    study = Study(COINS)
    results = Results(study, tmp_path)
    for seed in (1, 0):
        figures = {"sum": 1.25 + seed / 2}
        settings = study.module.Settings(1.0, seed=seed)
        results.add(settings, {"figures": figures, "seconds": 60.0})
    return tmp_path


def studies(*arguments):
    return command.main([*map(str, arguments)])


def test_the_report_is_made_from_the_runs(folder, capsys):
    assert studies("report", COINS, "--results", folder) == 0
    assert (folder / "report.md").read_text() == REPORT
    assert (folder / "coins.png").read_text() == "2"
    assert capsys.readouterr().out == (f"Written into {folder}: report.md, coins.png\n")
    assert studies("report", "--check", COINS, "--results", folder) == 0


def test_a_failed_run_is_in_the_report(folder):
    study = Study(COINS)
    settings = study.runs({}, {})[-1]
    Results(study, folder).add(
        settings, {"error": f"OSError: \nno{' more' * 99}", "traceback": ""}
    )
    studies("report", COINS, "--results", folder)
    line = f"Failed: `{study.digest(settings)}`, OSError: no{' more' * 37} mor\n"
    assert line in (folder / "report.md").read_text()


def test_a_report_that_is_not_what_the_runs_give_is_found(folder, capsys):
    check = ("report", COINS, "--results", folder, "--check")
    assert studies(*check) == 2
    assert "report.md must be there. Write it" in capsys.readouterr().err
    studies("report", COINS, "--results", folder)
    (folder / "report.md").write_text(REPORT.replace("1.75", "1.76"))
    assert studies(*check) == 2
    error = capsys.readouterr().err
    assert "report.md must be what its runs give" in error
    assert "-1 1 1.76\n+1 1 1.75" in error


def test_a_report_that_cant_be_written_is_named_and_stays_as_it_was(
    folder, capsys, monkeypatch
):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "report.md").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    assert studies("report", COINS, "--results", folder) == 2
    error = f"No space left on device: '{folder}/report.md'"
    assert error in capsys.readouterr().err
    assert (folder / "report.md").read_text() == "before"
    assert len([*folder.iterdir()]) == 2


def test_a_report_of_a_folder_that_is_not_there_makes_none(tmp_path, capsys):
    none = tmp_path / "none"
    assert studies("report", COINS, "--results", none) == 2
    assert "must be a folder of runs that is there. Rec" in capsys.readouterr().err
    assert not none.exists()


def test_a_check_fails_at_runs_of_another_version(folder, capsys):
    studies("report", COINS, "--results", folder)
    path = next((folder / "runs").iterdir())
    path.write_text(path.read_text().replace('"version": 3', '"version": 2'))
    assert studies("report", COINS, "--results", folder, "--check") == 2
    assert "a run of coins, version 2" in capsys.readouterr().err


def test_the_studies_are_listed(capsys):
    assert studies() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert all(len(line.split()) > 3 for line in lines)


def test_the_forecast_says_what_is_missing(folder, capsys):
    assert studies(COINS, "--results", folder, "--forecast", "--jobs", "2") == 0
    out = capsys.readouterr().out.splitlines()
    # One run of q = 2 was made for it.
    assert out[1].split()[:6] == ["q", "=", "1", "2", "0", "60"]
    assert out[2].split()[:5] == ["q", "=", "2", "2", "1"]
    assert out[3].startswith("1 runs are missing: ")


def test_runs_are_listed_and_none_is_run(folder, capsys):
    study = Study(COINS)
    failure = {"error": "OSError: no", "traceback": ""}
    Results(study, folder).add(study.runs({}, {})[-1], failure)
    assert studies(COINS, "--results", folder, "--list") == 0
    done = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert done == ["done", "done", "missing", "failed"]


def test_the_command_of_the_report_is_of_the_same_runs(tmp_path, capsys):
    arguments = ("--set", "places=[]", "--tiny", "--results", tmp_path)
    assert studies(COINS, *arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"1 of 1 runs are in {tmp_path}. Now: python -m studies ")
    assert studies(*shlex.split(out)[-7:]) == 0
    assert (tmp_path / "report.md").read_text().startswith("1 of 1 runs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "report must have the name of a study"),
        (["a", "b"], "NAME must be one study. Received: a b"),
        ([COINS, "--jobs", "0"], "--jobs must be at least 1. Received: 0"),
        ([COINS, "--retries", "-1"], "--retries must be at least 0. Received: -1"),
        ([COINS], "A file must have a folder of its own. Add --results DIR"),
        (["theory", "--check"], "--check must be of a report: python -m studies rep"),
        (["--tiny", "theory"], "Add --results DIR"),
        (["theory", "--set", "q=1"], "Add --results DIR"),
        (["report", "a", "b", "--results", "c"], "--results must be of one study"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        studies(*arguments)
    assert message in capsys.readouterr().err


def test_an_unknown_study_is_an_error_with_the_names(capsys):
    assert studies("theorie") == 2
    assert "NAME must be a study: " in capsys.readouterr().err
