"""What sparsity costs the example's CNN: Sparseout beside penalties on activations.

    python studies/frontier.py

trains examples/fashion_cnn.py with Sparseout at several q, and with Dropout after an L1
or a Hoyer-square penalty of several weights at the same three places. It prints a
markdown table of means and standard deviations over the seeds: the sparsity of the
activations on 2,000 test images, averaged over the three places, and the test accuracy.
It draws one against the other.
"""

import argparse
import csv
from functools import partial
from pathlib import Path

import cnn_run
import keras
import numpy as np
from cnn_run import fashion_cnn

from keras_sparseout import ActivationPenalty, Sparseout, plots

RATE = 0.3
COLUMNS = ("Hoyer", "zeros", "dead", cnn_run.ACCURACY)


def sparseout(q: float, name: str | None) -> Sparseout:
    return Sparseout(RATE, q=q, name=name)


def penalty(weight: float, name: str, kind: str) -> keras.Model:
    """An activation penalty, then Dropout. In inference both change nothing."""
    layers = [ActivationPenalty(weight, kind), sparseout(2, name=None)]
    return keras.Sequential(layers, name=name)


# The weights span the sparsity that q reaches, and more. An L1 penalty of 0.1 silences
# the network. Each place adds the mean penalty of its vectors, so all weigh the same.
ACTUATORS = {
    "Sparseout, q": (sparseout, (1, 1.25, 1.5, 2, 2.5, 3)),
    "L1, weight": (partial(penalty, kind="l1"), (1e-3, 3e-3, 1e-2, 2e-2, 3e-2)),
    "Hoyer-square, weight": (
        partial(penalty, kind="hoyer_square"),
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    ),
}


def collect(
    data: fashion_cnn.Data, classes: int, seeds: int, epochs: int
) -> list[dict[str, object]]:
    """Returns a row for each setting: means by column, deviations by "column std"."""
    points = sum(len(settings) for _, settings in ACTUATORS.values())
    progress = keras.utils.Progbar(points * seeds, unit_name="run")
    rows = []
    for actuator, (regularizer, settings) in ACTUATORS.items():
        for setting in settings:
            runs = []
            for seed in range(seeds):
                layer = partial(regularizer, setting)
                runs.append(cnn_run.run(data, classes, layer, seed, epochs))
                progress.add(1)
            row = {"actuator": actuator, "setting": setting}
            for column in COLUMNS:
                figures = [figures[column] for figures in runs]
                row[column] = np.mean(figures)
                row[f"{column} std"] = np.std(figures)
            rows.append(row)
    return rows


def print_table(rows: list[dict[str, object]]) -> None:
    print(f"| actuator | setting | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for row in rows:
        cells = [f"{row[c]:.3f} ± {row[f'{c} std']:.3f}" for c in COLUMNS]
        print(f"| {row['actuator']} | {row['setting']:g} | {' | '.join(cells)} |")


def draw(rows: list[dict[str, object]], label: str, path: Path) -> None:
    # A penalty of weight 0 leaves Dropout alone, that is q = 2. The curves start there.
    (dropout,) = (row for row in rows if row["setting"] == 2)
    penalties = [actuator for actuator in ACTUATORS if actuator != "Sparseout, q"]
    starts = [{**dropout, "actuator": name, "setting": 0} for name in penalties]
    points = [
        {
            "actuator": row["actuator"],
            "setting": row["setting"],
            "sparsity": row["Hoyer"],
            "sparsity_std": row["Hoyer std"],
            "accuracy": row[cnn_run.ACCURACY],
            "accuracy_std": row[f"{cnn_run.ACCURACY} std"],
        }
        for row in rows + starts
    ]
    plots.frontier(points, sparsity=label, path=path)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="(%(default)s)")
    parser.add_argument(
        "--out", type=Path, default="docs/frontier.png", help="picture (%(default)s)"
    )
    parser.add_argument(
        "--csv", action="store_true", help="write the rows beside the picture too"
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
    return args


def main():
    args = parse_arguments()
    data, classes = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    rows = collect(data, classes, args.seeds, args.epochs)
    runs = f"rate {RATE:g}, {args.epochs} epochs, {args.seeds} seeds"
    print(f"\n{runs}\n")
    print_table(rows)
    label = f"Hoyer sparsity of activations, mean of three places\n{runs}; bars: ± std"
    draw(rows, label, args.out)
    if args.csv:
        with open(args.out.with_suffix(".csv"), "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
