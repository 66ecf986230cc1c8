"""The picture of how activations spread."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np

from keras_sparseout.plots import drawing
from keras_sparseout.plots.readings import KINDS
from keras_sparseout.utils.types import PathLike, Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Bars across a panel; finer bins are drawn together.
_BARS = 40
# A bin that reaches no further from 0 than this part of the largest edge holds zeros.
_NARROW = 1e-3
# The linear piece around 0 may hold this part of what is not 0.
_NEAR_ZERO = 0.01


class _HasHistogram(Protocol):
    def histogram(self) -> tuple[Tensor, Tensor]: ...


Histogram: TypeAlias = tuple[Sequence[float], Sequence[float]] | _HasHistogram


def histograms(
    histograms: Mapping[str, Histogram], *, path: PathLike | None = None
) -> "Figure":
    """Draws how the activations of each layer spread: a small panel for each.

    A bar shows the share of a layer's activations between two values. The exact zeros
    have no bar: their share is written into the panel. The axis of values is linear in
    a short piece around 0, which holds at most about 1 % of the nonzero activations,
    and logarithmic on both sides of it. Colours run from the first layer to the last.

    Args:
        histograms: Dict by layer of `(edges, counts)`: n + 1 ascending values, and the
            n numbers of activations between them. Objects with a method `histogram()`
            that returns such a pair do too, as in a SparsityTracker's `histograms`.
            Zeros are the activations in a narrow bin at 0: it has no width, or reaches
            to at most 0.001 of the largest edge. Without such a bin the panel does not
            tell their share.
        path: A file to write too.

    Returns:
        A `matplotlib.figure.Figure`, the higher the more layers there are.

    Raises:
        ValueError: if `histograms` is empty or an entry is not such a pair.

    Example:

    >>> from keras_sparseout import plots
    >>> edges = [-1.0, -0.1, -1e-9, 1e-9, 0.1, 1.0]
    >>> figure = plots.histograms({"dense": (edges, [0, 0, 60, 10, 30])})
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['zeros 60 %']
    """
    drawing.check_path(path)
    figure = _draw(_check_histograms(histograms))
    return drawing.save(figure, path)


def _draw(spreads):
    layers, source = _layers_and_source(spreads)
    columns = 4 if len(spreads) > 9 else min(3, len(spreads))
    size = 9 if columns == 4 else 10
    figure, panels = _new_panels(len(spreads), columns)
    _set_axis(panels[0], spreads.values(), labels=16 // columns)
    names = drawing.short(layers)
    colours = drawing.depth_colours(len(names))
    highest = max(
        _draw_spread(panel, spread, name, colour, size)
        for panel, spread, name, colour in zip(
            panels, spreads.values(), names, colours, strict=True
        )
    )
    for panel in panels[-columns:]:
        panel.tick_params(labelbottom=True)
    # Room for the text above the highest bar.
    panels[0].set_ylim(0, 1.35 * highest or 1)
    figure.supxlabel(f"activation{source}", size="medium")
    figure.supylabel("share of activations (%)", size="medium")
    return figure


def _new_panels(count, columns):
    """Returns a figure and its `count` panels, in rows of `columns`."""
    rows = math.ceil(count / columns)
    figure = drawing.new_figure(0.8 + (1.5 if columns == 4 else 2.4) * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels, spare = np.split(panels.flat, [count])
    for panel in spare:
        panel.remove()
    return figure, panels


def _draw_spread(panel, spread, name, colour, size):
    """Draws a layer and returns its highest bar, in percent."""
    edges, shares = _coarser(spread, panel)
    panel.stairs(100 * shares, edges, fill=True, color=colour)
    panel.set_title(name, size=size)
    panel.annotate(
        _say_zeros(spread),
        (0.03, 0.95),
        xycoords="axes fraction",
        size=size,
        va="top",
    )
    panel.tick_params(labelsize=size)
    panel.grid(alpha=0.3)
    panel.set_axisbelow(True)
    return 100 * shares.max()


class _Spread(NamedTuple):
    """A histogram as shares of all activations, apart from the zeros (or None)."""

    edges: np.ndarray
    shares: np.ndarray
    zeros: float | None


def _check_histograms(histograms):
    if not isinstance(histograms, Mapping) or not histograms:
        raise ValueError(
            "`histograms` must be a dict of at least one histogram by layer. Received: "
            f"histograms={histograms!r:.80}. Give for example a tracker's `histograms`."
        )
    return {layer: _spread(layer, item) for layer, item in histograms.items()}


def _spread(layer, item):
    pair = item.histogram() if hasattr(item, "histogram") else item
    try:
        edges, counts = (np.asarray(part, float) for part in pair)
        fits = edges.ndim == counts.ndim == 1 and edges.size == counts.size + 1 > 1
    except (TypeError, ValueError):
        fits = False
    if (
        not fits
        or not np.isfinite(edges).all()
        or not np.isfinite(counts).all()
        or (counts < 0).any()
        or (np.diff(edges) < 0).any()
        or edges[0] == edges[-1]
    ):
        raise ValueError(
            "`histograms` must be pairs (edges, counts): n + 1 ascending values and n "
            f"numbers >= 0, all finite. Received: histograms[{layer!r}]={item!r:.80}. "
            "numpy.histogram gives the two the other way round."
        )
    zeros = None
    if not counts.any():
        return _Spread(edges, counts, zeros)
    shares = counts / counts.sum()
    at_zero = np.flatnonzero((edges[:-1] <= 0) & (edges[1:] >= 0))
    if at_zero.size:
        # The narrowest, or the last of equal ones: NumPy's bins hold their left edge.
        place = min(reversed(at_zero), key=lambda i: edges[i + 1] - edges[i])
        reach = np.abs(edges[place : place + 2]).max()
        if reach <= _NARROW * np.abs(edges).max():
            zeros = shares[place]
            shares[place] = 0
    return _Spread(edges, shares, zeros)


def _layers_and_source(spreads):
    """Returns the layers, and on which data they were measured if the keys say so."""
    for kind, data in KINDS.items():
        start = f"{kind}activations/"
        if all(key.startswith(start) for key in spreads):
            return [key.removeprefix(start) for key in spreads], f" on {data} data"
    return list(spreads), ""


def _say_zeros(spread):
    if spread.zeros is None:
        return "" if spread.shares.any() else "no activations"
    percent = 100 * spread.zeros
    # 99.97 must not read as 100, nor 0.03 as 0.
    digits = ".0f" if 1 <= percent <= 99 else ".4g" if percent > 99 else ".2g"
    return f"zeros {percent:{digits}} %"


def _set_axis(panel, spreads, *, labels):
    """Gives `panel` an x axis for all `spreads`, with about `labels` labels."""
    left, linear, right = _extent(spreads)
    panel.set_xscale("symlog", linthresh=linear, linscale=0.5)
    panel.set_xlim(1.2 * left, 1.2 * right)
    smallest = round(math.log10(linear)) + 1
    largest = math.floor(math.log10(max(-left, right)))
    powers = [
        (sign, exponent)
        for sign in (-1, 1)
        for exponent in range(largest, smallest - 1, -1)
        if left <= sign * 10.0**exponent <= right
    ]
    step = math.ceil(len(powers) / labels)
    ticks = {0.0: "0"}
    for sign, exponent in powers:
        if (largest - exponent) % step == 0:
            ticks[sign * 10.0**exponent] = _power(sign, exponent)
    panel.set_xticks(list(ticks), labels=list(ticks.values()))
    panel.set_xticks([s * 10.0**e for s, e in powers], minor=True)


def _power(sign, exponent):
    minus = "-" if sign < 0 else ""
    if -2 <= exponent <= 2:
        return f"${minus}{10.0**exponent:g}$"
    return f"${minus}10^{{{exponent}}}$"


def _extent(spreads):
    """Returns the least activation, the power of 10 up to where the axis is linear, and
    the greatest activation.
    """
    left, near, right = 0.0, math.inf, 0.0
    for edges, shares, _ in spreads:
        filled = np.flatnonzero(shares)
        if not filled.size:
            continue
        low, high = edges[filled], edges[filled + 1]
        left, right = min(left, low[0]), max(right, high[-1])
        inner, outer = np.sort(np.abs([low, high]), axis=0)
        order = np.argsort(outer)
        below = np.cumsum(shares[filled][order]) / shares.sum()
        place = order[np.searchsorted(below, _NEAR_ZERO, side="right")]
        # Not all of a wide bin, which reaches to 0 or nearly.
        near = min(near, max(inner[place], outer[place] / 2))
    if not right > left:
        return 0.0, 0.1, 1.0
    most = max(-left, right)
    return left, 10.0 ** math.floor(math.log10(min(near, most / 10))), right


def _coarser(spread, panel):
    """Returns some edges of `spread`, evenly apart on the axis, and the shares."""
    to_axis = panel.xaxis.get_transform().transform
    edges = to_axis(spread.edges)
    low, high = to_axis(np.array(panel.get_xlim()))
    wanted = np.linspace(low, high, _BARS + 1)
    places = np.unique(np.abs(edges[:, None] - wanted).argmin(axis=0))
    below = np.concatenate([[0], np.cumsum(spread.shares)])
    return spread.edges[places], np.diff(below[places])
