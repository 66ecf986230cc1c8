"""Tables of times: the fastest round of each candidate, beside that of others."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.interleave import fastest, spread
from benchmarks.report import Row, Table
from benchmarks.settings import OTHER
from benchmarks.targets import check
from benchmarks.timing import Spent

NAMES = {"cpu": "CPU", "wall": "wall"}
NOTE = (
    "Times and ratios are of the fastest round of each. Ratios compare {clock} times. "
    "The spread is the distance between the quartiles of {clock} time, in % of the "
    "fastest round."
)


def table_of_times(
    title: str,
    rounds_of: Mapping[str, Sequence[Spent]],
    bases: Sequence[str],
    *,
    targets: Mapping[str, tuple[str, str]] | None = None,
    label: str = "",
    per: int = 1,
    clock: str = "cpu",
    note: str = "",
    missing: Mapping[str, str] | None = None,
) -> Table:
    """A row a candidate, with its time as a multiple of what each of `bases` takes.

    Args:
        title: Heading of the table.
        rounds_of: What each round took, by name.
        bases: Names of the candidates that others are compared with. In the process of
            another checkout they are that process' own.
        targets: By row: the name of a target, and the base that it is about.
        label: What to call the comparison in the table of targets.
        per: Number of steps in a round. Times are those of one step.
        clock: Which time ratios compare, a field of `Spent`.
        note: What the reader of the figures has to know beside the usual.
        missing: What could not take part, with the reason.
    """
    targets = targets or {}
    rows = []
    for name, rounds in rounds_of.items():
        cpu, wall = (1e3 * seconds / per for seconds in fastest(rounds))
        times = [getattr(spent, clock) for spent in rounds]
        figures = {
            "CPU ms": cpu,
            "wall ms": wall,
            f"median {NAMES[clock]} ms": 1e3 * statistics.median(times) / per,
            "spread %": 100 * spread(times) / min(times),
        }
        for base in bases:
            figures[f"to {base}"] = ratio(rounds_of, name, base, clock)
        if name + OTHER in rounds_of:
            figures["to the other"] = ratio(rounds_of, name, name + OTHER, clock)
        verdict = None
        if name in targets:
            target, base = targets[name]
            verdict = check(
                target, f"{label} {name}".strip(), ratio(rounds_of, name, base, clock)
            )
        rows.append(Row(name, figures, verdict))
    note = f"{NOTE.format(clock=NAMES[clock])} {note}".strip()
    return Table(title, note, rows, rounds_of, missing or {})


def own(rounds_of: Mapping[str, object], name: str, base: str) -> str:
    """Returns the name of the base that ran in the same process as `name`, if any."""
    theirs = base + OTHER
    return theirs if name.endswith(OTHER) and theirs in rounds_of else base


def ratio(
    rounds_of: Mapping[str, Sequence[Spent]], name: str, base: str, clock: str = "cpu"
) -> float:
    """Returns the fastest time as a multiple of that of the base."""
    time, reference = (
        getattr(fastest(rounds_of[candidate]), clock)
        for candidate in (name, own(rounds_of, name, base))
    )
    return time / reference
