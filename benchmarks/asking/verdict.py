"""How near a run came to its target, and what that cost."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from benchmarks.asking.plan import Outcomes, interpolated, mean
from benchmarks.asking.request import FIXED, HELD, PLAIN, THRESHOLDS, Outcome, Request

# As near as this counts as met.
NEAR = 0.02
NEAREST = "best of 5 fixed weights"


@dataclass(frozen=True)
class Verdict:
    """A run that was asked for a target, beside the plain model and fixed weights.

    Attributes:
        request: What was asked.
        outcome: What came of it.
        lost: Score of the plain model of that seed, minus this one's.
        ahead: Its score minus that of fixed weights at equal sparsity; None where these
            have another metric, or none is as sparse.
    """

    request: Request
    outcome: Outcome
    lost: float | None
    ahead: float | None

    @cached_property
    def gaps(self) -> list[float]:
        """The distances from the target by layer; infinite where there is no figure."""
        figures = self.outcome.figures or {}
        gaps = (
            abs(figures.get(layer, math.inf) - target)
            for layer, target in self.request.target.items()
        )
        return [math.inf if math.isnan(gap) else gap for gap in gaps]

    @property
    def met(self) -> bool:
        """Whether each of the layers is near its target."""
        return max(self.gaps) <= NEAR


def judge(outcomes: Outcomes) -> list[Verdict]:
    """Returns the verdict on each run that had a target, and on the fixed weights."""
    grids = _grids(outcomes)
    verdicts = []
    asked = [request for request in outcomes if request.target]
    for request in asked:
        verdicts.append(_judged(request, outcomes[request], grids))
    for layers, seed, job, metric in dict.fromkeys(
        (request.asked, request.seed, request.job, outcomes[request].metric)
        for request in asked
        if request.way not in ("q", *THRESHOLDS)
    ):
        grid = grids.get((job, seed))
        if grid is not None and grid.fixed and metric == grid.metric:
            verdicts.append(_nearest(job, seed, layers, grid, grids))
    return verdicts


@dataclass(frozen=True)
class _Grid:
    """The runs of fixed weights of a job and seed, and the plain model's."""

    metric: str
    plain: Outcome
    fixed: tuple[Outcome, ...]

    def score_at(self, figure: float) -> float | None:
        """The score at a mean figure, between the plain model and the largest one."""
        points = sorted(
            (mean(one.figures), one.score) for one in (self.plain, *self.fixed)
        )
        if not points[0][0] <= figure <= points[-1][0]:
            return None
        return interpolated(points, figure)


def _grids(outcomes: Outcomes) -> dict[tuple[str, int], _Grid]:
    grids: dict[tuple[str, int], _Grid] = {}
    for request, outcome in outcomes.items():
        if request.way == PLAIN and outcome.figures:
            fixed = tuple(
                other
                for one, other in outcomes.items()
                if (one.way, one.job, one.seed) == (FIXED, request.job, request.seed)
                and other.figures
                and math.isfinite(mean(other.figures))
            )
            grid = _Grid(outcome.metric, outcome, fixed)
            grids[request.job, request.seed] = grid
    return grids


def _judged(
    request: Request, outcome: Outcome, grids: Mapping[tuple[str, int], _Grid]
) -> Verdict:
    grid = grids.get((request.job, request.seed))
    if grid is None or not outcome.figures:
        return Verdict(request, outcome, None, None)
    lost = grid.plain.score - outcome.score
    there = None
    if grid.fixed and outcome.metric == grid.metric:
        there = grid.score_at(mean(outcome.figures))
    return Verdict(
        request, outcome, lost, None if there is None else outcome.score - there
    )


def _nearest(job, seed, asked, grid, grids):
    """The fixed weight whose run came nearest, which took all runs of the grid."""
    request = Request(job, NEAREST, seed, asked)
    candidates = [_judged(request, outcome, grids) for outcome in grid.fixed]
    best = min(candidates, key=lambda verdict: math.fsum(verdict.gaps))
    cpu = math.fsum(outcome.cpu for outcome in grid.fixed)
    return replace(best, outcome=replace(best.outcome, cpu=cpu), ahead=None)


def spreads(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """Returns figures and scores of what had no target, by job: means of the seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for request, outcome in outcomes.items():
        if request.way in (PLAIN, FIXED, HELD) and outcome.figures:
            name = request.way
            if request.setting is not None:
                word = "q =" if request.way == HELD else "weight"
                name = f"{word} {request.setting:g}"
            columns = found.setdefault(request.job, {})
            columns.setdefault(name, []).append(mean(outcome.figures))
            columns.setdefault(f"{name}, score", []).append(outcome.score)
    return {
        job: {key: average(v) for key, v in columns.items()}
        for job, columns in found.items()
    }


def average(values: Iterable[float]) -> float:
    values = [*values]
    return math.fsum(values) / len(values) if values else math.nan
