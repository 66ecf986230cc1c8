"""Runs what is missing of a study, and keeps each run as it ends."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from studies.runner.execute import Outcome
from studies.runner.progress import Progress
from studies.runner.results import Results
from studies.runner.study import Study

Runner = Callable[[Study, Sequence[Any]], Iterator[tuple[Any, Outcome]]]


def run_missing(
    study: Study,
    results: Results,
    list_runs: Callable[[], list[Any]],
    runner: Runner,
    retries: int,
    jobs: int,
) -> None:
    """Runs what is not finished, until nothing new is listed.

    Args:
        study: The study.
        results: What is finished, to which each run is added as it ends.
        list_runs: Returns the settings of all runs that are known by now.
        runner: Yields settings and outcome of each run that it is given, as it ends.
        retries: How often a run that failed is tried again.
        jobs: Number of runs that go on at the same time, for the time left.
    """
    tries: dict[Any, int] = {}
    with Progress(study, results, jobs) as progress:
        while True:
            runs = list_runs()
            missing = [
                settings
                for settings in runs
                if settings not in results.done and tries.get(settings, 0) <= retries
            ]
            progress.show(len(runs), [s for s in runs if s not in results.done])
            if not missing:
                return
            for settings, outcome in runner(study, missing):
                tries[settings] = tries.get(settings, 0) + 1
                results.add(settings, outcome)
                if "error" in outcome:
                    progress.say(
                        f"{study.to_json(settings)} failed: {outcome['error']}"
                    )
                progress.show(len(runs), [s for s in runs if s not in results.done])


def one_of_each_kind(study: Study, results: Results, runs: Sequence[Any]) -> list[Any]:
    """Returns the first run of each kind of which none is finished."""
    known = {study.kind(settings) for settings in results.seconds}
    firsts: dict[str, Any] = {}
    for settings in runs:
        firsts.setdefault(study.kind(settings), settings)
    return [settings for kind, settings in firsts.items() if kind not in known]


def lister(
    study: Study, results: Results, changes: Mapping[str, Any], tiny: bool
) -> Callable[[], list[Any]]:
    """Returns what lists the runs of the study, or its tiny ones."""
    if tiny:
        return functools.partial(study.tiny, changes)
    return lambda: study.runs(results.done, changes)
