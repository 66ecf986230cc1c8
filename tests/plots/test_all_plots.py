"""What the pictures share: files, Matplotlib, and histories that are refused."""

import importlib
import sys

import matplotlib
import pytest
from matplotlib import pyplot
from pictures import FEW, readings, rows

import keras_sparseout
from keras_sparseout import plots


def draw_each(plots, path=None):
    """Yields what draws a picture of each kind, by its name."""
    history = readings(FEW)
    yield "sparsity", lambda: plots.sparsity(history, path=path)
    yield "heat_map", lambda: plots.heat_map(history, path=path)
    targets = {"hidden": 0.5}
    yield "control", lambda: plots.control(history, targets, metric="hoyer", path=path)
    yield "histograms", lambda: plots.histograms({"a": ([0, 1], [1])}, path=path)
    few = rows(["q"], settings=(1, 2))
    yield "frontier", lambda: plots.frontier(few, path=path)


def test_all_kinds_are_drawn():
    assert {name for name, _ in draw_each(plots)} == set(plots.__all__)


def test_matplotlib_is_imported_when_needed(monkeypatch):
    loaded = [n for n in sys.modules if n.split(".")[0] == "matplotlib"]
    for name in loaded:
        # As if it were not installed.
        monkeypatch.setitem(sys.modules, name, None)
    for name in [n for n in sys.modules if n.startswith("keras_sparseout.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(keras_sparseout, "plots")
    fresh = importlib.import_module("keras_sparseout.plots")
    assert fresh is not plots
    for _, draw in draw_each(fresh):
        with pytest.raises(
            ImportError, match=r'pip install "keras_sparseout\[plots\]"'
        ):
            draw()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_a_path_is_written_and_no_figure_stays_open(tmp_path, suffix):
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix.lower()]
    path = tmp_path / f"picture{suffix}"
    for kind, draw in draw_each(plots, path):
        # All are written by one function, and this picture is the smallest.
        if suffix == ".png" or kind == "histograms":
            assert isinstance(draw(), matplotlib.figure.Figure)
            assert path.read_bytes().startswith(start)
            path.unlink()
    plots.histograms({"a": ([0, 1], [1])}, path=str(path))
    assert path.exists()
    assert pyplot.get_fignums() == []


def test_a_notebook_shows_a_figure_without_pyplot():
    figure = plots.histograms({"a": ([0, 1], [1])})
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["picture.bmp", "picture", 3, b"picture.png"])
def test_other_suffixes_are_refused(path):
    for _, draw in draw_each(plots, path):
        with pytest.raises(ValueError, match=r"`path` must end in \.png, \.svg, \.pdf"):
            draw()


@pytest.mark.parametrize(
    ("history", "metric", "says"),
    [
        ({}, "hoyer", ["`history`", "at least one epoch", "Received: history={}"]),
        ({"hoyer/a": []}, "hoyer", ["`history`", "at least one epoch"]),
        ([0.1], "hoyer", ["`history`", "Received: history=[0.1]", "Tracker"]),
        (
            {"val_hoyer/a": [1], "gini/a": [1]},
            "hoyr",
            ["`metric`", "hoyer, gini", "Received: metric='hoyr'", "mean 'hoyer'"],
        ),
        ({"val_hoyer/a": [1]}, "rms", ["metric='rms'", "Give one of these"]),
        ({"loss": [1]}, "hoyer", ["it has loss", "SparsityTracker"]),
        ({"hoyer/a": [1]}, None, ["Received: metric=None"]),
        ({"hoyer/a": [1], "hoyer/b": [1, 2]}, "hoyer", ["'hoyer/a'] with 1", "2 are"]),
        ({"hoyer/a": [1], "epoch": [1, 2, 3]}, "hoyer", ["with 1", "3 are expected"]),
        ({"val_hoyer/a": [], "epoch": [1]}, "hoyer", ["with 0, where 1 are expected"]),
        ({"hoyer/a": ["x"]}, "hoyer", ["history['hoyer/a']=['x']", "list of numbers"]),
        ({"hoyer/a": [[1]]}, "hoyer", ["history['hoyer/a']=[[1]]"]),
    ],
)
@pytest.mark.parametrize("draw", [plots.sparsity, plots.heat_map])
def test_a_history_that_cannot_be_drawn_says_why(draw, history, metric, says):
    with pytest.raises(ValueError, match="Received: ") as error:
        draw(history, metric)
    for part in says:
        assert part in str(error.value)
