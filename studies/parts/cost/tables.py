"""The tables and the picture of the study `cost`."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.interleave import differences, fastest
from benchmarks.timing import Spent
from keras_sparseout.plots import drawing
from studies.parts.cost.models import DROPOUT, METHODS, MODELS, NOTHING, RATE
from studies.statistics import Interval, interval, paired
from studies.tables import MISSING, cell, markdown

TIME, MEMORY = "time", "memory"
OTHERS = [method for method in METHODS if method != NOTHING]
# A list for each method, with a figure for each repeat.
Values = dict[str, list[float]]
Done = Mapping[Any, dict[str, Any]]

CPU, MEDIAN, WALL = "CPU ms", "median", "wall ms"
CPU_RATIO, WALL_RATIO, ADDED = "CPU to nothing", "wall to nothing", "added CPU ms"
DIGITS = {CPU: 2, MEDIAN: 2, WALL: 2, CPU_RATIO: 3, WALL_RATIO: 3, ADDED: 2}
ABOVE_DROPOUT, TO_DROPOUT = "above what Dropout adds", "to what Dropout adds"
WHOLE, EACH = "MB", "KB a sample"

TIMES_NOTE = f"""\
Drop rate {RATE}. A step in `fit` with Adam. CPU time is that of all threads of the
process. CPU and wall time are of the fastest round, and so are the ratios to the same
model with nothing; the median is of CPU time. The added time is the median of the
differences to nothing within the rounds. What is given is the mean over the repeats,
with its 95 % interval if there are several. What a method adds above what Dropout adds
is a paired difference, by repeat. The last column compares means, if the interval of
what Dropout adds lies above 0."""
MEMORY_NOTE = """\
What a process with one method takes, at the worst moment, above what it had before the
model was built. *MB* is that of building the model and of its first steps with the
usual batch: weights, the state of Adam, tracing and compiling are in it. *KB a sample*
is what a larger batch takes above that, divided by the samples that it has more. Given
are the mean over the repeats, and how far they are from it at most."""


def times_of(done: Done, model: str) -> dict[str, Values]:
    """Returns what is known of each method's time: by column, by method, by repeat."""
    columns: dict[str, Values] = {name: {} for name in DIGITS}
    for settings, figures in done.items():
        if (settings.figure, settings.model) != (TIME, model):
            continue
        for method, figure in _of_a_run(figures["seconds"], settings.steps).items():
            for name, value in figure.items():
                columns[name].setdefault(method, []).append(value)
    return columns


def _of_a_run(seconds, steps):
    """The columns of each method, from the seconds of its rounds."""
    rounds = {name: [Spent(*one) for one in seconds[name]] for name in seconds}
    nothing = rounds[NOTHING]
    for method, each in rounds.items():
        cpu, wall = fastest(each)
        added = statistics.median(differences(each, nothing))
        median = statistics.median(one.cpu for one in each)
        figures = {
            CPU: 1e3 * cpu / steps,
            MEDIAN: 1e3 * median / steps,
            WALL: 1e3 * wall / steps,
        }
        if method != NOTHING:
            figures |= {
                CPU_RATIO: cpu / fastest(nothing).cpu,
                WALL_RATIO: wall / fastest(nothing).wall,
                ADDED: 1e3 * added / steps,
            }
        rounds[method] = figures
    return rounds


def memory_of(done: Done, model: str) -> dict[str, Values]:
    """Returns what is known of each method's memory, as `times_of` does."""
    columns: dict[str, Values] = {WHOLE: {}, EACH: {}}
    for settings, figures in done.items():
        if (settings.figure, settings.model) != (MEMORY, model):
            continue
        more = figures["larger"] - figures["whole"]
        figure = {WHOLE: figures["whole"], EACH: 1024 * more / figures["samples"]}
        for name, value in figure.items():
            columns[name].setdefault(settings.methods[0], []).append(value)
    return columns


def tables(done: Done) -> str:
    """Returns a table of time for each model, and one of memory for all."""
    parts = [_machines(done), TIMES_NOTE]
    for model in MODELS:
        parts += [f"### Time of a step, {model}", _time_table(times_of(done, model))]
    parts += ["### Memory", MEMORY_NOTE, _memory_table(done)]
    return "\n\n".join(part.strip() for part in parts)


