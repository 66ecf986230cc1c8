"""The first step of the example's CNN: tracing and compiling, each in a fresh process.

XLA compiles a program for each shape that a compiled layer sees. It dumps them in a
process of its own, where they are counted.
"""

from collections.abc import Iterable

from benchmarks.dumps import xla_dumps
from benchmarks.interleave import interleave
from benchmarks.models import (
    DROPOUT,
    EXAMPLE,
    NONE,
    REGULARIZERS,
    compiled_model,
    random_images,
)
from benchmarks.processes import Worker
from benchmarks.ratios import table_of_times
from benchmarks.report import Row, Table
from benchmarks.settings import OTHER, Settings
from benchmarks.timing import Spent, timed

BATCH_SIZE = 64


def first_step(kind: str) -> Spent:
    """Returns what the first training step takes."""
    x, y = random_images(BATCH_SIZE)
    model = compiled_model(EXAMPLE, kind)
    return timed(lambda: model.train_on_batch(x, y))


def run(settings: Settings) -> Iterable[Table]:
    """Yields the table of this suite."""
    kinds = [*REGULARIZERS][: 3 if settings.quick else None]
    where = f"{__name__}:first_step"

    def candidate(kind, folder):
        def in_fresh_process():
            with Worker(folder) as worker:
                return Spent(*worker.call(where, kind=kind))

        return in_fresh_process

    def programs(kind, folder):
        with xla_dumps(folder, where, kind=kind) as dumps:
            return len(list(dumps.glob("*before_optimizations.txt")))

    folders = {"": None}
    if settings.against:
        folders[OTHER] = settings.against
    runs = {
        kind + suffix: (kind, folder)
        for kind in kinds
        for suffix, folder in folders.items()
    }
    rounds_of = interleave(
        {name: candidate(*run) for name, run in runs.items()},
        settings.rounds_or(5),
        burn_in=1,
        title="first step",
    )
    title = f"{EXAMPLE}, first step of batch {BATCH_SIZE}"
    table = table_of_times(
        title,
        rounds_of,
        (DROPOUT,),
        targets={
            kind: ("first step", DROPOUT)
            for kind in kinds
            if kind not in (NONE, DROPOUT)
        },
    )
    rows = [
        Row(row.name, {**row.figures, "programs": programs(*runs[row.name])}, row.check)
        for row in table.rows
    ]
    yield Table(title, table.note, rows, rounds_of)
