"""The pictures of the study `sparsity`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_sparseout import plots
from keras_sparseout.plots import drawing
from studies.parts.sparsity.curves import (
    NOTHING,
    Curve,
    Points,
    curves,
    values,
    with_shared,
)
from studies.parts.sparsity.findings import COMPARED, MEASURES, SCORES

AXES = {
    "hoyer": "Hoyer sparsity of the hidden activations",
    "needless": "needless multiply-accumulates, share of the next layer's",
}
# What is drawn against q, below the score.
PANELS = ("hoyer", "dead", "rms")
_LABELS = {"dead": "dead units", "rms": "RMS", "hoyer": MEASURES["hoyer"]}


def draw(done: Mapping[Any, Mapping[str, Any]], folder: Path) -> None:
    """Draws for each task what sparsity costs, by rivals and by q."""
    for task, parts in curves(done).items():
        whole = with_shared(parts)
        # Nothing is where their curves start.
        rivals = {
            curve: points
            for curve, points in whole.items()
            if curve == COMPARED or not (curve.is_sparseout or curve == NOTHING)
        }
        # At other rates there is q = 2 alone: points of Dropout's curve.
        variants = {
            curve: points
            for curve, points in whole.items()
            if curve.is_sparseout and len(points) > 1
        }
        frontier(task, rivals, folder / f"frontier_{task}.png")
        if variants:
            frontier(task, variants, folder / f"variants_{task}.png")
            against_q(task, variants, folder / f"q_{task}.png")


def frontier(task: str, parts: Mapping[Curve, Points], path: Path) -> None:
    """Draws the score against each kind of sparsity, a curve for each of `parts`."""
    score, _ = SCORES[task]
    rows = list(_rows(parts, score))
    if not rows:
        return
    figure = plots.frontier(rows, sparsity=AXES)
    for panel in figure.axes:
        panel.set_ylabel(f"test {score}")
    figure.suptitle(f"{task}, test images; means over seeds, bars: ± std")
    figure.savefig(path, dpi=130)


def _rows(parts, score) -> Iterator[dict[str, Any]]:
    for curve, points in parts.items():
        for setting, point in points.items():
            row = {"actuator": curve.name, "setting": setting}
            for key, figure in {**dict.fromkeys(AXES), "accuracy": score}.items():
                found = values(point, figure or key)
                row[key] = np.mean(found) if found else np.nan
                row[f"{key}_std"] = np.std(found) if found else 0.0
            yield row


def against_q(task: str, parts: Mapping[Curve, Points], path: Path) -> None:
    """Draws score, Hoyer sparsity, dead units and RMS against q."""
    score, _ = SCORES[task]
    figure = drawing.new_figure(7)
    panels = figure.subplots(2, 2, sharex=True)
    looks = list(drawing.looks([curve.name for curve in parts]))
    for panel, name in zip(panels.flat, (score, *PANELS), strict=True):
        for points, (label, look) in zip(parts.values(), looks, strict=True):
            known = {q: values(point, name) for q, point in points.items()}
            known = {q: found for q, found in known.items() if found}
            panel.errorbar(
                list(known),
                [np.mean(found) for found in known.values()],
                yerr=[np.std(found) for found in known.values()],
                label=label,
                capsize=2,
                **look,
            )
        panel.set_ylabel(_LABELS.get(name, f"test {name}"))
        panel.grid(alpha=0.3)
    for panel in panels[1]:
        panel.set_xlabel("q")
    figure.suptitle(f"{task}, test images; means over seeds, bars: ± std")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=130)
