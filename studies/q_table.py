"""What q does to the example's CNN: the table of the README.

    python studies/q_table.py

trains examples/fashion_cnn.py for each q and seed, and prints a markdown table of means
over the seeds, with standard deviations, of test accuracy and of the activations of all
three places on 2,000 test images.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_cnn

from keras_sparseout import Sparseout


def run(data, classes, rate, q, seed, epochs):
    """Returns the figures of one training run, by column."""
    keras.utils.set_random_seed(seed)
    model = fashion_cnn.build_model(
        data[0][0].shape[1:], classes, lambda name: Sparseout(rate, q=q, name=name)
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*data[0], batch_size=64, epochs=epochs, verbose=0)
    accuracy, table = fashion_cnn.measure(model, data)
    columns = ("Hoyer", "zeros", "dead", "RMS")
    means = {c: np.mean([row[c] for row in table.values()]) for c in columns}
    return {**means, "test accuracy": accuracy}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--q", type=float, nargs="+", default=[1, 1.5, 2, 2.5, 3])
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    data, classes = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    progress = keras.utils.Progbar(len(args.q) * args.seeds, unit_name="run")
    rows = {}
    for q in args.q:
        runs = []
        for seed in range(args.seeds):
            runs.append(run(data, classes, args.rate, q, seed, args.epochs))
            progress.add(1)
        rows[q] = {column: [figures[column] for figures in runs] for column in runs[0]}
    columns = list(rows[args.q[0]])
    print(f"\nrate {args.rate:g}, {args.epochs} epochs, {args.seeds} seeds\n")
    print(f"| q | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for q, row in rows.items():
        cells = [f"{np.mean(row[c]):.3f} ± {np.std(row[c]):.3f}" for c in columns]
        print(f"| {q:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
