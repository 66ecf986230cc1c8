"""The tables of the study `sparsity`."""

from collections.abc import Iterator, Mapping
from typing import Any

from studies import statistics
from studies.parts.sparsity import findings
from studies.parts.sparsity.curves import Curve, Points, curves, values, with_shared
from studies.tables import MISSING, cell, markdown

# Headings, and the figures below them.
FIGURES = {
    "accuracy": "accuracy",
    "loss": "loss",
    "Hoyer": "hoyer",
    "zeros": "zeros",
    "dead": "dead",
    "RMS": "rms",
    "needless": "needless",
}
# Where q's reach is measured.
LOW, HIGH = 1.0, 3.0
CONTROL = (
    "",
    "",
    "of",
    "q",
    "falls at each step",
    "does not fall (seeds)",
    "mean does not fall",
    f"q = {LOW:g} minus {HIGH:g}",
)


def report(done: Mapping[Any, Mapping[str, Any]]) -> str:
    """Returns findings and tables as Markdown."""
    tasks = curves(done)
    whole = {task: with_shared(parts) for task, parts in tasks.items()}
    parts = [_findings(whole)]
    for task, own in tasks.items():
        parts.append(f"### What was measured: {task}\n\n{_figures(task, own)}")
    rows = list(_control_rows(whole))
    if rows:
        parts.append(f"### What q moves\n\n{markdown(CONTROL, rows)}")
    for task, own in whole.items():
        for measure, name in findings.MEASURES.items():
            found = findings.differences(task, own, measure)
            if any(by_q for by_q in found.values()):
                table = _differences(task, found)
                parts.append(f"### At equal {name}: {task}\n\n{table}")
    return "\n".join(part for part in parts if part)


def _findings(whole):
    groups: dict[str, list[str]] = {"q": [], "rivals": [], "collapse": []}
    found: dict[str, list[findings.Differences]] = {task: [] for task in whole}
    for task, parts in whole.items():
        groups["q"] += findings.control_sentences(task, parts)
        for measure in findings.MEASURES:
            each = findings.differences(task, parts, measure)
            found[task].append(each)
            groups["rivals"] += findings.rival_sentences(task, measure, each)
        groups["collapse"] += findings.collapse_sentences(task, parts)
    groups["rivals"] += findings.correction_sentences(found)
    titles = {
        "q": "Does q control sparsity?",
        "rivals": "Is a rival better at equal sparsity?",
        "collapse": "Where is it collapse?",
    }
    return "\n".join(
        f"### {titles[group]}\n\n" + "".join(f"- {each}\n" for each in sentences)
        for group, sentences in groups.items()
        if sentences
    )


def _figures(task: str, parts: Mapping[Curve, Points]) -> str:
    columns = [
        heading
        for heading, figure in FIGURES.items()
        if figure != "accuracy" or task == "classifier"
    ]
    return markdown(
        ["", "setting", "seeds", *columns],
        (
            [
                curve.name,
                f"{setting:g}",
                len(point),
                *(_mean(values(point, FIGURES[column])) for column in columns),
            ]
            for curve, points in parts.items()
            for setting, point in points.items()
        ),
    )


def _mean(found: list[float]) -> str:
    if not found:
        return MISSING
    mean = statistics.interval(found)
    return cell(mean.mean, mean.half)


def _control_rows(whole) -> Iterator[list[str]]:
    for task, parts in whole.items():
        for curve, points in parts.items():
            for measure in ("hoyer", "zeros") if curve.is_sparseout else ():
                found = findings.control(points, measure)
                # tanh has no zeros to move.
                if found is None or not any(
                    any(values(point, measure)) for point in points.values()
                ):
                    continue
                steps = [
                    f"{a:g} to {b:g} ({', '.join(map(str, seeds))})"
                    for (a, b), seeds in found.rises.items()
                ]
                means = [f"{a:g} to {b:g}" for a, b in found.mean_rises]
                yield [
                    task,
                    curve.name,
                    measure,
                    ", ".join(f"{q:g}" for q in points),
                    f"{found.falling} of {found.seeds} seeds",
                    "; ".join(steps) or "nowhere",
                    "; ".join(means) or "nowhere",
                    _reach(points, measure),
                ]


def _reach(points: Points, measure: str) -> str:
    """Returns how much more sparse the lower q is, paired by seed."""
    both = {q: points[q] for q in (LOW, HIGH) if q in points}
    if len(both) < 2:
        return MISSING
    common = set(both[LOW]) & set(both[HIGH])
    low, high = (
        values({seed: point[seed] for seed in common}, measure)
        for point in both.values()
    )
    if not low or len(low) != len(high):
        return MISSING
    found = statistics.paired(low, high)
    return cell(found.mean, (found.high - found.low) / 2)


def _differences(task: str, found: findings.Differences) -> str:
    qs = sorted({q for by_q in found.values() for q in by_q})
    return markdown(
        ["", *(f"q = {q:g}" for q in qs)],
        (
            [curve.name, *(_difference(task, by_q.get(q)) for q in qs)]
            for curve, by_q in found.items()
        ),
    )


def _difference(task: str, found: statistics.Difference | None) -> str:
    if found is None:
        return MISSING
    if findings.is_same(found):
        return "the same"
    text = f"{found.mean:+.3f} ± {(found.high - found.low) / 2:.3f}"
    return f"**{text}**" if findings.side(task, found) == 1 else text
