"""The study of accuracy against sparsity: its runs, a run, its table and picture."""

import matplotlib.image
import numpy as np
import pytest
import two_classes

from studies import frontier
from studies.frontier import Settings
from studies.parts import cnn_run


@pytest.fixture
def few_images(monkeypatch):
    data = [two_classes.images(*part, size=28) for part in ((0, 700), (1, 64), (2, 64))]
    monkeypatch.setattr(cnn_run.fashion_cnn, "load_data", lambda name: (data, 2))


def assert_needless(figures):
    """Asserts that the share of the whole model is that of its parts."""
    # The products of each layer with its inputs. A kernel of 3 finds 2 of its inputs
    # outside in each direction, and these are no products.
    images, block1 = (3 * 28 - 2) ** 2 * 32, (3 * 14 - 2) ** 2 * 32 * 64
    block2, hidden = 7**2 * 64 * 128, 128 * 2
    needless = (
        block1 * figures["needless block1"]
        + block2 * figures["needless block2"]
        + hidden * figures["needless hidden"]
    )
    whole = images + block1 + block2 + hidden
    # Few pixels of the images are 0.
    few = 0.02 * images / whole
    assert figures["needless"] == pytest.approx(needless / whole, abs=few)


def test_a_run_has_the_figures_of_what_it_trained(few_images):
    # Whole batches: XLA compiles for each shape.
    run = Settings("threshold + L1, target", 0.9, images=640, epochs=1)
    figures = frontier.run(run)
    assert {*cnn_run.HEADINGS.values()} < set(figures)
    assert_needless(figures)
    assert all(0 <= figures[f] <= 1 for f in figures if f != "rms")
    # Zeros are what is asked for, or more.
    assert figures["zeros"] > 0.88


def made_up(points, seeds=2):
    """Figures that tell the settings and seeds apart."""
    names = {*cnn_run.HEADINGS.values()}
    return {
        Settings(*point, seed=seed): dict.fromkeys(names, 0.1 * i + 0.01 * seed)
        for i, point in enumerate(points)
        for seed in range(seeds)
    }


POINTS = [
    ("Sparseout, q", 2.0),
    ("L1, weight", frontier.L1),
    ("Hoyer-square, weight", 0.001),
    ("threshold, target", 0.8),
    ("threshold + L1, target", 0.9),
]


def test_the_table_has_a_row_for_each_setting():
    done = made_up(POINTS)
    table = frontier.tables(done).splitlines()
    assert table[0] == (
        "| actuator | setting | seeds | Hoyer | zeros | dead | RMS | needless | "
        "test accuracy |"
    )
    # Of two values the interval is 12.706 times half of what they differ by.
    cells = " | ".join(["0.205 ± 0.064"] * 6)
    assert table[4] == f"| Hoyer-square, weight | 0.001 | 2 | {cells} |"
    assert len(table) == 2 + len(POINTS)
    silent = made_up(POINTS[:1], seeds=1)
    silent[Settings(*POINTS[0])]["hoyer"] = None
    assert "| 2 | 1 | - | 0.000 | 0.000 |" in frontier.tables(silent)


def test_curves_start_at_what_a_setting_of_0_is(monkeypatch, tmp_path):
    drawn, draw = [], frontier.plots.frontier

    def drawing(rows, **labels):
        drawn.extend(rows)
        # To place the labels of all takes a second.
        return draw(rows[:2], **labels)

    monkeypatch.setattr(frontier.plots, "frontier", drawing)
    frontier.draw(made_up(POINTS), tmp_path)
    accuracy = {(p["actuator"], p["setting"]): p["accuracy"] for p in drawn}
    dropout, l1 = accuracy["Sparseout, q", 2], accuracy["L1, weight", frontier.L1]
    assert dropout != l1
    assert accuracy["L1, weight", 0] == dropout
    assert accuracy["Hoyer-square, weight", 0] == dropout
    assert accuracy["threshold, target", 0] == dropout
    assert accuracy["threshold + L1, target", 0] == l1
    assert len(drawn) == len(POINTS) + 4
    assert matplotlib.image.imread(tmp_path / "frontier.png").std() > 0


def test_the_penalties_hide_nothing_from_the_measures():
    """At inference the place is the activations before it, as with Sparseout."""
    place = frontier.penalty(0.1, 0.3, "block1", "l1")
    x = np.array([[3.0, 0.0, -1.0]], "float32")
    assert place(x, training=False).numpy().tolist() == x.tolist()
    assert [round(float(loss), 6) for loss in place.losses] == [0.4]
    assert place.name == "block1"


def test_what_the_thresholds_cut_is_measured():
    """At inference the place is the activations behind the threshold."""
    place = frontier.threshold(0.5, 0.3, "block1", weight=0.1)
    x = np.array([[3.0, 0.0, -1.0]], "float32")
    assert place(x, training=False).numpy().tolist() == x.tolist()
    assert [round(float(loss), 6) for loss in place.losses] == [0.4]
    place.get_layer(index=1).threshold.assign(2.0)
    assert place(x, training=False).numpy().tolist() == [[3, 0, 0]]
    assert place.name == "block1"
    alone = frontier.threshold(0.5, 0.3, "block2")
    assert alone(x, training=False).numpy().tolist() == x.tolist()
    assert alone.losses == []
