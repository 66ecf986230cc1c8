"""How the table of `sparsify` shows itself."""

import numpy as np

from keras_sparseout.models.thresholds.sparsify_table import COLUMNS, SparsifyTable


def table(metrics=None, notes=()):
    cells = [
        ("a", "Dense", 0.7, np.float32(0.25), 0.5, 0.7, 0.5, 0.7),
        ("b", "Conv2D", None, np.array([0, 0.5], "float32"), 0.0, 0.1, float("nan"), 1),
    ]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in cells]
    return SparsifyTable(rows, (4000.0, 3000.0, 1500.0), 0.0123, metrics or {}, notes)


def test_it_is_its_text():
    shown = table({"accuracy": (0.9, 0.875), "loss": (0.5, 0.75)}, ["A note."])
    assert str(shown).splitlines() == [
        "layer  kind    target  threshold  zeros_before  zeros_after  "
        "needless_before  needless_after",
        "a      Dense    0.700       0.25         0.500        0.700  "
        "          0.500           0.700",
        "b      Conv2D       -   0 to 0.5         0.000        0.100  "
        "              -           1.000",
        "Of 4.0 k multiply-accumulates a sample, 1.5 k (37.5 %) are effective, "
        "before 3.0 k (75.0 %).",
        "The outputs change by 0.0123 (relative square).",
        "accuracy 0.9000 before, 0.8750 after; loss 0.5000 before, 0.7500 after.",
        "A note.",
    ]
    assert repr(shown) == str(shown)


def test_it_shows_as_html_and_as_a_data_frame():
    shown = table(notes=["1 < 2"])
    text = shown._repr_html_()
    assert text.count("<tr>") == 3
    assert "0.700" in text
    assert "1 &lt; 2" in text
    frame = shown.to_dataframe()
    assert list(frame.columns) == list(COLUMNS)
    assert np.isnan(frame["target"][1])
    assert frame["zeros_after"][0] == 0.7


def test_its_figures():
    shown = table({"loss": (1.0, 2.0)})
    assert (shown.macs, shown.effective_macs_before, shown.effective_macs) == (
        4000,
        3000,
        1500,
    )
    assert shown.metrics == {"loss": (1.0, 2.0)}
    assert table().metrics == {}
    assert "multiply" not in str(SparsifyTable([], (0.0, 0.0, 0.0), 0.0, {}))
