"""The tables and pictures of the study `language`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studies.contrasts import (
    CELLS,
    Arm,
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
    done: Mapping[Any, Figures],
    arms: Sequence[Arm],
    tuning: Mapping[float, Mapping[float, Row]],
    chosen: Mapping[float, float | None],
) -> str:
    """Returns the report.

    Args:
        done: Figures by settings.
        arms: The arms, the primary one first.
        tuning: The rows that decide the arm `best`, by q and scale.
        chosen: What they decided, by q.
    """
    listed = contrasts(done, arms, NATS)
    what = (
        f"{listed[0].row.label} against q = 2, noise of matched strength, nats a word"
    )
    parts = [
        "### The fixed contrast\n",
        fixed_sentences(listed[0], what),
        "### Crossentropy of the test text\n",
        "Nats a word, mean ± half of the 95 % interval over seeds. Differences are "
        "paired by seed, with their 95 % interval; below 0 is better than q = 2. Hoyer "
        "sparsity is the mean of the three places. "
        "`d` is the difference in standard deviations of the paired differences. p is "
        "corrected by Holm over all contrasts but the fixed one, which comes first.\n",
        _outcomes(done, arms, listed),
        observed_sentence(listed),
        "### How training went\n",
        "What arms share is listed once, from here on. Validation and training at "
        "the chosen epoch, without noise. `stopped`: runs "
        "that ended because validation did not fall any more, rather than at the last "
        "epoch that they had.\n",
        _training(done, arms),
        "### Noise and sparsity in each place\n",
        "At the chosen epoch. The variance is the mean over all activations of what "
        "the noise adds in training; `to q = 2` is its ratio to what q = 2 at its rate "
        "would add to the same activations. Sparsity is that of the activations "
        "before the noise, on validation text.\n",
        _places(done, arms),
        "### The rates of the arm best\n",
        "Nats of validation text at each factor of the rate, on seeds of their own.\n",
        _tuning(done, tuning, chosen),
    ]
    return "\n".join(parts)


def _outcomes(done, arms, listed):
    header = ("arm", "runs", "finished", "Hoyer", "test nats", "perplexity", *CELLS)
    rows = []
    for arm in arms:
        rows.append([*_test(done, arm, arm.baseline), *[MISSING] * 3, ""])
        for contrast in (c for c in listed if c.arm is arm):
            rows.append([*_test(done, arm, contrast.row), *contrast.cells])
    return markdown(header, rows)


def _test(done, arm, row):
    nats = row.values(done, NATS.name)
    places = row.values(done, "places")
    hoyer = [np.mean([place["hoyer"] for place in p.values()]) for p in places]
    return [
        arm.name,
        row.label,
        f"{len(nats)} of {len(row.seeds)}",
        mean_cell(hoyer, 3),
        mean_cell(nats, NATS.digits),
        mean_cell(row.values(done, "test_perplexity"), 2),
    ]


def _training(done, arms):
    header = ("arm", "runs", "validation nats", "training nats", "epoch chosen")
    header += ("epochs run", "stopped")
    rows = []
    for arm, row in distinct_rows(arms):
        stopped = row.values(done, "stopped")
        rows.append(
            [
                arm,
                row.label,
                mean_cell(row.values(done, "valid_nats"), 4),
                mean_cell(row.values(done, "train_nats"), 4),
                mean_cell(row.values(done, "epoch"), 1),
                mean_cell(row.values(done, "epochs"), 1),
                f"{sum(stopped)} of {len(stopped)}",
            ]
        )
    return markdown(header, rows)


def _places(done, arms):
    header = ("arm", "runs", "place", "rate", "variance", "to q = 2")
    header += ("Hoyer", "RMS", "zeros", "dead")
    rows = []
    for arm, row in distinct_rows(arms):
        runs = [*row.figures(done).values()]
        for place in runs[0]["places"] if runs else ():
            rows.append([arm, row.label, place, *_place(runs, place)])
    return markdown(header, rows)


def _place(runs, place):
    each = [figures["places"][place] for figures in runs]
    ratio = [p["strength"] / p["reference"] if p["reference"] else np.nan for p in each]
    means = {name: np.mean([p[name] for p in each]) for name in each[0]}
    return [
        cell(means["rate"]),
        f"{means['strength']:.3g}",
        cell(np.mean(ratio), digits=2),
        *(cell(means[name]) for name in ("hoyer", "rms", "zeros", "dead")),
    ]


def _tuning(done, tuning, chosen):
    scales = sorted({scale for rows in tuning.values() for scale in rows})
    rows = []
    for q, by_scale in tuning.items():
        nats = [
            mean_cell(row.values(done, "valid_nats"), 4)
            for row in (by_scale[scale] for scale in scales)
        ]
        best = chosen[q]
        edge = ", at the edge" if best in (scales[0], scales[-1]) else ""
        rows.append([f"{q:g}", *nats, MISSING if best is None else f"{best:g}{edge}"])
    return markdown(("q", *(f"rate x {s:g}" for s in scales), "chosen"), rows)


def draw(
    done: Mapping[Any, Figures],
    arms: Sequence[Arm],
    curves: Sequence[Arm],
    folder: Path,
) -> None:
    """Writes the pictures: differences of all arms, and curves of some."""
    listed = contrasts(done, arms, NATS)
    figure = draw_differences(listed, "left", TICKS)
    figure.savefig(folder / "differences.png", dpi=130)
    _draw_curves(done, curves).savefig(folder / "validation.png", dpi=130)


def _draw_curves(done, arms):
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for panel, arm in zip(panels, arms, strict=True):
        rows = sorted(arm.all_rows, key=lambda row: row.settings.q)
        colours = colormaps["viridis"](np.linspace(0, 0.85, len(rows)))
        for row, colour in zip(rows, colours, strict=True):
            runs = [*row.figures(done).values()]
            for i, figures in enumerate(runs):
                nats, best = figures["valid_curve"], figures["epoch"]
                label = row.label if i == 0 else None
                epochs = range(1, len(nats) + 1)
                panel.plot(epochs, nats, color=colour, linewidth=0.9, label=label)
                panel.plot(best, nats[best - 1], "o", color=colour, markersize=4)
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
