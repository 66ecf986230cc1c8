"""What a run leaves: tables, targets, what is missing, files that are whole."""

import json

import pytest

from benchmarks import report as reports
from benchmarks.report import Report, Row, Table
from benchmarks.targets import TARGETS, Check, check
from benchmarks.timing import Spent


@pytest.fixture
def report():
    made = Report({"CPU": "a fast one", "keras": "3"}, "python -m benchmarks op")
    rows = [
        Row("keras Dropout", {"CPU ms": 123.456, "programs": 6}),
        Row("q=1", {"CPU ms": 0.01234}, check("op, special q", "q=1", 0.3)),
        Row("q=4", {"CPU ms": 1234.5}, check("op, other q", "q=4", 0.76)),
    ]
    missing = {"PyTorch": "ModuleNotFoundError:\nNo module named 'torch'"}
    rounds = {"q=1": [Spent(1, 2)]}
    made.add("op", Table("the table", "of the fastest", rows, rounds, missing))
    made.add("memory", Table("no target", "kept", [Row("calls", {"MB": -0.5})]))
    return made


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables_read_as_they_stand(report):
    lines = report.tables["op"][0].to_markdown().splitlines()
    assert lines[:4] == ["### the table", "", "of the fastest", ""]
    assert [cells(line) for line in lines[4:9] if "---" not in line] == [
        ["", "CPU ms", "programs", "target", "met"],
        ["keras Dropout", "123", "6", "", ""],
        ["q=1", "0.0123", "", "<= 0.400", "yes"],
        ["q=4", "1,234", "", "<= 0.750", "NO"],
    ]
    # Padded to one width.
    assert len({len(line) for line in lines[4:9]}) == 1


def test_targets_stand_in_one_table(report):
    [_, _, *lines] = report.targets_to_markdown().splitlines()
    assert [cells(line) for line in lines] == [
        [TARGETS["op, special q"].what, "q=1", "0.300", "<= 0.400", "yes"],
        [TARGETS["op, other q"].what, "q=4", "0.760", "<= 0.750", "NO"],
    ]
    assert lines[0] in report.to_markdown()
    empty = Report({}, "")
    assert empty.targets_to_markdown() == "No measured figure has a target."


def test_a_target_is_met_up_to_its_bound():
    target = TARGETS["op, special q"]
    assert Check(target, "row", target.at_most).met
    assert not Check(target, "row", target.at_most + 1e-9).met


def test_what_is_missing_is_said_everywhere(report):
    said = "- PyTorch: ModuleNotFoundError: No module named 'torch'"
    assert said in report.tables["op"][0].to_markdown()
    assert report.to_markdown().count(said) == 2
    assert "PyTorch" in json.loads(report.to_json())["missing"]


def test_the_machine_the_command_and_a_quick_run_are_said(report):
    assert "python -m benchmarks op" in report.to_markdown()
    assert "a fast one" in report.to_markdown()
    assert "quick run" not in report.to_markdown()
    report.quick = True
    assert "quick run" in report.to_markdown()


def test_json_has_the_rounds_and_the_verdicts(report):
    read = json.loads(report.to_json())
    assert read["machine"]["keras"] == "3"
    [table] = read["suites"]["op"]
    assert table["rounds"] == {"q=1": [{"cpu": 1, "wall": 2}]}
    assert table["rows"][1]["target"] == read["targets"][0]
    assert [target["met"] for target in read["targets"]] == [True, False]
    assert read["targets"][1]["measured"] == 0.76
    assert read["targets"][1]["at_most"] == 0.75


def test_files_are_replaced_as_a_whole(report, tmp_path, monkeypatch):
    table = Table("sizes", "", [Row("copy", {"2^12": 1.0})], picture=b"PNG")
    report.add("op", table)
    report.write(tmp_path)
    names = {"results.json", "results.md", "sizes.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "sizes.png").read_bytes() == b"PNG"
    before = (tmp_path / "results.json").read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(reports.os, "chmod", fail)
    report.quick = True
    with pytest.raises(OSError, match="disk is full"):
        report.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_picture_of_an_earlier_run_goes(report, tmp_path):
    (tmp_path / "sizes.png").write_bytes(b"old")
    report.write(tmp_path)
    assert not (tmp_path / "sizes.png").exists()
