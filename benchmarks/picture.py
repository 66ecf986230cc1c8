"""The picture of the time an element takes against the size of a tensor."""

import io
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.settings import OTHER


def draw_sizes(per_element: Mapping[str, Mapping[int, float]], time: str) -> bytes:
    """Returns a PNG with a curve a name: nanoseconds by number of elements.

    `time` says which time they are of.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    colors: dict[str, str] = {}
    for name, times in per_element.items():
        color = colors.setdefault(name.removesuffix(OTHER), f"C{len(colors)}")
        axes.plot(
            [*times],
            [*times.values()],
            "--" if name.endswith(OTHER) else "-",
            color=color,
            marker="o",
            markersize=4,
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("elements of the tensor (float32)")
    axes.set_ylabel(f"{time} ns an element, forward and backward")
    axes.set_title("Time an element takes, by size: fastest round of each")
    axes.grid(alpha=0.3)
    axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    return png.getvalue()