def _machines(done):
    """A line for each machine: times are those of a machine."""
    loads: dict[str, list[float]] = {}
    for settings, figures in done.items():
        known = {name: figures["machine"][name] for name in ("CPU", "tensorflow")}
        text = (
            f"{figures['machine']['cores']} cores of {known['CPU']}, TensorFlow "
            f"{known['tensorflow']}, {settings.threads} threads a run"
        )
        if settings.jit_compile:
            text += ", `jit_compile=True`"
        load = float(figures["machine"]["load before the run"].split()[0])
        loads.setdefault(text, []).append(load)
    return "\n".join(
        f"- {len(each)} runs: {text}. The load of the machine before a run was "
        f"{min(each):.1f} to {max(each):.1f}."
        for text, each in loads.items()
    )


def _time_table(columns):
    dropout = _interval(columns[ADDED].get(DROPOUT))
    rows = []
    for method in METHODS:
        cells = [
            _cell(columns[name].get(method), digits) for name, digits in DIGITS.items()
        ]
        added, to_dropout = columns[ADDED].get(method), MISSING
        if added and dropout and dropout.low > 0:
            to_dropout = cell(interval(added).mean / dropout.mean, digits=2)
        above = MISSING
        if added and dropout and method != DROPOUT:
            known = paired(added, columns[ADDED][DROPOUT])
            above = cell(known.mean, (known.high - known.low) / 2, digits=2)
        rows.append([method, *cells, above, to_dropout])
    return markdown(["", *DIGITS, ABOVE_DROPOUT, TO_DROPOUT], rows)


def _memory_table(done):
    columns = {
        f"{model}: {name}": by_method
        for model in MODELS
        for name, by_method in memory_of(done, model).items()
    }
    rows = [
        [method, *(_around(by_method.get(method)) for by_method in columns.values())]
        for method in METHODS
    ]
    return markdown(["", *columns], rows)


def _around(values: Sequence[float] | None) -> str:
    """A mean of repeats too few for an interval."""
    if not values:
        return MISSING
    mean = statistics.mean(values)
    furthest = max(abs(value - mean) for value in values)
    return cell(mean, furthest if len(values) > 1 else None, digits=0)


def _interval(values: Sequence[float] | None) -> Interval | None:
    return interval(values) if values else None


def _cell(values: Sequence[float] | None, digits: int) -> str:
    known = _interval(values)
    return cell(known.mean, known.half, digits) if known else MISSING


def draw(done: Done, folder: Path) -> None:
    """Draws CPU time and memory of all methods, as multiples of the same with none."""
    figure = drawing.new_figure(4.2)
    panels = figure.subplots(1, 2, sharey=True)
    looks = dict(drawing.looks(list(MODELS)))
    for number, (model, look) in enumerate(looks.items()):
        shift = 0.2 * (number - 1)
        time, each = times_of(done, model)[CPU_RATIO], memory_of(done, model)[EACH]
        for panel, by_method in zip(panels, (time, _to_nothing(each)), strict=True):
            _points(panel, by_method, shift, look)
    panels[0].set_yticks(range(len(OTHERS)), OTHERS)
    panels[0].invert_yaxis()
    for panel, what in zip(
        panels, ("CPU time of a step", "memory a sample"), strict=True
    ):
        panel.axvline(1, color="0.5", linewidth=1)
        panel.set_xlabel(f"{what}, to that with nothing")
        panel.grid(alpha=0.3)
    drawing.legend_beside(
        panels[1],
        [drawing.line(model, linestyle="", **look) for model, look in looks.items()],
    )
    drawing.save(figure, folder / "cost.png")


def _to_nothing(by_method):
    base = by_method.get(NOTHING)
    if not base:
        return {}
    mean = statistics.mean(base)
    return {name: [value / mean for value in by_method[name]] for name in by_method}


def _points(panel, by_method, shift, look):
    """A point for each method: the mean of the repeats, and all of them in a line."""
    for place, method in enumerate(OTHERS):
        if values := by_method.get(method):
            mean = statistics.mean(values)
            ends = [[mean - min(values)], [max(values) - mean]]
            panel.errorbar(
                mean, place + shift, xerr=ends, linestyle="", capsize=2, **look
            )
