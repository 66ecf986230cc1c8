"""What a gauntlet found, as tables of Markdown and as CSV."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence

from benchmarks.asking.plan import Outcomes, mean
from benchmarks.asking.request import STAGED
from benchmarks.asking.verdict import NEAR, NEAREST, Verdict, average, spreads
from benchmarks.jobs import JOBS
from benchmarks.report import Row, Table

NOTE = (
    f"A run is met if each controlled layer is within {NEAR:g} of its target on test "
    "data, at inference. The gap is |figure - target|, averaged over the layers; the "
    f"largest is that of one layer. A run's gap is met if it is within {NEAR:g}. Lost "
    "is what the score (accuracy, or R squared) has less than that of the plain model "
    "of the same seed. Ahead is the score minus that of the fixed weights at equal "
    "sparsity, interpolated, over the runs for which there is one. Trainings is how "
    "many runs one answer takes."
)
# The grid is five; its weights are what a weight in stages goes by.
_TRAININGS = {NEAREST: 5, STAGED: 6}
COLUMNS = (
    "job",
    "way",
    "metric",
    "target",
    "seed",
    "figure",
    "gap",
    "largest_gap",
    "met",
    "score",
    "lost",
    "ahead",
    "setting",
    "cpu",
    "layers",
    "by_epoch",
    "said",
    "error",
)


def tables(verdicts: Sequence[Verdict], outcomes: Outcomes) -> Iterable[Table]:
    """Yields the tables: by way, by job and way, and what had no target."""
    yield Table("By way", NOTE, _rows(verdicts, lambda one: one.request.way))
    for job in dict.fromkeys(one.request.job for one in verdicts):
        of_job = [one for one in verdicts if one.request.job == job]
        yield Table(job, JOBS[job].what, _rows(of_job, lambda one: one.request.way))
    rows = [
        Row(f"{job}, {name}", {"figure": figure, "score": columns[f"{name}, score"]})
        for job, columns in spreads(outcomes).items()
        for name, figure in columns.items()
        if not name.endswith(", score")
    ]
    yield Table("Without a target", "Means over layers and seeds.", rows)


def _rows(verdicts: Iterable[Verdict], key: Callable[[Verdict], str]) -> list[Row]:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(key(verdict), []).append(verdict)
    return [Row(name, _figures(group)) for name, group in groups.items()]


def _figures(group: Sequence[Verdict]) -> dict[str, float]:
    gaps = [gap for verdict in group for gap in verdict.gaps]
    known = [gap for gap in gaps if math.isfinite(gap)]
    ahead = [verdict.ahead for verdict in group if verdict.ahead is not None]
    return {
        "runs": len(group),
        "met %": 100 * average(verdict.met for verdict in group),
        "gap met %": 100 * average(average(v.gaps) <= NEAR for v in group),
        "layers met %": 100 * average(gap <= NEAR for gap in gaps),
        "gap": average(known),
        "largest gap": max(gaps, default=math.nan),
        "lost": average(v.lost for v in group if v.lost is not None),
        **({"ahead": average(ahead), "runs beside": len(ahead)} if ahead else {}),
        "trainings": _TRAININGS.get(group[0].request.way, 1),
        "CPU s": average(verdict.outcome.cpu for verdict in group),
    }


def missed(verdicts: Iterable[Verdict], ways: Iterable[str]) -> str:
    """Returns the runs of these ways that missed their target, as a list."""
    lines = []
    chosen = set(ways)
    for verdict in verdicts:
        request, outcome = verdict.request, verdict.outcome
        if request.way not in chosen or verdict.met:
            continue
        parts = [
            f"{request.job}, {request.way}, seed {request.seed}, "
            f"{outcome.metric or 'no figure'}: {_layers(verdict)}"
        ]
        if outcome.by_epoch:
            by_epoch = " ".join(f"{figure:.3f}" for figure in outcome.by_epoch)
            parts.append(f"by epoch on training data: {by_epoch}")
        parts += [*outcome.said, *([outcome.error] if outcome.error else [])]
        lines.append("- " + "; ".join(" ".join(part.split()) for part in parts))
    return "\n".join(lines) or "None."


def _layers(verdict: Verdict) -> str:
    figures = verdict.outcome.figures or {}
    return ", ".join(
        f"{layer} {figures.get(layer, math.nan):.3f} of {target:g}"
        for layer, target in verdict.request.asked
    )


def as_csv(verdicts: Iterable[Verdict], outcomes: Outcomes) -> str:
    """Returns all runs, a line each; those without a target come first."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for request, outcome in outcomes.items():
        if not request.asked:
            line = _line(Verdict(request, outcome, None, None))
            writer.writerow({**line, "met": "", "setting": request.setting})
    for verdict in verdicts:
        gaps = {
            "gap": average(verdict.gaps),
            "largest_gap": max(verdict.gaps),
            "target": mean(verdict.request.target),
        }
        writer.writerow(_line(verdict) | gaps)
    return file.getvalue()


def _line(verdict: Verdict) -> dict[str, object]:
    request, outcome = verdict.request, verdict.outcome
    figures = outcome.figures or {}
    return {
        "job": request.job,
        "way": request.way,
        "metric": outcome.metric,
        "seed": request.seed,
        "figure": mean(figures) if figures else None,
        "met": bool(request.asked) and verdict.met,
        "score": outcome.score,
        "lost": verdict.lost,
        "ahead": verdict.ahead,
        "setting": outcome.setting if request.setting is None else request.setting,
        "cpu": round(outcome.cpu, 2),
        "layers": _layers(verdict) if request.asked else json.dumps(figures),
        "by_epoch": " ".join(f"{figure:.4f}" for figure in outcome.by_epoch),
        "said": " | ".join(outcome.said),
        "error": outcome.error,
    }
