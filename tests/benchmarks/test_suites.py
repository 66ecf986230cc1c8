"""Suites make their tables, and every target has a row. Nothing is timed."""

import contextlib
import importlib

import keras
import pytest
import tensorflow as tf
import two_classes

from benchmarks.settings import Settings
from benchmarks.suites import (
    control,
    first_step,
    import_time,
    memory,
    op,
    step,
    threshold,
    weights,
)
from benchmarks.targets import TARGETS
from benchmarks.timing import Spent


class EqualTurns:
    """Makes the candidates here, and says that each of them takes a second."""

    def __init__(self, settings, peers=False):
        self.settings = settings
        self.missing = {"PyTorch": "left out"} if peers else {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def measure(
        self,
        function,
        rounds,
        title="",
        burn_in=2,
        peers=None,
        only_here=(),
        **arguments,
    ):
        module, name = function.split(":")
        made = getattr(importlib.import_module(module), name)(**arguments)
        assert set(only_here) <= set(made)
        spent = {"none": 1, "keras Dropout": 2}
        return {n: [Spent(spent.get(n, 2), 1)] * rounds for n in made}


class EqualWorker:
    """A process in which all layers are alike."""

    def __init__(self, folder=None):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def call(self, function, **arguments):
        name = function.split(":")[1]
        if name == "kept_for_backward":
            return {name: [0, 4 * arguments["elements"]] for name in memory.LAYERS}
        return {"line": [1.0, 2, 0.5]}.get(name, [1.0, 1.0])


@contextlib.contextmanager
def dumps(folder, report):
    """The folder that XLA would leave."""
    for number in range(3):
        (folder / f"module_{number}.before_optimizations.txt").touch()
        file = folder / f"module_{number}.cpu-memory-usage-report.txt"
        file.write_text(f"Total bytes used: {number * 2**20} (of some)\n")
    yield folder


@pytest.fixture
def tables(monkeypatch, tmp_path):
    """All tables of the suites in which a figure has a target, and of imports."""
    for suite in (control, op, step, threshold, weights):
        monkeypatch.setattr(suite, "Turns", EqualTurns)
    for suite in (first_step, import_time, memory):
        monkeypatch.setattr(suite, "Worker", EqualWorker)
    for suite in (first_step, memory):
        monkeypatch.setattr(suite, "xla_dumps", lambda *_, **__: dumps(tmp_path, ""))
    # To load the example's takes a second.
    data = [two_classes.images(0, 64, size=28)] * 3
    monkeypatch.setattr(control.fashion_cnn, "load_data", lambda name: (data, 2))
    # Tensors of 2^26 elements are too large for a test.
    monkeypatch.setattr(op, "SIZES", [2**10, 2**12])
    monkeypatch.setattr(op, "BASE_SIZE", 2**10)
    settings = Settings(rounds=2, elements=2**12)
    suites = (control, op, step, threshold, weights, memory, first_step, import_time)
    return [table for suite in suites for table in suite.run(settings)]


def test_every_target_has_a_row_and_every_table_can_be_read(tables):
    checks = [row.check for table in tables for row in table.rows if row.check]
    assert {check.target for check in checks} == set(TARGETS.values())
    assert len({(check.target, check.row) for check in checks}) == len(checks)
    for table in tables:
        assert table.to_markdown().startswith(f"### {table.title}\n")
    measured = {check.measured for check in checks if check.target != TARGETS["sizes"]}
    assert measured == {1.0}
    assert any(table.picture for table in tables)
    [first] = [table for table in tables if "first step" in table.title]
    assert {row.figures["programs"] for row in first.rows} == {3}
    assert [table.missing for table in tables if table.missing] == 3 * [
        {"PyTorch": "left out"}
    ]


def test_what_is_kept_is_what_the_backward_pass_reads():
    x = tf.random.normal((8, 128))
    layers = {
        "nothing": op.halve_in_two_calls,
        "x": lambda x, training: x * x,
        "a mask": keras.layers.Dropout(0.5),
        "the gradient itself": lambda x, training: tf.identity(x),
    }
    read = {name: memory.bytes_kept(layer, x)[1] for name, layer in layers.items()}
    elements = 8 * 128
    assert read["nothing"] == read["the gradient itself"] == 0
    assert read["x"] == 4 * elements
    assert elements <= read["a mask"] <= elements + 16
