"""Comparing the cost of functions on a noisy machine.

The speed of a machine may change by a factor of 2 within minutes. Candidates that take
turns share these changes, so the ratios of their times hold where times do not.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm

from benchmarks.timing import Spent

# Runs once, and says what that took in its own process.
Candidate = Callable[[], Spent]


def interleave(
    candidates: Mapping[str, Candidate], rounds: int, burn_in: int = 2, title: str = ""
) -> dict[str, list[Spent]]:
    """Runs candidates in turns, A B C A B C ..., and returns what each took.

    Args:
        candidates: Dict of candidates by name.
        rounds: Number of rounds that count.
        burn_in: Number of rounds before them, for tracing and compiling.
        title: Text beside the progress bar.

    Returns:
        Dict of lists by name, one entry a round.
    """
    rounds_of: dict[str, list[Spent]] = {name: [] for name in candidates}
    # A terminal gets a progress bar, a log does not.
    turns = tqdm(
        range(burn_in + rounds), desc=title, unit="round", leave=False, disable=None
    )
    for turn in turns:
        for name, candidate in candidates.items():
            spent = candidate()
            if turn >= burn_in:
                rounds_of[name].append(spent)
    return rounds_of


def fastest(rounds: Sequence[Spent]) -> Spent:
    """Returns the smallest CPU time and the smallest wall time of the rounds."""
    return Spent(*map(min, zip(*rounds, strict=True)))


def spread(values: Sequence[float]) -> float:
    """Returns the distance between the quartiles."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def differences(rounds: Sequence[Spent], without: Sequence[Spent]) -> list[float]:
    """Returns the CPU seconds that are added to `without`, one figure a round.

    A small cost beside a large one drowns in the drift of the machine. Two turns of one
    round have little of it between them.
    """
    return [a.cpu - b.cpu for a, b in zip(rounds, without, strict=True)]
