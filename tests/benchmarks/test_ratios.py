"""Times become multiples of what others take."""

import pytest

from benchmarks.ratios import own, ratio, table_of_times
from benchmarks.timing import Spent

# The process of the other checkout is twice as slow here.
ROUNDS = {
    "Dropout": [Spent(10, 5), Spent(12, 4)],
    "Dropout, other": [Spent(20, 10), Spent(21, 11)],
    "Sparseout": [Spent(6, 3), Spent(4, 3)],
    "Sparseout, other": [Spent(10, 5), Spent(30, 5)],
}


def test_what_another_checkout_takes_is_compared_within_its_process():
    assert own(ROUNDS, "Sparseout, other", "Dropout") == "Dropout, other"
    assert own(ROUNDS, "Sparseout", "Dropout") == "Dropout"
    assert own({"Dropout": []}, "Sparseout, other", "Dropout") == "Dropout"
    assert ratio(ROUNDS, "Sparseout, other", "Dropout") == 0.5


def test_ratios_are_of_wall_time_if_asked():
    table = table_of_times("title", ROUNDS, ("Dropout",), clock="wall")
    [row] = [row for row in table.rows if row.name == "Sparseout"]
    assert row.figures["to Dropout"] == 0.75
    assert row.figures["median wall ms"] == 3000
    assert row.figures["spread %"] == 0
    assert "Ratios compare wall times" in table.note


def test_a_table_has_times_ratios_and_verdicts():
    table = table_of_times(
        "title",
        ROUNDS,
        ("Dropout",),
        targets={"Sparseout": ("op, special q", "Dropout")},
        label="float32",
        per=2,
        missing={"PyTorch": "not there"},
    )
    figures = {row.name: row.figures for row in table.rows}
    assert list(figures) == list(ROUNDS)
    assert figures["Sparseout"] == pytest.approx(
        {
            "CPU ms": 2000,
            "wall ms": 1500,
            "median CPU ms": 2500,
            "spread %": 25,
            "to Dropout": 0.4,
            "to the other": 0.4,
        }
    )
    assert "to the other" not in figures["Sparseout, other"]
    [check] = [row.check for row in table.rows if row.check]
    assert check.row == "float32 Sparseout"
    assert check.measured == 0.4
    assert check.met  # At most .4.
    assert table.rounds == ROUNDS
    assert table.missing == {"PyTorch": "not there"}
