"""The file that a study keeps its runs in."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN, FIGURES = ("q", 1.5, 0), {"a": 1 / 3, "b": 2.0}


@pytest.fixture
def open_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    from finished_runs import FinishedRuns

    return lambda path: FinishedRuns(path, ("actuator", "setting", "seed"), "ab")


def test_a_run_is_in_the_file_as_soon_as_it_is_added(open_runs, tmp_path):
    path = tmp_path / "runs.csv"
    runs = open_runs(path)
    assert RUN not in runs
    runs.add(RUN, FIGURES)
    assert path.read_text() == (
        "actuator,setting,seed,a,b\nq,1.5,0,0.3333333333333333,2.0\n"
    )
    again = open_runs(path)
    assert again[RUN] == runs[RUN] == FIGURES
    assert ("q", 1.5, 1) not in again
    again.add(("q", 1.5, 1), FIGURES)
    assert ("q", 1.5, 1) in open_runs(path)


def test_without_a_file_the_runs_are_kept_in_memory(open_runs):
    runs = open_runs(None)
    runs.add(RUN, FIGURES)
    assert runs[RUN] == FIGURES


def test_a_file_of_another_study_is_refused(open_runs, tmp_path):
    for text in ("", "x,y\n1,2\n"):
        path = tmp_path / "other.csv"
        path.write_text(text)
        with pytest.raises(ValueError, match="the columns of this study") as error:
            open_runs(path)
        assert "that does not exist yet" in str(error.value)
        assert path.read_text() == text


@pytest.mark.parametrize("line", ["q,1.5,0,0.3", "q,1.5,0,0.3,2.0,1", "q,1.5,0,0.3,x"])
def test_a_line_that_is_not_whole_is_named(open_runs, tmp_path, line):
    path = tmp_path / "runs.csv"
    open_runs(path).add(RUN, FIGURES)
    with open(path, "a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=r"Line 3 of .* must be a whole run") as error:
        open_runs(path)
    assert f"Received: {line}. Delete this line." in str(error.value)
