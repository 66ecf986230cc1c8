"""The tables and pictures of the study `language`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studies.language_contrasts import NATS, Arm, Figures, Found, Row, contrasts
from studies.statistics import interval
from studies.tables import MISSING, cell, markdown


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
    found = Found(done)
    listed = contrasts(found, arms)
    parts = [
        "### The fixed contrast\n",
        _fixed(listed[0]),
        "Ten pairs see an effect of about one standard deviation of the paired "
        "differences (power 0.8, two-sided at 0.05). An interval covers seeds, not "
        "corpora: another text or size of model may give another difference.\n",
        "### Crossentropy of the test text\n",
        "Nats a word, mean ± half of the 95 % interval over seeds. Differences are "
        "paired by seed, with their 95 % interval; below 0 is better than q = 2. Hoyer "
        "sparsity is the mean of the three places. "
        "`d` is the difference in standard deviations of the paired differences. p is "
        "corrected by Holm over all contrasts but the fixed one, which comes first.\n",
        _outcomes(found, arms, listed),
        "### How training went\n",
        "Validation and training at the chosen epoch, without noise. `stopped`: runs "
        "that ended because validation did not fall any more, rather than at the last "
        "epoch that they had.\n",
        _training(found, arms),
        "### Noise and sparsity in each place\n",
        "At the chosen epoch. The variance is the mean over all activations of what "
        "the noise adds in training; `to q = 2` is its ratio to what q = 2 at its rate "
        "would add to the same activations. Sparsity is that of the activations "
        "before the noise, on validation text.\n",
        _places(found, arms),
        "### The rates of the arm best\n",
        "Nats of validation text at each factor of the rate, on seeds of their own.\n",
        _tuning(found, tuning, chosen),
    ]
    return "\n".join(parts)


def _fixed(contrast):
    d = contrast.difference
    what = f"{contrast.row.label} against q = 2, noise of equal strength, nats a word"
    if d is None:
        return f"{what}: {contrast.verdict}.\n"
    return (
        f"{what}: {_signed(d)}, p = {_p(d.p)}, {_standardized(d)} standard deviations, "
        f"{d.n} pairs. **{contrast.verdict[:1].upper()}{contrast.verdict[1:]}.**\n"
    )


def _signed(d):
    if np.isnan(d.low):
        return f"{d.mean:+.4f}"
    return f"{d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"


def _p(p):
    if np.isnan(p):
        return MISSING
    return f"{p:.4f}" if p >= 1e-4 else "below 0.0001"


def _standardized(d):
    return f"{d.standardized:+.2f}" if np.isfinite(d.standardized) else MISSING


def _outcomes(found, arms, listed):
    header = ("arm", "runs", "finished", "Hoyer", "test nats", "perplexity")
    header += ("difference to q = 2", "d", "p", "")
    rows = []
    for arm in arms:
        rows.append([*_test(found, arm, arm.baseline), MISSING, MISSING, MISSING, ""])
        for contrast in (c for c in listed if c.arm is arm):
            d = contrast.difference
            compared = (_signed(d), _standardized(d)) if d else (MISSING, MISSING)
            rows.append(
                [
                    *_test(found, arm, contrast.row),
                    *compared,
                    _p(contrast.p),
                    contrast.verdict,
                ]
            )
    return markdown(header, rows)


def _test(found, arm, row):
    nats = [*found.values(row.settings, row.seeds, NATS).values()]
    perplexities = found.values(row.settings, row.seeds, "test_perplexity").values()
    places = found.values(row.settings, row.seeds, "places").values()
    hoyer = [np.mean([place["hoyer"] for place in p.values()]) for p in places]
    return [
        arm.name,
        row.label,
        f"{len(nats)} of {len(row.seeds)}",
        _mean(hoyer, 3),
        _mean(nats, 4),
        _mean([*perplexities], 2),
    ]


def _mean(values, digits):
    if not values:
        return MISSING
    mean = interval(values)
    return cell(mean.mean, mean.half, digits)


def _training(found, arms):
    header = ("arm", "runs", "validation nats", "training nats", "epoch chosen")
    header += ("epochs run", "stopped")
    rows = []
    for arm in arms:
        for row in (arm.baseline, *arm.rows):
            runs = [*found.figures(row.settings, row.seeds).values()]
            rows.append(
                [
                    arm.name,
                    row.label,
                    _mean([figures["valid_nats"] for figures in runs], 4),
                    _mean([figures["train_nats"] for figures in runs], 4),
                    _mean([figures["epoch"] for figures in runs], 1),
                    _mean([figures["epochs"] for figures in runs], 1),
                    f"{sum(figures['stopped'] for figures in runs)} of {len(runs)}",
                ]
            )
    return markdown(header, rows)


def _places(found, arms):
    header = ("arm", "runs", "place", "rate", "variance", "to q = 2")
    header += ("Hoyer", "RMS", "zeros", "dead")
    rows = []
    for arm in arms:
        for row in (arm.baseline, *arm.rows):
            runs = [*found.figures(row.settings, row.seeds).values()]
            for place in runs[0]["places"] if runs else ():
                rows.append([arm.name, row.label, place, *_place(runs, place)])
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


def _tuning(found, tuning, chosen):
    scales = sorted({scale for rows in tuning.values() for scale in rows})
    rows = []
    for q, by_scale in tuning.items():
        nats = [
            _mean([*found.values(row.settings, row.seeds, "valid_nats").values()], 4)
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
    found = Found(done)
    _draw_differences(contrasts(found, arms)).savefig(
        folder / "differences.png", dpi=130
    )
    _draw_curves(found, curves).savefig(folder / "validation.png", dpi=130)


def _draw_differences(listed):
    figure = Figure(figsize=(9, 1.2 + 0.36 * len(listed)), layout="constrained")
    panel = figure.subplots()
    names = list(dict.fromkeys(contrast.arm.name for contrast in listed))
    colours = colormaps["viridis"](np.linspace(0, 0.75, len(names)))
    for y, contrast in enumerate(listed):
        colour = colours[names.index(contrast.arm.name)]
        pairs = contrast.differences
        panel.plot(pairs, [y] * len(pairs), "|", color=colour, alpha=0.4, markersize=9)
        d = contrast.difference
        if d is not None:
            half = 0 if np.isnan(d.low) else d.high - d.mean
            style = {"color": colour, "capsize": 4, "markersize": 6}
            panel.errorbar(d.mean, y, xerr=half, fmt="o", **style)
    panel.axvline(0, color="0.3", linewidth=1)
    labels = [f"{contrast.arm.name}: {contrast.row.label}" for contrast in listed]
    panel.set_yticks(range(len(listed)), labels)
    panel.invert_yaxis()
    panel.set_xscale("symlog", linthresh=0.02)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_xlabel(
        "difference to q = 2, nats a word of the test text (left is better)\n"
        "mean and 95 % interval; a line for each pair of seeds; linear below 0.02"
    )
    panel.grid(alpha=0.3, axis="x")
    return figure


def _draw_curves(found, arms):
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for panel, arm in zip(panels, arms, strict=True):
        rows = sorted((arm.baseline, *arm.rows), key=lambda row: row.settings.q)
        colours = colormaps["viridis"](np.linspace(0, 0.85, len(rows)))
        for row, colour in zip(rows, colours, strict=True):
            runs = [*found.figures(row.settings, row.seeds).values()]
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
