"""Data that the tests of pictures share, and how they look at one."""

import itertools

import matplotlib
import numpy as np
from matplotlib.legend import Legend
from matplotlib.text import Text

FEW = ("block1", "block2", "hidden")
MANY = [
    f"encoder/block_{index // 4}/{part}"
    for index, part in zip(range(60), itertools.cycle(("mlp", "attention", "out", "q")))
]


def figures(layers, epochs=6, metric="hoyer", kinds=("", "val_")):
    """A history as `fit` gives it, in which no two figures are equal."""
    rng = np.random.default_rng(0)
    history = {}
    for kind in kinds:
        history[f"{kind}accuracy"] = list(rng.uniform(0.5, 0.9, epochs))
        for layer in layers:
            history[f"{kind}{metric}/{layer}"] = list(rng.uniform(0.2, 0.8, epochs))
        history[f"{kind}{metric}"] = list(rng.uniform(0.2, 0.8, epochs))
    return history


def readings(layers, epochs=4, every=10, actuator="q"):
    """A history as a controller gives it: val_ figures at the ends of epochs alone."""
    rng = np.random.default_rng(0)
    count = epochs * every
    history = {"epoch": list(np.arange(1, count + 1) / every)}
    for layer in layers:
        history[f"hoyer/{layer}"] = list(rng.uniform(0.2, 0.8, count))
        ends = np.where(np.arange(1, count + 1) % every, np.nan, 0.6)
        history[f"val_hoyer/{layer}"] = list(ends)
        history[f"{actuator}/{layer}"] = list(rng.uniform(1, 3, count))
    return history


def rows(actuators=("q", "rate", "weight"), settings=(4, 1, 2, 3)):
    return [
        {
            "actuator": actuator,
            "setting": setting,
            "sparsity": 0.9 - 0.1 * setting - 0.02 * index,
            "accuracy": 0.8 + 0.01 * setting - 0.01 * index,
        }
        for index, actuator in enumerate(actuators)
        for setting in settings
    ]


def line(panel, key):
    (found,) = [line for line in panel.get_lines() if line.get_label() == key]
    return found


def words(figure):
    """All texts that are seen, with their boxes in pixels."""
    figure.draw_without_rendering()
    labels, seen = set(), set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            labels |= set(axis.findobj(Text)) - {axis.label}
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if low <= tick.get_loc() <= high:
                    seen.add(tick.label1)
    seen |= set(figure.findobj(Text)) - labels
    return [
        (text.get_text(), text.get_window_extent())
        for text in seen
        if text.get_visible() and text.get_text().strip()
    ]


def assert_readable(figure):
    """All texts lie in the figure, none over another, and no legend over a panel."""
    texts = words(figure)
    assert texts
    for text, box in texts:
        outside = 4 - figure.bbox.padded(1).count_contains(box.corners())
        assert not outside, f"{text!r} is cut off"
    left, bottom, right, top = np.transpose([box.extents for _, box in texts])
    # Each with each; by a pixel they may overlap.
    overlaps = np.minimum(right[:, None], right) - np.maximum(left[:, None], left) > 1
    overlaps &= np.minimum(top[:, None], top) - np.maximum(bottom[:, None], bottom) > 1
    for one, other in zip(*np.nonzero(np.triu(overlaps, 1)), strict=True):
        raise AssertionError(f"{texts[one][0]!r} and {texts[other][0]!r} overlap")
    for legend in figure.findobj(Legend):
        box = legend.get_window_extent().padded(-1)
        assert not box.count_overlaps([panel.bbox for panel in figure.axes])


def colours(lines):
    return [matplotlib.colors.to_hex(line.get_color()) for line in lines]
