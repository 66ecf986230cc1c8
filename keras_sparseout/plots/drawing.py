"""What the pictures share: figures, files, colours, names, labels and legends."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_sparseout.plots.readings import Readings
from keras_sparseout.utils.types import PathLike

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Keyword arguments of Matplotlib that say how something looks.
Style: TypeAlias = dict[str, Any]

# Inches. At 130 dots an inch, text of 10 points is 14 pixels high where the picture is
# shown 900 pixels wide.
WIDTH = 9
_DPI = 130
_SUFFIXES = (".png", ".svg", ".pdf")

# More lines than this can't be told apart.
MOST_IN_LEGEND = 8
# Of different shapes, for readers and printers that do not see the colours.
MARKERS = "os^DvPX*"

_GAP = "0.75"

_METRICS = {
    "hoyer": "Hoyer sparsity\n(0 dense, 1 sparse)",
    "gini": "Gini index\n(0 dense, 1 sparse)",
    "zero_fraction": "fraction of zeros",
    "population_sparseness": "population sparseness\n(0 dense, 1 sparse)",
    "pq_index": "PQ index\n(0 dense, 1 sparse)",
    "kurtosis": "excess kurtosis\n(0 Gaussian, high sparse)",
    "dead_units": "dead units\n(fraction of all)",
    "firing_rate": "firing rate\n(fraction of samples)",
    "lifetime_sparseness": "lifetime sparseness\n(0 dense, 1 sparse)",
    "rms": "RMS of activations",
}


def check_path(path: PathLike | None) -> None:
    """Raises unless `path` is None or has the suffix of a picture."""
    if path is None:
        return
    is_path = isinstance(path, (str, os.PathLike))
    if not is_path or not os.fspath(path).lower().endswith(_SUFFIXES):
        raise ValueError(
            f"`path` must end in {', '.join(_SUFFIXES)}. Received: path={path!r}. "
            "Give for example path='sparsity.png', or leave it out."
        )


def new_figure(height: float) -> "Figure":
    """Returns an empty figure, `height` inches high."""
    try:
        from keras_sparseout.plots.notebook_figure import Figure
    except ImportError as error:
        raise ImportError(
            "keras_sparseout.plots needs matplotlib. Install it: "
            'pip install "keras_sparseout[plots]"'
        ) from error
    return Figure(figsize=(WIDTH, height), layout="constrained")


def save(figure: "Figure", path: PathLike | None) -> "Figure":
    """Writes `figure` to `path` if there is one, and returns it."""
    if path is not None:
        figure.savefig(path, dpi=_DPI)
    return figure


def metric_label(metric: str) -> str:
    """Returns the label of an axis that shows `metric`."""
    return _METRICS.get(metric, metric.replace("_", " "))


def short(names: Sequence[str]) -> list[str]:
    """Returns `names` ready to draw: long ones without their middle, all different."""
    longest = 26
    while len({_cut(name, longest) for name in names}) < len(names):
        longest += 4
    # Matplotlib reads a pair of $ as mathematics, and leaves _names out of legends.
    cut = [_cut(name, longest).replace("$", r"\$") for name in names]
    return [f" {name}" if name.startswith("_") else name for name in cut]


def _cut(name, longest):
    if len(name) <= longest:
        return name
    # The end of a path says most.
    start = longest // 3
    return f"{name[:start]}…{name[start + 1 - longest :]}"


def depth_colours(count: int) -> np.ndarray:
    """Returns colours for layers from first to last, without viridis' light end."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0, 0.75, count))


def colours_with_gaps() -> "Colormap":
    """Returns the colours of a map, grey where there is no value."""
    import matplotlib

    return matplotlib.colormaps["viridis"].with_extremes(bad=_GAP)


def gap(label: str) -> "Artist":
    """Returns the legend entry of places without a value."""
    from matplotlib.patches import Patch

    return Patch(facecolor=_GAP, label=label)


def looks(layers: Sequence[str]) -> Iterator[tuple[str, Style]]:
    """Yields each layer with its colour, and if there are few with its marker."""
    colours = depth_colours(len(layers))
    if len(layers) > MOST_IN_LEGEND:
        for layer, colour in zip(layers, colours, strict=True):
            yield layer, {"color": colour, "linewidth": 1.2}
    else:
        for layer, colour, marker in zip(layers, colours, MARKERS, strict=False):
            yield layer, {"color": colour, "marker": marker, "markersize": 5}


def outlined() -> Style:
    """Returns the style of a line that stands out from many."""
    from matplotlib.patheffects import withStroke

    return {"path_effects": [withStroke(linewidth=2, foreground="white")]}


def point(linestyle: str | None) -> Style:
    """Returns how a line of a single point looks: an open point for a dashed line."""
    face = {"markerfacecolor": "white"} if linestyle == "--" else {}
    return {"marker": "o", "markersize": 5, **face}


def curve(panel: "Axes", readings: Readings, key: str, **style: Any) -> bool:
    """Draws the readings of `key`, with about 12 markers; False if there are none."""
    if key not in readings:
        return False
    x, y = readings.points(key)
    if len(x) == 1:
        style = point(style.get("linestyle")) | style
    every = max(1, len(x) // 12)
    panel.plot(x, y, markevery=every, label=key, **style)
    panel.grid(alpha=0.3)
    return True


def line(label: str, **style: Any) -> "Artist":
    """Returns the legend entry of lines of a style."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **{"color": "0.3"} | style)


def legend_beside(
    panel: "Axes", handles: Sequence["Artist"], title: str | None = None
) -> None:
    """Puts a legend to the right of `panel`."""
    panel.legend(
        handles=handles,
        title=title,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
    )


def legend_above(panel: "Axes", handles: Sequence["Artist"]) -> None:
    """Puts a legend of one row on top of `panel`."""
    panel.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0,
        ncols=len(handles),
        columnspacing=1,
        handlelength=1.8,
        frameon=False,
    )


def legend_for(count: int) -> Callable[["Axes", Sequence["Artist"]], None]:
    """Returns the function that adds a legend in a figure of `count` layers."""
    # A colour bar needs the place beside the panels.
    return legend_beside if count <= MOST_IN_LEGEND else legend_above


def depth_key(
    figure: "Figure", panel: "Axes", layers: Sequence[str], handles: Sequence["Artist"]
) -> None:
    """Adds a legend of the layers to `panel`, or a colour bar if there are many.

    `handles` are the legend entries of all else that `panel` shows.
    """
    if len(layers) <= MOST_IN_LEGEND:
        named = [
            line(name, **look)
            for name, (_, look) in zip(short(layers), looks(layers), strict=True)
        ]
        legend_beside(panel, [*named, *handles])
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    count = len(layers)
    bar = figure.colorbar(
        ScalarMappable(
            Normalize(-0.5, count - 0.5), ListedColormap(depth_colours(count))
        ),
        ax=panel,
        label="layers, first to last",
    )
    some = np.linspace(0, count - 1, 6).round().astype(int).tolist()
    bar.set_ticks(some, labels=[short(layers)[i] for i in some])
    # The first layer at the top, as in a model's summary.
    bar.ax.invert_yaxis()
    legend_above(panel, handles)


def finish_epochs(panels: Sequence["Axes"]) -> None:
    """Labels the x axis that `panels` share, with ticks at whole epochs."""
    from matplotlib.ticker import MaxNLocator

    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(
        MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
    )
