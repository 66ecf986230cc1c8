"""How the table of `activation_sparsity` and the pictures show themselves."""

import html.parser
import math
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from counted import rectified
from keras import layers as kl

from keras_sparseout import SparsityTracker, activation_sparsity
from keras_sparseout.summary.table import COLUMNS, SparsityTable

ROW = {
    "layer": "a",
    "kind": "Dense",
    "shape": (None, 3),
    "hoyer": 0.5,
    "zeros": 0.25,
    "dead": 0.0,
    "rms": 1.5,
    "needless_macs": None,
}


def table(names=("a", "b"), kinds=None, notes=()):
    kinds = {"Dense": (3.0, 4.0), "Conv2D": (1.0, 2.0)} if kinds is None else kinds
    return SparsityTable([{**ROW, "layer": name} for name in names], kinds, notes)


def test_it_is_its_text():
    expected = [
        "layer  kind   shape      hoyer  zeros   dead  rms  needless_macs",
        "a      Dense  (None, 3)  0.500  0.250  0.000  1.5              -",
        "b      Dense  (None, 3)  0.500  0.250  0.000  1.5              -",
        "4 of 6 multiply-accumulates a sample are effective (67 %)",
        "By kind: Dense 3 of 4, Conv2D 1 of 2.",
        "A note.",
    ]
    shown = table(notes=["A note."])
    assert str(shown).splitlines() == expected
    assert repr(shown) == str(shown)
    assert (shown.effective_macs, shown.macs) == (4, 6)
    assert "By kind" not in str(table(kinds={"Dense": (3.0, 4.0)}))
    assert "multiply-accumulates" not in str(table(kinds={}))


class Cells(html.parser.HTMLParser):
    """Reads tables: the cells by row, and whether each tag was closed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        else:
            self.text += data


@pytest.mark.parametrize("name", ["a", "<b>bold</b>", 'x & "y"', "<script>", "ä/ö"])
def test_html_has_the_same_cells_and_lines(name):
    shown = table([name, "last"], notes=[f"Not read: {name}."])
    cells = Cells(shown._repr_html_())
    assert not cells.open
    text = [["a", "Dense", "(None, 3)", "0.500", "0.250", "0.000", "1.5", "-"]] * 2
    assert cells.rows == [
        list(COLUMNS),
        [name, *text[0][1:]],
        ["last", *text[0][1:]],
    ]
    assert cells.text.strip().splitlines() == str(shown).splitlines()[3:]
    assert "<script" not in shown._repr_html_()


@pytest.mark.parametrize("count", [0, 1, 400])
def test_html_of_any_length_scrolls(count):
    text = table([f"layer_{i}" for i in range(count)])._repr_html_()
    assert len(Cells(text).rows) == count + 1
    assert text.startswith('<div style="max-height: ')
    assert "overflow: auto" in text


def test_pictures_show_themselves(tmp_path):
    figure = pytest.importorskip("matplotlib.figure")
    from keras_sparseout import plots

    history = {"val_hoyer/a": [0.4, 0.5], "val_hoyer/b": [0.2, 0.3], "q/a": [2, 1]}
    rows = [{"actuator": "q", "setting": 1, "sparsity": 0.5, "accuracy": 0.9}]
    pictures = [
        plots.sparsity(history),
        plots.heat_map(history),
        plots.control(history, {"a": 0.5}, metric="hoyer"),
        plots.frontier(rows),
        plots.histograms({"a": ([0.0, 1.0, 2.0], [3, 4])}),
    ]
    for picture in pictures:
        assert isinstance(picture, figure.Figure)
        png = picture._repr_png_()
        assert png.startswith(b"\x89PNG")
        size = np.frombuffer(png[16:24], ">u4")
        np.testing.assert_array_equal(size, picture.get_size_inches() * 100)
        assert re.fullmatch(r"<Figure size \d+x\d+ with \d+ Axes>", repr(picture))
        copy = pickle.loads(pickle.dumps(picture))
        assert isinstance(copy, figure.Figure)
        assert copy._repr_png_()[:24] == png[:24]
    pictures[0].savefig(tmp_path / "saved.png", dpi=50)
    saved = (tmp_path / "saved.png").read_bytes()
    np.testing.assert_array_equal(np.frombuffer(saved[16:24], ">u4")[0], 450)


@pytest.fixture
def warnings_of_retracing():
    """The lines that TensorFlow logs of functions that are traced too often."""

    class Kept(list):
        def filter(self, record):
            if "retracing" in record.getMessage():
                self.append(record.getMessage())
            return True

    kept = Kept()
    tf.get_logger().addFilter(kept)
    yield kept
    tf.get_logger().removeFilter(kept)


def measured(x, batch_size=None):
    model = keras.Sequential([keras.Input((4,), batch_size=batch_size), kl.ReLU()])
    return activation_sparsity(model, x)


def tracked(x):
    model = keras.Sequential([keras.Input((4,)), kl.ReLU()])
    model.compile("sgd", "mse")
    tracker = SparsityTracker(x, verbose=0)
    tracker.set_model(model)
    tracker.on_train_begin()


@pytest.mark.parametrize(
    "call",
    [measured, lambda x: measured(x, batch_size=2), tracked],
    ids=["table", "fixed batch size", "tracker"],
)
def test_many_models_in_a_row_are_no_reason_to_warn(call, warnings_of_retracing):
    for _ in range(6):
        call(rectified(6, 4))
    assert warnings_of_retracing == []


def test_the_check_for_warnings_sees_one(warnings_of_retracing):
    for number in range(6):
        tf.function(lambda x: x + number)(tf.ones(2))  # noqa: B023
    assert any("retracing" in line for line in warnings_of_retracing)


def test_none_of_a_number_is_not_a_number():
    frame = pytest.importorskip("pandas").DataFrame
    data = table().to_dataframe()
    assert isinstance(data, frame)
    assert math.isnan(data["needless_macs"][0])


def test_another_back_end_is_named(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"backend\(\)='jax'\. Start Python with"):
        measured(rectified(6, 4))
