"""What sparsity costs the example's CNN: Sparseout, penalties and thresholds.

    python studies/frontier.py

trains examples/fashion_cnn.py with one of these at three places:

- Sparseout at several q,
- an L1 or a Hoyer-square penalty of several weights, then Dropout,
- a threshold for several shares of zeros, alone or after an L1 penalty, then Dropout.

It prints a markdown table of means and standard deviations over the seeds: the sparsity
of the activations on 2,000 test images, averaged over the three places, the share of
the model's multiply-accumulates that zeros make needless, and the test accuracy. It
draws accuracy against Hoyer sparsity and against the needless multiply-accumulates.
"""

import argparse
import csv
from functools import partial
from pathlib import Path

import cnn_run
import keras
import numpy as np
from cnn_run import fashion_cnn
from finished_runs import FinishedRuns

from keras_sparseout import ActivationPenalty, Sparseout, TargetSparsity, plots

RATE = 0.3
# Weight of the penalty that goes with thresholds.
L1 = 1e-2
COLUMNS = ("Hoyer", "zeros", "dead", cnn_run.NEEDLESS, cnn_run.ACCURACY)
# What the picture shows accuracy against.
AXES = {
    "Hoyer": "Hoyer sparsity of activations, mean of three places",
    cnn_run.NEEDLESS: "needless multiply-accumulates, share of the whole model's",
}
# The keys of the picture's points, and their columns.
KEYS = {**{key: key for key in AXES}, "accuracy": cnn_run.ACCURACY}
# What tells one run from another, and all that a run gives.
SETTINGS = ("actuator", "setting", "rate", "epochs", "seed")
FIGURES = (
    *cnn_run.FIGURES,
    cnn_run.NEEDLESS,
    *cnn_run.NEEDLESS_AT.values(),
    cnn_run.ACCURACY,
)


def sparseout(q: float, name: str | None) -> Sparseout:
    return Sparseout(RATE, q=q, name=name)


def penalty(weight: float, name: str, kind: str) -> keras.Model:
    """An activation penalty, then Dropout. In inference both change nothing."""
    layers = [ActivationPenalty(weight, kind), sparseout(2, name=None)]
    return keras.Sequential(layers, name=name)


def threshold(target: float, name: str, weight: float = 0) -> keras.Model:
    """A threshold, then Dropout. With a weight, an L1 penalty comes before it."""
    penalties = [ActivationPenalty(weight)] if weight else []
    layers = [*penalties, TargetSparsity(target), sparseout(2, name=None)]
    return keras.Sequential(layers, name=name)


# The weights span the sparsity that q reaches, and more. An L1 penalty of 0.1 silences
# the network. Each place adds the mean penalty of its vectors, so all weigh the same.
ACTUATORS = {
    "Sparseout, q": (sparseout, (1, 1.25, 1.5, 2, 3)),
    "L1, weight": (partial(penalty, kind="l1"), (1e-3, 3e-3, 1e-2, 3e-2)),
    "Hoyer-square, weight": (
        partial(penalty, kind="hoyer_square"),
        (3e-4, 1e-3, 3e-3, 1e-2),
    ),
    "threshold, target": (threshold, (0.6, 0.7, 0.8, 0.85, 0.9)),
    "threshold + L1, target": (
        partial(threshold, weight=L1),
        (0.7, 0.8, 0.85, 0.9),
    ),
}
# What a curve is at 0: a penalty of weight 0 and a threshold for 0 zeros leave Dropout
# alone, that is q = 2. Where an L1 penalty comes before the threshold, it stays.
DROPOUT = "Sparseout, q", 2
STARTS = {
    "L1, weight": DROPOUT,
    "Hoyer-square, weight": DROPOUT,
    "threshold, target": DROPOUT,
    "threshold + L1, target": ("L1, weight", L1),
}


def collect(
    data: fashion_cnn.Data, classes: int, seeds: int, epochs: int, runs: FinishedRuns
) -> list[dict[str, object]]:
    """Returns a row for each setting: means by column, deviations by "column std"."""
    points = [
        (actuator, regularizer, setting)
        for actuator, (regularizer, settings) in ACTUATORS.items()
        for setting in settings
    ]
    progress = keras.utils.Progbar(len(points) * seeds, unit_name="run")
    rows = []
    for actuator, regularizer, setting in points:
        figures = []
        for seed in range(seeds):
            run = actuator, setting, RATE, epochs, seed
            if run not in runs:
                layer = partial(regularizer, setting)
                runs.add(run, cnn_run.run(data, classes, layer, seed, epochs))
            figures.append(runs[run])
            progress.add(1)
        row = {"actuator": actuator, "setting": setting}
        for column in FIGURES:
            row[column] = np.mean([run[column] for run in figures])
            row[f"{column} std"] = np.std([run[column] for run in figures])
        rows.append(row)
    return rows


def print_table(rows: list[dict[str, object]]) -> None:
    print(f"| actuator | setting | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for row in rows:
        cells = [f"{row[c]:.3f} ± {row[f'{c} std']:.3f}" for c in COLUMNS]
        print(f"| {row['actuator']} | {row['setting']:g} | {' | '.join(cells)} |")


def draw(rows: list[dict[str, object]], title: str, path: Path) -> None:
    by_setting = {(row["actuator"], row["setting"]): row for row in rows}
    starts = [
        {**by_setting[same], "actuator": actuator, "setting": 0}
        for actuator, same in STARTS.items()
        if actuator in ACTUATORS and same in by_setting
    ]
    points = []
    for row in rows + starts:
        point = {"actuator": row["actuator"], "setting": row["setting"]}
        for key, column in KEYS.items():
            point[key], point[f"{key}_std"] = row[column], row[f"{column} std"]
        points.append(point)
    figure = plots.frontier(points, sparsity=AXES)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="(%(default)s)")
    parser.add_argument(
        "--out", type=Path, default="docs/frontier.png", help="picture (%(default)s)"
    )
    parser.add_argument(
        "--csv", action="store_true", help="write the rows beside the picture too"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="CSV",
        help="add each run to this file as it ends, and repeat none that is in it",
    )
    args = parser.parse_args()
    for name in ("seeds", "epochs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1. Received: {vars(args)[name]}.")
    # Now, not after all the runs.
    if args.out.suffix not in (".png", ".svg", ".pdf") or not args.out.parent.is_dir():
        parser.error(
            "--out must be a .png, .svg or .pdf file in a folder that exists. "
            f"Received: {args.out}."
        )
    if args.runs is not None and not args.runs.parent.is_dir():
        parser.error(
            f"--runs must be a file in a folder that exists. Received: {args.runs}."
        )
    try:
        args.runs = FinishedRuns(args.runs, SETTINGS, FIGURES)
    except ValueError as error:
        parser.error(f"--runs: {error}")
    return args


def main():
    args = parse_arguments()
    data, classes = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    rows = collect(data, classes, args.seeds, args.epochs, args.runs)
    runs = f"rate {RATE:g}, {args.epochs} epochs, {args.seeds} seeds"
    print(f"\n{runs}\n")
    print_table(rows)
    title = f"The example's CNN on Fashion-MNIST, test images\n{runs}; bars: ± std"
    draw(rows, title, args.out)
    if args.csv:
        with open(args.out.with_suffix(".csv"), "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
