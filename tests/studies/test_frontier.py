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
    """The study on other images, with three settings."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    import frontier

    data = images(0, 600), images(1, 64), images(2, 64)
    monkeypatch.setattr(frontier.fashion_cnn, "load_data", lambda name: (data, 2))
    few = {
        "Sparseout, q": (2,),
        "Hoyer-square, weight": (0.03,),
        "threshold + L1, target": (0.9,),
    }
    actuators = {name: (frontier.ACTUATORS[name][0], few[name]) for name in few}
    monkeypatch.setattr(frontier, "ACTUATORS", actuators)
    return frontier


def run(study, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["frontier.py", *map(str, arguments)])
    study.main()


def assert_needless(row):
    """Asserts that the share of the whole model is that of its parts."""
    # The products of each layer with its inputs. A kernel of 3 finds 2 of its inputs
    # outside in each direction, and these are no products.
    images, block1 = (3 * 28 - 2) ** 2 * 32, (3 * 14 - 2) ** 2 * 32 * 64
    block2, hidden = 7**2 * 64 * 128, 128 * 2
    needless = (
        block1 * row["needless block1"]
        + block2 * row["needless block2"]
        + hidden * row["needless hidden"]
    )
    whole = images + block1 + block2 + hidden
    # Few pixels of the images are 0.
    few = 0.02 * images / whole
    assert row["needless"] == pytest.approx(needless / whole, abs=few)


def test_it_prints_a_table_and_writes_the_picture_and_the_rows(
    study, monkeypatch, tmp_path, capsys
):
    out = tmp_path / "frontier.png"
    run(study, monkeypatch, "--seeds", 1, "--epochs", 1, "--out", out, "--csv")

    rows = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [(row["actuator"], float(row["setting"])) for row in rows] == [
        ("Sparseout, q", 2),
        ("Hoyer-square, weight", 0.03),
        ("threshold + L1, target", 0.9),
    ]
    figures = np.array([[float(row[c]) for c in study.COLUMNS] for row in rows])
    assert ((figures >= 0) & (figures <= 1)).all()
    assert all(float(row[f"{c} std"]) == 0 for row in rows for c in study.COLUMNS)
    for row in rows:
        assert_needless({key: float(row[key]) for key in row if "needless" in key})
    # That the penalty is in the loss.
    assert figures[1, 0] > figures[0, 0] + 0.02
    # Zeros are what is asked for, or more.
    assert figures[2, 1] > 0.88

    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    columns = "actuator | setting | Hoyer | zeros | dead | needless | test accuracy"
    assert table[0] == f"| {columns} |"
    assert table[1] == "|---|---|---|---|---|---|---|"
    cells = [f"{value:.3f} ± 0.000" for value in figures[1]]
    assert table[3] == f"| Hoyer-square, weight | 0.03 | {' | '.join(cells)} |"
    assert len(table) == 5
    assert matplotlib.image.imread(out).std() > 0


def test_runs_in_the_file_are_not_repeated(study, monkeypatch, tmp_path, capsys):
    arguments = ("--seeds", 2, "--epochs", 1, "--out", tmp_path / "a.svg")
    path, made = tmp_path / "runs.csv", []

    def made_up(data, classes, layer, seed, epochs):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append((layer("block1").name, seed, epochs))
        return dict.fromkeys(study.FIGURES, 0.1 * len(made))

    monkeypatch.setattr(study.cnn_run, "run", made_up)
    with pytest.raises(KeyboardInterrupt):
        run(study, monkeypatch, *arguments, "--runs", path)
    assert len(path.read_text().splitlines()) == 1 + 5
    made.clear()
    capsys.readouterr()
    run(study, monkeypatch, *arguments, "--runs", path)
    # The last of the six.
    assert made == [("block1", 1, 1)]
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert table[2].endswith("| 0.150 ± 0.050 |")
    # The fifth of the first study, and the first of the second.
    assert table[4].endswith("| 0.300 ± 0.200 |")
    # Another number of epochs is another run.
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        run(study, monkeypatch, *arguments, "--runs", path, "--epochs", 2)
    assert [epochs for _, _, epochs in made] == [2] * 5


def test_curves_start_at_what_a_setting_of_0_is(study, monkeypatch, tmp_path):
    drawn, frontier = [], study.plots.frontier

    def drawing(rows, **labels):
        drawn.extend(rows)
        return frontier(rows, **labels)

    monkeypatch.setattr(study.plots, "frontier", drawing)
    monkeypatch.setitem(study.ACTUATORS, "L1, weight", (None, (study.L1,)))
    monkeypatch.setitem(study.ACTUATORS, "threshold, target", (None, (0.8,)))
    settings = [
        (actuator, setting)
        for actuator, (_, settings) in study.ACTUATORS.items()
        for setting in settings
    ]
    columns = [*study.FIGURES, *(f"{column} std" for column in study.FIGURES)]
    rows = [
        {"actuator": actuator, "setting": setting} | dict.fromkeys(columns, 0.1 * i)
        for i, (actuator, setting) in enumerate(settings)
    ]
    study.draw(rows, "title", tmp_path / "a.png")
    accuracy = {(p["actuator"], p["setting"]): p["accuracy"] for p in drawn}
    dropout, l1 = accuracy["Sparseout, q", 2], accuracy["L1, weight", study.L1]
    assert dropout != l1
    assert accuracy["L1, weight", 0] == dropout
    assert accuracy["Hoyer-square, weight", 0] == dropout
    assert accuracy["threshold, target", 0] == dropout
    assert accuracy["threshold + L1, target", 0] == l1
    assert len(drawn) == len(rows) + 4


def test_the_penalties_hide_nothing_from_the_measures(study):
    """At inference the place is the activations before it, as with Sparseout."""
    place = study.penalty(0.1, "block1", "l1")
    x = np.array([[3.0, 0.0, -1.0]], "float32")
    assert place(x, training=False).numpy().tolist() == x.tolist()
    assert [round(float(loss), 6) for loss in place.losses] == [0.4]
    assert place.name == "block1"


def test_what_the_thresholds_cut_is_measured(study):
    """At inference the place is the activations behind the threshold."""
    place = study.threshold(0.5, "block1", weight=0.1)
    x = np.array([[3.0, 0.0, -1.0]], "float32")
    assert place(x, training=False).numpy().tolist() == x.tolist()
    assert [round(float(loss), 6) for loss in place.losses] == [0.4]
    place.get_layer(index=1).threshold.assign(2.0)
    assert place(x, training=False).numpy().tolist() == [[3, 0, 0]]
    assert place.name == "block1"
    alone = study.threshold(0.5, "block2")
    assert alone(x, training=False).numpy().tolist() == x.tolist()
    assert alone.losses == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", 0), "--seeds must be at least 1. Received: 0."),
        (("--epochs", -1), "--epochs must be at least 1. Received: -1."),
        (("--out", "a.jpg"), "in a folder that exists. Received: a.jpg."),
        (("--out", "no/a.png"), "in a folder that exists. Received: no/a.png."),
        (("--runs", "no/a.csv"), "in a folder that exists. Received: no/a.csv."),
        (("--runs", Path(__file__)), "--runs: "),
    ],
)
def test_bad_arguments_are_named_before_the_runs(
    study, monkeypatch, capsys, arguments, message
):
    with pytest.raises(SystemExit):
        run(study, monkeypatch, *arguments)
    assert message in capsys.readouterr().err
