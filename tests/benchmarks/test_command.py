"""The command refuses what it can't do, and keeps what it measured."""

import importlib.util
import json
import sys
import types

import pytest

from benchmarks import __main__ as command
from benchmarks.report import Row, Table
from benchmarks.suites import SUITES


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_an_unknown_suite_is_refused(capsys):
    error = error_of(capsys, "op", "ops", "layer")
    assert "a suite is one of op, step, recurrent," in error
    assert "Received: ops, layer" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: must be at least 1. Received: 0"),
        (["--elements", "-1"], "--elements: must be at least 1. Received: -1"),
        (["--against", "nowhere"], "in which there is no keras_sparseout"),
        (
            ["--release", "nowhere.py"],
            "--release: must be a file. Received: nowhere.py",
        ),
    ],
)
def test_a_bad_option_is_refused(capsys, arguments, message):
    assert message in error_of(capsys, *arguments)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="--out must be a folder that can be written"):
        command.main(["op", "--out", str(tmp_path / "file")])


def test_every_suite_is_there():
    names = "op step recurrent weights threshold tracker control memory compile import"
    assert list(SUITES) == names.split()
    for module in SUITES.values():
        assert importlib.util.find_spec(module), module


def test_what_was_measured_is_kept_if_a_suite_fails(tmp_path, capsys, monkeypatch):
    def run(settings):
        assert settings.rounds_or(9) == 2
        yield Table("the first", "", [Row("copy", {"CPU ms": 1.0})])
        raise RuntimeError("out of memory")

    monkeypatch.setitem(sys.modules, SUITES["op"], types.SimpleNamespace(run=run))
    with pytest.raises(RuntimeError, match="out of memory"):
        command.main(["op", "--quick", "--out", str(tmp_path)])
    assert "### the first" in capsys.readouterr().out
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["quick"] is True
    assert read["command"] == f"python -m benchmarks op --quick --out {tmp_path}"
    assert {"CPU", "cores", "AVX", "memory", "flags", "commit"} <= set(read["machine"])
    assert [table["title"] for table in read["suites"]["op"]] == ["the first"]


@pytest.mark.parametrize("tables", [0, 1])
def test_an_interrupted_run_says_what_is_kept(tmp_path, monkeypatch, tables):
    def run(settings):
        yield from [Table("the first", "", [Row("copy", {"CPU ms": 1.0})])] * tables
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, SUITES["op"], types.SimpleNamespace(run=run))
    with pytest.raises(SystemExit) as caught:
        command.main(["op", "--out", str(tmp_path)])
    kept = f"the tables above are in {tmp_path}" if tables else "no table"
    assert caught.value.code == f"\nInterrupted. Kept: {kept}."
    assert (tmp_path / "results.json").exists() == bool(tables)
