"""`import keras_sparseout` after `import keras`, each in a fresh process."""

import importlib
import statistics
from collections.abc import Iterable

from benchmarks.interleave import fastest, interleave, spread
from benchmarks.processes import Worker
from benchmarks.report import Row, Table
from benchmarks.settings import OTHER, Settings
from benchmarks.timing import Spent, timed


def import_package() -> Spent:
    """Returns what the import takes after that of Keras."""
    importlib.import_module("keras")
    return timed(lambda: importlib.import_module("keras_sparseout"))


def run(settings: Settings) -> Iterable[Table]:
    """Yields the table of this suite."""

    def candidate(folder):
        def in_fresh_process():
            with Worker(folder) as worker:
                return Spent(*worker.call(f"{__name__}:import_package"))

        return in_fresh_process

    name = "import keras_sparseout"
    candidates = {name: candidate(None)}
    if settings.against:
        candidates[name + OTHER] = candidate(settings.against)
    rounds_of = interleave(candidates, settings.rounds_or(9), burn_in=1, title="import")
    rows = []
    for name, rounds in rounds_of.items():
        cpu, wall = map(statistics.median, zip(*rounds, strict=True))
        figures = {
            "median CPU ms": 1e3 * cpu,
            "median wall ms": 1e3 * wall,
            "fastest CPU ms": 1e3 * fastest(rounds).cpu,
            "spread %": 100 * spread([spent.cpu for spent in rounds]) / cpu,
        }
        rows.append(Row(name, figures))
    note = (
        f"Of {len(rounds)} fresh processes. The spread is the distance between the "
        "quartiles of CPU time, in % of the median."
    )
    yield Table("import after keras", note, rows, rounds_of)
