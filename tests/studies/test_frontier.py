"""The study of accuracy against sparsity: its rows, table and picture."""

import csv
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def images(seed, count):
    """Images of two classes: bright at the top, or at the bottom."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(100, size=(count, 28, 28, 1)), rng.integers(2, size=count)
    x[y == 0, :14] += 150
    x[y == 1, 14:] += 150
    return x.astype("uint8"), y


@pytest.fixture
def study(monkeypatch):
    """The study on other images, with two settings."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import frontier

    data = images(0, 640), images(1, 64), images(2, 64)
    monkeypatch.setattr(frontier.fashion_cnn, "load_data", lambda name: (data, 2))
    few = {"Sparseout, q": (2,), "Hoyer-square, weight": (0.03,)}
    actuators = {name: (frontier.ACTUATORS[name][0], few[name]) for name in few}
    monkeypatch.setattr(frontier, "ACTUATORS", actuators)
    return frontier


def run(study, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["frontier.py", *map(str, arguments)])
    study.main()


def test_it_prints_a_table_and_writes_the_picture_and_the_rows(
    study, monkeypatch, tmp_path, capsys
):
    out = tmp_path / "frontier.png"
    run(study, monkeypatch, "--seeds", 1, "--epochs", 1, "--out", out, "--csv")

    rows = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [(row["actuator"], float(row["setting"])) for row in rows] == [
        ("Sparseout, q", 2),
        ("Hoyer-square, weight", 0.03),
    ]
    figures = np.array([[float(row[c]) for c in study.COLUMNS] for row in rows])
    assert ((figures >= 0) & (figures <= 1)).all()
    assert all(float(row[f"{c} std"]) == 0 for row in rows for c in study.COLUMNS)
    # That the penalty is in the loss.
    assert figures[1, 0] > figures[0, 0] + 0.02

    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert table[0] == "| actuator | setting | Hoyer | zeros | dead | test accuracy |"
    assert table[1] == "|---|---|---|---|---|---|"
    cells = [f"{value:.3f} ± 0.000" for value in figures[1]]
    assert table[3] == f"| Hoyer-square, weight | 0.03 | {' | '.join(cells)} |"
    assert len(table) == 4
    assert matplotlib.image.imread(out).std() > 0


def test_the_penalties_hide_nothing_from_the_measures(study):
    """At inference the place is the activations before it, as with Sparseout."""
    place = study.penalty(0.1, "block1", "l1")
    x = np.array([[3.0, 0.0, -1.0]], "float32")
    assert place(x, training=False).numpy().tolist() == x.tolist()
    assert [round(float(loss), 6) for loss in place.losses] == [0.4]
    assert place.name == "block1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", 0), "--seeds must be at least 1. Received: 0."),
        (("--epochs", -1), "--epochs must be at least 1. Received: -1."),
        (("--out", "a.jpg"), "in a folder that exists. Received: a.jpg."),
        (("--out", "no/a.png"), "in a folder that exists. Received: no/a.png."),
    ],
)
def test_bad_arguments_are_named_before_the_runs(
    study, monkeypatch, capsys, arguments, message
):
    with pytest.raises(SystemExit):
        run(study, monkeypatch, *arguments)
    assert message in capsys.readouterr().err
