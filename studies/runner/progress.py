"""How far a study is, and how long it still takes."""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from studies.runner.results import Results
from studies.runner.study import Study


def seconds_each(study: Study, results: Results) -> dict[str, float]:
    """Returns the mean seconds of a finished run, by kind; the mean of all as ""."""
    by_kind: dict[str, list[float]] = {}
    for settings, seconds in results.seconds.items():
        by_kind.setdefault(study.kind(settings), []).append(seconds)
        by_kind.setdefault("", []).append(seconds)
    return {kind: float(np.mean(each)) for kind, each in by_kind.items()}


def seconds_left(
    study: Study, results: Results, missing: Iterable[Any], jobs: int
) -> float | None:
    """Returns how long these runs take, None if none was ever finished."""
    each = seconds_each(study, results)
    if not each:
        return None
    known = [each.get(study.kind(settings), each[""]) for settings in missing]
    # The longest one takes its time, however many go on beside it.
    return max([sum(known) / jobs, *known])


def clock(seconds: float | None) -> str:
    """Returns a length of time as one says it."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min"
    )


class Progress:
    """A bar with the runs that are finished and the time that is left.

    Where there is no terminal, it is a line for each run that ends.
    """

    def __init__(self, study: Study, results: Results, jobs: int) -> None:
        self._study, self._results, self._jobs = study, results, jobs
        self._bar = tqdm(
            unit="run",
            desc=study.name,
            bar_format="{desc}: {n_fmt} of {total_fmt} |{bar:20}| {elapsed}{postfix}",
            disable=None,  # As it is no terminal.
        )
        self._line = ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, total: int, missing: Iterable[Any]) -> None:
        """Shows that of `total` runs these are missing."""
        missing = list(missing)
        seconds = seconds_left(self._study, self._results, missing, self._jobs)
        left = f"{clock(seconds)} left" if missing else ""
        if self._bar.disable:
            comma = ", " if left else ""
            self._print(f"{total - len(missing)} of {total} runs{comma}{left}")
            return
        self._bar.total, self._bar.n = total, total - len(missing)
        self._bar.set_postfix_str(left)

    def _print(self, line):
        if line != self._line:
            print(f"{self._study.name}: {line}", file=sys.stderr, flush=True)
        self._line = line

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        tqdm.write(line)


def forecast(study: Study, results: Results, runs: Iterable[Any], jobs: int) -> str:
    """Returns a table of the runs by kind: how many, and how long they take."""
    runs = list(runs)
    each = seconds_each(study, results)
    lines = [f"{'kind':<32} {'runs':>5} {'missing':>8} {'s each':>8} {'left':>12}"]
    for kind in dict.fromkeys(map(study.kind, runs)):
        of_kind = [settings for settings in runs if study.kind(settings) == kind]
        missing = [s for s in of_kind if s not in results.done]
        lines.append(
            f"{kind:<32} {len(of_kind):>5} {len(missing):>8} "
            f"{each.get(kind, float('nan')):>8.0f} "
            f"{clock(seconds_left(study, results, missing, jobs)):>12}"
        )
    missing = [settings for settings in runs if settings not in results.done]
    left = clock(seconds_left(study, results, missing, jobs))
    return "\n".join(
        [*lines, f"{len(missing)} runs are missing: {left}, {jobs} at a time"]
    )
