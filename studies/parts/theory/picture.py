"""The picture of the study `theory`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_sparseout.plots import drawing
from studies.parts.theory.mask_enumeration import FAMILIES
from studies.parts.theory.tables import all_of, records

# Of Okabe and Ito (2008), which the colour-blind tell apart.
_COLOURS = dict(zip(FAMILIES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
_MARKERS = dict(zip(FAMILIES, drawing.MARKERS, strict=False))
# Beside each other, since they lie on each other.
_BESIDE = dict(zip(FAMILIES, (-0.1, 0.0, 0.1), strict=True))
# Of the weights, in the picture of the loss: below, all points lie on the line.
_SIZES_SHOWN = 4
_THEORY = {"color": "0.35", "linewidth": 1.2, "zorder": 1}


def draw(done: Mapping[Any, dict], path: Path) -> None:
    """Draws loss, error, gradients and their asymmetry, a panel each."""
    figure = drawing.new_figure(7.6)
    (loss, error), (gradient, symmetry) = figure.subplots(2, 2)
    _draw_loss(loss, done)
    _draw_error(error, done)
    _draw_against_q(gradient, done, _pull, lambda q: q / 2, 1)
    gradient.set_title("Gradients in the activations: 1 if held, q / 2 if not")
    gradient.set_ylabel("multiple of the unit pull")
    _draw_against_q(symmetry, done, _turn, lambda q: 2 - q, 0)
    symmetry.set_title("Held, they belong to no loss unless q = 2")
    symmetry.set_ylabel("asymmetry of their Jacobian")
    for panel in (loss, error, gradient, symmetry):
        panel.grid(alpha=0.3)
        panel.title.set_size(10.5)
    handles = [
        drawing.line(family, color=_COLOURS[family], marker=_MARKERS[family], ls="")
        for family in FAMILIES
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    drawing.save(figure, path)


def _pull(record, way):
    return record["gradients"][-1][way]


def _turn(record, way):
    return record["turn"][way]


def _look(family):
    return {"color": _COLOURS[family], "marker": _MARKERS[family]}


def _draw_loss(panel, done):
    ends = []
    # The one that is exact on top of the others.
    for family in reversed(FAMILIES):
        found = records(done, "noise", family=family)
        loss = [each for r in found for each in r["loss"][:_SIZES_SHOWN]]
        points = [(each["formula"], each["added"]) for each in loss]
        if points:
            panel.scatter(*np.transpose(points), s=12, alpha=0.5, lw=0, **_look(family))
            ends += [min(points)[0], max(points)[0]]
    panel.plot([min(ends), max(ends)], [min(ends), max(ends)], **_THEORY)
    panel.set(xscale="log", yscale="log")
    panel.set_title("The formula holds where noise is weak")
    panel.set_xlabel("penalty of the formula")
    panel.set_ylabel("what noise adds to the mean loss")


def _draw_error(panel, done):
    """Draws the error while weights fall, and while the rate does, at one q."""
    q = _nearest(all_of(done, "noise", "q"), 1.0)
    rates = all_of(done, "noise", "rate")
    styles = {rates[0]: "--", rates[-1]: "-"}
    for family in FAMILIES:
        if family == "Gaussian":  # Rounding alone.
            continue
        for rate, style in styles.items():
            found = records(done, "noise", family=family, q=q, rate=rate)
            _draw_fall(panel, found, family, linestyle=style)
        found = records(done, "falling_rate", family=family, q=q)
        _draw_fall(panel, found, family, linestyle=":", fillstyle="none")
    panel.set(xscale="log", yscale="log")
    panel.set_title("It holds for small weights, not for small rates")
    panel.set_xlabel(f"penalty of the formula (q = {q:g})")
    panel.set_ylabel("error, as a part of the penalty")
    labels = {f"weights fall, p = {rate:g}": ls for rate, ls in styles.items()}
    handles = [
        drawing.line(label, linestyle=style)
        for label, style in {**labels, "the rate falls": ":"}.items()
    ]
    panel.legend(handles=handles, frameon=False, fontsize=8.5)


def _draw_fall(panel, found, family, **style):
    """Draws the error against the penalty, as means over the seeds."""
    if found:
        penalty = np.array([[x["formula"] for x in r["loss"]] for r in found])
        added = np.array([[x["added"] for x in r["loss"]] for r in found])
        error = np.abs(added - penalty).mean(axis=0) / penalty.mean(axis=0)
        panel.plot(penalty.mean(axis=0), error, ms=4, lw=1.2, **_look(family), **style)


def _nearest(values, wanted):
    return min(values, key=lambda value: abs(value - wanted))


def _draw_against_q(panel, done, measured, slanted, level):
    """Draws what was measured at each q, filled if held, open if not.

    Args:
        panel: Where to draw.
        done: Figures of the runs.
        measured: Function of a record and of "held" or "through".
        slanted: What theory says of one of the two, a function of q.
        level: What theory says of the other.
    """
    qs = np.array(all_of(done, "noise", "q"))
    panel.plot(qs, slanted(qs), **_THEORY)
    panel.axhline(level, **_THEORY)
    for family in FAMILIES:
        found = records(done, "noise", family=family)
        for way in ("held", "through"):
            x = [record["q"] + _BESIDE[family] for record in found]
            y = [measured(record, way) for record in found]
            fill = _COLOURS[family] if way == "held" else "white"
            look = {"marker": _MARKERS[family], "facecolor": fill}
            panel.scatter(x, y, s=26, edgecolor=_COLOURS[family], zorder=2, **look)
    panel.set_xlabel("q")
    panel.set_xticks(qs)
    handles = [
        drawing.line("held", marker="o", ls=""),
        drawing.line("through", marker="o", ls="", markerfacecolor="white"),
        drawing.line("theory", **_THEORY),
    ]
    panel.legend(handles=handles, frameon=False, fontsize=8.5)
