"""What noise costs in a training step: CPU time, wall time and memory.

Asks what Dropout, Sparseout, Bridgeout and Shakeout add to a step of `fit` of a dense
network, of the example's CNN and of an LSTM language model.

A run of time has all methods of one model in one process, where they take turns,
A B C A B C ..., after a burn-in: the speed of a machine drifts, and the ratios within a
run do not. A run of memory has one method, since a process has one peak. Repeats of
either are processes of their own.

The data are random: a step takes as long as on any other.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from benchmarks import kept
from benchmarks.interleave import interleave
from benchmarks.machine import describe
from benchmarks.timing import timed
from studies.parts.cost.models import METHODS, MODELS, NOTHING, compiled
from studies.parts.cost.tables import MEMORY, TIME, draw, tables

__all__ = ["VERSION", "Settings", "draw", "kind", "run", "runs", "tables", "tiny"]

VERSION = 1
REPEATS = {TIME: 5, MEMORY: 2}
# As many times as the usual batch.
LARGER = 16
# What the report says of the machine. The file of the run has more.
MACHINE = ("CPU", "cores", "tensorflow", "load before the run")


@dataclass(frozen=True)
class Settings:
    """One process: the time of several methods, or the memory of one."""

    figure: str
    model: str
    methods: tuple[str, ...]
    seed: int = 0  # Counts the repeats.
    threads: int = 1
    steps: int = 10  # In a round.
    rounds: int = 9
    burn_in: int = 2
    batch: int | None = None  # None: that of the model.
    jit_compile: bool = False


def runs(done: Mapping[Settings, dict[str, Any]]) -> list[Settings]:
    """Returns all runs, one repeat after another."""
    planned = []
    for seed in range(max(REPEATS.values())):
        for model in MODELS:
            if seed < REPEATS[TIME]:
                planned.append(Settings(TIME, model, tuple(METHODS), seed))
            if seed < REPEATS[MEMORY]:
                each = [Settings(MEMORY, model, (name,), seed) for name in METHODS]
                planned.extend(each)
    return planned


def tiny() -> list[Settings]:
    """Returns a run of either figure."""
    small = {"steps": 1, "rounds": 1, "burn_in": 1, "batch": 2}
    return [
        Settings(TIME, "MLP", (NOTHING, "Sparseout, q = 1.5"), **small),
        Settings(MEMORY, "MLP", ("Shakeout, c = 0.1",), **small),
    ]


def kind(settings: Settings) -> str:
    """Returns what tells runs of different length apart."""
    return f"{settings.figure}, {settings.model}"


def run(settings: Settings) -> dict[str, Any]:
    """Returns what `rounds` or `memory` returns, and what machine it was."""
    known = describe()
    figures = {TIME: rounds, MEMORY: memory}[settings.figure](settings)
    return {**figures, "machine": {name: known[name] for name in MACHINE}}


def made(settings: Settings, method: str) -> keras.Model:
    keras.utils.set_random_seed(settings.seed)
    return compiled(settings.model, method, settings.jit_compile)


def fit_options(settings: Settings, times: int = 1) -> dict[str, Any]:
    """Returns the arguments of `fit` for a round of steps."""
    batch = times * (settings.batch or MODELS[settings.model].batch)
    x, y = MODELS[settings.model].data(batch * settings.steps)
    return {"x": x, "y": y, "batch_size": batch, "verbose": 0}


def rounds(settings: Settings) -> dict[str, Any]:
    """Returns the seconds of each round, [CPU, wall], by method."""
    options = fit_options(settings)
    candidates = {
        name: functools.partial(
            timed, functools.partial(made(settings, name).fit, **options)
        )
        for name in settings.methods
    }
    spent = interleave(candidates, settings.rounds, settings.burn_in)
    return {"seconds": {name: [list(one) for one in spent[name]] for name in spent}}


def memory(settings: Settings) -> dict[str, Any]:
    """Returns the MB that a model takes at the worst moment of its first steps.

    They are counted from before it was built, so tracing and compiling are in it: first
    with its usual batch, then with a larger one.
    """
    [method] = settings.methods
    usual, larger = fit_options(settings), fit_options(settings, LARGER)
    float(keras.ops.sum(keras.ops.ones((2, 2))))  # Starts TensorFlow.
    models = []

    def first_steps():
        models.append(made(settings, method))
        models[0].fit(**usual)

    before = kept.resident()
    return {
        "whole": kept.peak(first_steps) - before,
        "larger": kept.peak(lambda: models[0].fit(**larger)) - before,
        "samples": larger["batch_size"] - usual["batch_size"],
    }
