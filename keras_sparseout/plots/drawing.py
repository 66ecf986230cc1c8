"""What the pictures share: figures and files, colours, names and labels."""

import os

import numpy as np

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


def check_path(path):
    """Raises unless `path` is None or a file that a picture can be written to."""
    if path is None:
        return
    is_path = isinstance(path, (str, os.PathLike))
    if not is_path or not os.fspath(path).lower().endswith(_SUFFIXES):
        raise ValueError(
            f"`path` must end in {', '.join(_SUFFIXES)}. Received: path={path!r}. "
            "Give for example path='sparsity.png', or leave it out."
        )


def new_figure(height):
    """Returns an empty figure, `height` inches high."""
    try:
        from keras_sparseout.plots.figures import Figure
    except ImportError as error:
        raise ImportError(
            "keras_sparseout.plots needs matplotlib. Install it: "
            'pip install "keras_sparseout[plots]"'
        ) from error
    return Figure(figsize=(WIDTH, height), layout="constrained")


def save(figure, path):
    """Returns `figure`, written to `path` if there is one."""
    if path is not None:
        figure.savefig(path, dpi=_DPI)
    return figure


def metric_label(metric):
    """What stands at an axis of `metric`."""
    return _METRICS.get(metric, metric.replace("_", " "))


def short(names):
    """Returns `names` as they can be drawn, long ones without their middle."""
    longest = 26
    while len({_cut(name, longest) for name in names}) < len(names):
        longest += 4
    # Matplotlib takes a pair of $ for mathematics, and leaves _names out of legends.
    names = [_cut(name, longest).replace("$", r"\$") for name in names]
    return [f" {name}" if name.startswith("_") else name for name in names]


def _cut(name, longest):
    if len(name) <= longest:
        return name
    # Of a path, the end says most.
    start = longest // 3
    return f"{name[:start]}…{name[start + 1 - longest :]}"


def depth_colours(count):
    """Colours for layers from first to last, without viridis' light end."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0, 0.75, count))


def colours_with_gaps():
    """The colours of a map, grey where there is no value."""
    import matplotlib

    return matplotlib.colormaps["viridis"].with_extremes(bad=_GAP)


def gap(label):
    """Returns what stands for a place without value in a legend."""
    from matplotlib.patches import Patch

    return Patch(facecolor=_GAP, label=label)


def looks(layers):
    """Yields each of `layers` with its colour, and its marker if they are few."""
    colours = depth_colours(len(layers))
    if len(layers) > MOST_IN_LEGEND:
        for layer, colour in zip(layers, colours, strict=True):
            yield layer, {"color": colour, "linewidth": 1.2}
    else:
        for layer, colour, marker in zip(layers, colours, MARKERS, strict=False):
            yield layer, {"color": colour, "marker": marker, "markersize": 5}


def outlined():
    """The style of a line that stands out from many."""
    from matplotlib.patheffects import withStroke

    return {"path_effects": [withStroke(linewidth=2, foreground="white")]}


def point(linestyle):
    """Returns how a single point stands for a line: an open one for a dashed line."""
    face = {"markerfacecolor": "white"} if linestyle == "--" else {}
    return {"marker": "o", "markersize": 5, **face}


def curve(panel, readings, key, **style):
    """Draws the readings of `key`, about 12 of them marked; False if there is none."""
    if key not in readings:
        return False
    x, y = readings.points(key)
    if len(x) == 1:
        style = point(style.get("linestyle")) | style
    every = max(1, len(x) // 12)
    panel.plot(x, y, markevery=every, label=key, **style)
    panel.grid(alpha=0.3)
    return True


def line(label, **style):
    """Returns what stands for lines of a `style` in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **{"color": "0.3"} | style)


def legend_beside(panel, handles, title=None):
    """Puts a legend to the right of `panel`."""
    panel.legend(
        handles=handles,
        title=title,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
    )


def legend_above(panel, handles):
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


def legend_for(count):
    """Where legends go in a figure of `count` layers: a function of panel, handles."""
    # A colour bar needs the place beside the panels.
    return legend_beside if count <= MOST_IN_LEGEND else legend_above


def depth_key(figure, panel, layers, handles):
    """Tells which colour is which layer, in a legend, or for many in a colour bar.

    `handles` stand for the rest of what is drawn in `panel`.
    """
    if len(layers) <= MOST_IN_LEGEND:
        named = [
            line(name, **look)
            for name, (_, look) in zip(short(layers), looks(layers), strict=True)
        ]
        legend_beside(panel, named + handles)
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
    some = np.linspace(0, count - 1, 6).round().astype(int)
    bar.set_ticks(some, labels=[short(layers)[i] for i in some])
    # The first layer at the top, as in a model's summary.
    bar.ax.invert_yaxis()
    legend_above(panel, handles)


def finish_epochs(panels):
    """Gives `panels`, which share their x axis, its label and whole numbers."""
    from matplotlib.ticker import MaxNLocator

    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(
        MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
    )
