"""Comparing the cost of functions on a noisy machine."""

import os
import platform
import time

import keras
import tensorflow as tf


def measure(candidates, rounds=9, burn_in=2):
    """Runs functions in turns, A B C A B C ..., and returns what each took.

    Machines drift by a factor of 2 within minutes, so candidates share each minute.

    Args:
        candidates: Dict of functions without arguments, by name.
        rounds: Number of timed rounds.
        burn_in: Number of rounds before them, for tracing and compiling.

    Returns:
        Dict of lists of (CPU seconds of all threads, wall seconds), one a round.
    """
    rounds_of = {name: [] for name in candidates}
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


def fastest(rounds_of):
    """Returns dict of the smallest (CPU seconds, wall seconds) of each list."""
    return {
        name: tuple(map(min, *rounds)) if len(rounds) > 1 else rounds[0]
        for name, rounds in rounds_of.items()
    }


def print_machine():
    """Prints what the figures below it were measured on."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}; fastest round of each, taken in turns"
    )
