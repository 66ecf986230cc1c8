"""Which runs a gauntlet has: first what others are held against, then those asked."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.asking.request import (
    FIXED,
    HELD,
    PLAIN,
    SQUARED,
    STAGED,
    THRESHOLDS,
    Outcome,
    Request,
)
from benchmarks.jobs import JOBS
from benchmarks.jobs.job import Job
from keras_sparseout.callbacks.control.actuators import ACTUATORS

# Where the targets of q are, between the ends of what all seeds reach.
SHARES = (0.25, 0.5, 0.75)
# With a narrower range, hardly a figure could be off by more than what counts as met.
NARROWEST = 0.05

Outcomes = Mapping[Request, Outcome]


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        jobs: Names of the jobs.
        actuators: What controllers move.
        seeds: Each run is repeated with each of them.
        targets: Which of the three targets of a job, from 0.
        today: Whether what people do without a controller takes part.
        epochs: Number of epochs; None for those of each job.
    """

    jobs: Sequence[str]
    actuators: Sequence[str]
    seeds: Sequence[int]
    targets: Sequence[int] = (0, 1, 2)
    today: bool = True
    epochs: int | None = None

    def first(self) -> list[Request]:
        """Returns the plain models, the fixed weights, and q held at its bounds."""
        requests = []
        for name, seed in itertools.product(self.jobs, self.seeds):
            requests.append(self._request(name, PLAIN, seed))
            if self.today:
                for weight in JOBS[name].weights:
                    requests.append(self._request(name, FIXED, seed, setting=weight))
            if "q" in self.actuators:
                for q in ACTUATORS["q"].default_bounds:
                    requests.append(self._request(name, HELD, seed, setting=q))
        return requests

    def most(self) -> int:
        """Returns how many runs `second` has at most."""
        ways = len(self.actuators) + 2 * self.today
        return len(self.jobs) * len(self.seeds) * len(self.targets) * ways

    def second(self, outcomes: Outcomes) -> list[Request]:
        """Returns the runs that are asked for a target."""
        ways = [*self.actuators, *([STAGED, SQUARED] if self.today else [])]
        requests = []
        for name, way in itertools.product(self.jobs, ways):
            for target in self._targets(JOBS[name], way, outcomes):
                for seed in self.seeds:
                    setting = None
                    if way == STAGED:
                        setting = self._last_weight(name, seed, target, outcomes)
                        if setting is None:
                            continue
                    requests.append(self._request(name, way, seed, target, setting))
        return requests

    def reachable(self, job: Job, outcomes: Outcomes) -> dict[str, tuple[float, float]]:
        """Returns what all seeds reach with q held, by layer; the first is larger if
        they have no range in common."""
        ends = [
            [
                outcomes[self._request(job.name, HELD, seed, setting=q)].figures
                for seed in self.seeds
            ]
            for q in ACTUATORS["q"].default_bounds
        ]
        if not all(map(all, ends)):
            return {}
        ranges = {}
        for layer in job.layers:
            low, high = sorted(
                ([figures[layer] for figures in end] for end in ends), key=sum
            )
            ranges[layer] = max(low), min(high)
        return ranges

    def left_out(self, outcomes: Outcomes) -> dict[str, str]:
        """Returns why q is not asked for anything, by job."""
        reasons = {}
        for name in self.jobs if "q" in self.actuators else ():
            if not self._targets(JOBS[name], "q", outcomes):
                ranges = self.reachable(JOBS[name], outcomes)
                shown = ", ".join(
                    f"{layer} {low:.3f} to {high:.3f}"
                    for layer, (low, high) in ranges.items()
                )
                reasons[f"q in {name}"] = (
                    f"all seeds reach {shown or 'nothing'} with q held at its bounds, "
                    f"on average less than {NARROWEST:g} wide"
                )
        return reasons

    def _targets(
        self, job: Job, way: str, outcomes: Outcomes
    ) -> Iterable[Mapping[str, float]]:
        if way == "q":
            ranges = self.reachable(job, outcomes)
            widths = {layer: high - low for layer, (low, high) in ranges.items()}
            # A NaN is no range either.
            reached = all(width > 0 for width in widths.values())
            if not ranges or not reached or mean(widths) < NARROWEST:
                return []
            return [
                {
                    layer: round(low + SHARES[index] * (high - low), 3)
                    for layer, (low, high) in ranges.items()
                }
                for index in self.targets
            ]
        asked = job.shares if way in THRESHOLDS else job.targets
        return [dict.fromkeys(job.layers, asked[index]) for index in self.targets]

    def _last_weight(self, name, seed, target, outcomes):
        """The weight that the grid of this seed says, on a scale of logarithms."""
        aim = mean(target)
        weights = JOBS[name].weights
        found = [
            outcomes[self._request(name, FIXED, seed, setting=weight)]
            for weight in weights
        ]
        points = sorted(
            (mean(one.figures), math.log(weight))
            for one, weight in zip(found, weights, strict=True)
            if one.figures and math.isfinite(mean(one.figures))
        )
        return math.exp(interpolated(points, aim)) if points else None

    def _request(self, name, way, seed, target=None, setting=None):
        asked = tuple((target or {}).items())
        return Request(name, way, seed, asked, setting, self.epochs)


def mean(figures: Mapping[str, float]) -> float:
    """Returns the mean over the layers."""
    return math.fsum(figures.values()) / len(figures)


def interpolated(points: Sequence[tuple[float, float]], at: float) -> float:
    """Returns y at x = `at` from points in the order of x; beyond the ends, theirs."""
    before = [point for point in points if point[0] <= at]
    after = [point for point in points if point[0] > at]
    if not before or not after:
        return (before or after)[-1 if before else 0][1]
    (x0, y0), (x1, y1) = before[-1], after[0]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
