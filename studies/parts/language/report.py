"""The tables and pictures of the study `language`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studies.contrasts import (
    CELLS,
    Arm,
    Contrast,
    Done,
    Figures,
    Measure,
    Row,
    contrasts,
    distinct_rows,
    draw_differences,
    fixed_sentences,
    mean_cell,
    observed_sentence,
)
from studies.tables import MISSING, cell, markdown

NATS = Measure(
    "test_nats",
    "nats a word of the test text",
    factor=1,
    digits=4,
    lower="better",
    higher="worse",
    linear=0.02,
)
TICKS = (-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def tables(
    done: Done,
    arms: Sequence[Arm],
    tuning: Mapping[float, Mapping[float, Row]],
    chosen: Mapping[float, float | None],
) -> str:
    """Returns the report.

    Args:
        done: Figures by settings.
        arms: The arms, the primary one first.
        tuning: The rows that decide the arm `best`, by q and factor of the rate.
        chosen: What they decided, by q.
    """
    listed = contrasts(done, arms, NATS)
    what = (
        "q = 1.5 against q = 2, noise of matched strength, nats a word of the test text"
    )
    parts = [
        "### The fixed contrast\n",
        fixed_sentences(listed[0], what),
        "### Crossentropy of the test text\n",
        "Nats a word, mean ± half of the 95 % interval over seeds. Differences are "
        "paired by seed, with their 95 % interval; below 0 is better. Hoyer sparsity "
        "is the mean of the three places, on validation text. `d` is the difference in "
        "standard deviations of the paired differences. p is corrected by Holm over "
        "all contrasts but the fixed one, which is the first.\n",
        _outcomes(done, arms, listed),
        observed_sentence(listed),
        "### How training went\n",
        "What arms share is listed once, from here on. Nats are those of the chosen "
        "epoch, without noise. `stopped`: runs that ended because validation did not "
        "fall any more, rather than at the last epoch that they had.\n",
        _training(done, arms),
        "### Noise and sparsity in each place\n",
        "At the chosen epoch. The variance is the mean over all activations of what "
        "the noise adds in training; `to q = 2` is its ratio to what q = 2 at its rate "
        "would add to the same activations. Sparsity is that of the activations "
        "before the noise, on validation text.\n",
        _places(done, arms),
        "### The rates of the arm `best`\n",
        "Nats of validation text at each factor of the rate, on seeds of their own.\n",
        _tuning(done, tuning, chosen),
    ]
    return "\n".join(parts)


def _outcomes(done: Done, arms: Iterable[Arm], listed: Sequence[Contrast]) -> str:
    header = ["arm", "runs", "finished", "Hoyer", "test nats", "perplexity", *CELLS]
    rows = []
    for arm in arms:
        rows.append([*_test(done, arm, arm.baseline), *[MISSING] * 3, ""])
        for contrast in (c for c in listed if c.arm is arm):
            rows.append([*_test(done, arm, contrast.row), *contrast.cells])
    return markdown(header, rows)


def _test(done: Done, arm: Arm, row: Row) -> list[str]:
    nats = row.values(done, NATS.name)
    places = [run.values() for run in row.values(done, "places")]
    return [
        arm.name,
        row.label,
        f"{len(nats)} of {len(row.seeds)}",
        mean_cell((_mean(place["hoyer"] for place in run) for run in places), 3),
        mean_cell(nats, NATS.digits),
        mean_cell(row.values(done, "test_perplexity"), 2),
    ]


def _training(done: Done, arms: Iterable[Arm]) -> str:
    digits = {"valid_nats": 4, "train_nats": 4, "epoch": 1, "epochs": 1}
    header = ["arm", "runs", "validation nats", "training nats", "epoch chosen"]
    rows = []
    for arm, row in distinct_rows(arms):
        means = [mean_cell(row.values(done, name), n) for name, n in digits.items()]
        stopped = row.values(done, "stopped")
        rows.append([arm, row.label, *means, f"{sum(stopped)} of {len(stopped)}"])
    return markdown([*header, "epochs run", "stopped"], rows)


def _places(done: Done, arms: Iterable[Arm]) -> str:
    header = ["arm", "runs", "place", "rate", "variance", "to q = 2"]
    rows = []
    for arm, row in distinct_rows(arms):
        runs = row.values(done, "places")
        for place in runs[0] if runs else ():
            each = [run[place] for run in runs]
            rows.append([arm, row.label, place, *_place(each)])
    return markdown([*header, "Hoyer", "RMS", "zeros", "dead"], rows)


def _place(each: Sequence[Figures]) -> list[str]:
    ratio = [p["strength"] / p["reference"] if p["reference"] else np.nan for p in each]
    means = {name: _mean(p[name] for p in each) for name in each[0]}
    return [
        cell(means["rate"]),
        f"{means['strength']:.3g}",
        cell(float(np.mean(ratio)), digits=2),
        *(cell(means[name]) for name in ("hoyer", "rms", "zeros", "dead")),
    ]


def _mean(values: Iterable[float | None]) -> float:
    """Returns the mean, NaN if one is None: the Hoyer sparsity of silent units."""
    return float(np.mean(np.array([*values], "float64")))


def _tuning(
    done: Done,
    tuning: Mapping[float, Mapping[float, Row]],
    chosen: Mapping[float, float | None],
) -> str:
    scales = sorted({scale for rows in tuning.values() for scale in rows})
    rows = []
    for q, by_scale in tuning.items():
        nats = [
            mean_cell(by_scale[scale].values(done, "valid_nats"), 4) for scale in scales
        ]
        best = chosen[q]
        edge = ", at the edge" if best in (scales[0], scales[-1]) else ""
        rows.append([f"{q:g}", *nats, MISSING if best is None else f"{best:g}{edge}"])
    return markdown(["q", *(f"rate x {s:g}" for s in scales), "chosen"], rows)


def draw(done: Done, arms: Sequence[Arm], curves: Sequence[Arm], folder: Path) -> None:
    """Writes the pictures: differences of all arms, and curves of some."""
    differences = draw_differences(contrasts(done, arms, NATS), "left", TICKS)
    differences.savefig(folder / "differences.png", dpi=130)
    _draw_curves(done, curves).savefig(folder / "validation.png", dpi=130)


def _draw_curves(done: Done, arms: Sequence[Arm]) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for panel, arm in zip(panels, arms, strict=True):
        rows = sorted(arm.all_rows, key=lambda row: row.settings.q)
        colours = colormaps["viridis"](np.linspace(0, 0.85, len(rows)))
        for row, colour in zip(rows, colours, strict=True):
            _draw_runs(panel, row.label, [*row.figures(done).values()], colour)
        panel.set_title(arm.name)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(frameon=False)
    panels[0].set_ylabel("validation, nats a word")
    lowest = min((min(line.get_ydata()) for line in panels[0].lines), default=0)
    # The first epochs are all alike.
    panels[0].set_ylim(lowest - 0.03, lowest + 0.6)
    return figure


def _draw_runs(
    panel: Axes, label: str, runs: Sequence[Figures], colour: np.ndarray
) -> None:
    for i, figures in enumerate(runs):
        nats, best = figures["valid_curve"], figures["epoch"]
        style = {"color": colour, "label": None if i else label}
        panel.plot(range(1, len(nats) + 1), nats, linewidth=0.9, **style)
        panel.plot(best, nats[best - 1], "o", color=colour, markersize=4)
