"""The folder of runs: what is in it, and what does not belong there."""

import errno
import json
import os
from pathlib import Path

import pytest

from studies import __main__ as command
from studies.runner.results import Results, alone
from studies.runner.study import Study

COINS = str(Path(__file__).parents[1] / "data" / "studies" / "coins.py")
OUTCOME = {"figures": {"sum": 1 / 3}, "seconds": 2.0}


@pytest.fixture(scope="module")
def study():
    return Study(COINS)


@pytest.fixture
def results(study, tmp_path):
    results = Results(study, tmp_path)
    results.add(study.module.Settings(1.0), OUTCOME)
    return results


def only_file(results):
    (path,) = (results.folder / "runs").iterdir()
    return path


def test_a_run_is_one_file_and_comes_back(study, results, tmp_path):
    settings = study.module.Settings(1.0)
    again = Results(study, tmp_path)
    assert again.done == results.done == {settings: {"sum": 1 / 3}}
    assert again.seconds == {settings: 2.0}
    assert only_file(results).name == f"{study.digest(settings)}.json"
    others = [study.module.Settings(2.0), settings]
    assert again.of(others) == {settings: {"sum": 1 / 3}}


def test_a_failure_is_kept_until_the_run_is_finished(study, tmp_path):
    settings = study.module.Settings(1.0)
    results = Results(study, tmp_path)
    results.add(settings, {"error": "ValueError: no", "traceback": "..."})
    again = Results(study, tmp_path)
    assert again.failed[settings]["error"] == "ValueError: no"
    assert not again.done
    again.add(settings, OUTCOME)
    for each in (again, Results(study, tmp_path)):
        assert not each.failed
        assert settings in each.done


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"figures"', '"numbers"'),
        lambda text: text.replace('"q": 1.0', '"q": 1.5'),
        lambda text: text.replace('"settings"', '"setting"'),
        lambda text: "\0" + text,
        lambda text: text.replace('"q": 1.0', '"q": null'),
        lambda text: text.replace('"q": 1.0', '"q": "much"'),
        lambda text: text.replace('"figures"', '"error"'),
        lambda text: text.replace('"seconds": 2.0', '"seconds": "2"'),
    ],
)
def test_a_damaged_file_is_named_and_set_aside(study, results, tmp_path, damage):
    path = only_file(results)
    text = damage(path.read_text())
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path} must be a whole run"):
        Results(study, tmp_path, say=None)
    assert path.exists()
    lines = []
    again = Results(study, tmp_path, lines.append)
    assert not again.done
    assert lines == [
        f"{path} is damaged, or has another's name. It is now {path.stem}.damaged, and "
        "no run."
    ]
    assert path.with_suffix(".damaged").read_text() == text
    assert not path.exists()


def test_what_was_set_aside_before_stays(study, results, tmp_path):
    path, texts = only_file(results), ["1", "2", "3"]
    for text in texts:
        path.write_text(text)
        Results(study, tmp_path, say=lambda line: None)
    kept = [path.with_suffix(f".damaged{i}") for i in ("", ".2", ".3")]
    assert [each.read_text() for each in kept] == texts


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("study", "tosses", "a run of tosses, version 3"),
        ("version", 2, "a run of coins, version 2"),
        ("settings", {"q": 1.0, "p": 2}, "a run with the settings p, q"),
    ],
)
def test_runs_of_others_are_refused(study, results, tmp_path, field, value, message):
    path = only_file(results)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, field: value}))
    for say in (None, print):
        with pytest.raises(ValueError, match=f"coins, version 3.*{message}"):
            Results(study, tmp_path, say)
    assert path.exists()


def test_no_space_left_loses_nothing(study, results, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    settings = study.module.Settings(2.0)
    with pytest.raises(OSError, match=r"No space left on device. Make room") as error:
        results.add(settings, OUTCOME)
    monkeypatch.undo()
    # Nothing half, and what is finished is there.
    assert only_file(results).stem == study.digest(study.module.Settings(1.0))
    # The figures are in the message, and can be put where they belong.
    line, text = str(error.value).split(":\n", 1)
    Path(line.split()[-1]).write_text(text)
    assert settings in Results(study, tmp_path).done


def test_a_folder_is_of_one_process_at_a_time(results, tmp_path, capsys):
    with alone(tmp_path):
        assert command.main([COINS, "--results", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "no other process runs a study. Received: " in error
        # What runs nothing disturbs nothing.
        assert command.main([COINS, "--results", str(tmp_path), "--list"]) == 0
        assert command.main(["report", COINS, "--results", str(tmp_path)]) == 0
    with alone(tmp_path):
        pass


def test_a_folder_that_cant_be_written_to_is_found_before_any_run(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command.main([COINS, "--results", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert "--results must be a folder that can be written to." in printed.err
    assert f"Received: {tmp_path}/file, which fails with: File exists." in printed.err
    assert "coins: " not in printed.err
