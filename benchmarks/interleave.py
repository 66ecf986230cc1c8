"""Comparing the cost of functions on a noisy machine."""

import os
import platform
import time
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

# CPU seconds of all threads, and wall seconds.
Spent = tuple[float, float]


def measure(
    candidates: Mapping[str, Callable[[], object]], rounds: int = 9, burn_in: int = 2
) -> dict[str, list[Spent]]:
    """Runs functions in turns, A B C A B C ..., and returns what each took.

    The speed of a machine may change by a factor of 2 within minutes. Candidates that
    take turns share these changes.

    Args:
        candidates: Dict of functions without arguments, by name.
        rounds: Number of timed rounds.
        burn_in: Number of rounds before them, for tracing and compiling.

    Returns:
        Dict of lists of (CPU seconds of all threads, wall seconds), one a round.
    """
    rounds_of: dict[str, list[Spent]] = {name: [] for name in candidates}
    progress = keras.utils.Progbar(burn_in + rounds, unit_name="round")
    for turn in range(burn_in + rounds):
        for name, function in candidates.items():
            cpu, wall = time.process_time(), time.perf_counter()
            function()
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn >= burn_in:
                rounds_of[name].append(spent)
        progress.update(turn + 1)
    return rounds_of


def fastest(rounds_of: Mapping[str, list[Spent]]) -> dict[str, Spent]:
    """Returns dict of the smallest (CPU seconds, wall seconds) of each list."""
    return {
        name: tuple(map(min, *rounds)) if len(rounds) > 1 else rounds[0]
        for name, rounds in rounds_of.items()
    }


def print_machine() -> None:
    """Prints the machine and the versions that were measured."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}; fastest round of each, taken in turns"
    )
