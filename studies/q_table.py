"""What q does to the example's CNN: the first table of docs/results.md.

    python studies/q_table.py

trains examples/fashion_cnn.py for each q and seed. It prints a markdown table of means
and standard deviations over the seeds: the test accuracy, and the sparsity of the
activations on 2,000 test images, averaged over the three places.
"""

import argparse
from functools import partial

import cnn_run
import keras
import numpy as np

from keras_sparseout import Sparseout


def sparseout(rate: float, q: float, name: str) -> Sparseout:
    return Sparseout(rate, q=q, name=name)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--q", type=float, nargs="+", default=[1, 1.5, 2, 2.5, 3])
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    data, classes = cnn_run.fashion_cnn.load_data(cnn_run.fashion_cnn.EMBEDDED)
    progress = keras.utils.Progbar(len(args.q) * args.seeds, unit_name="run")
    rows = {}
    for q in args.q:
        runs = []
        for seed in range(args.seeds):
            layer = partial(sparseout, args.rate, q)
            runs.append(cnn_run.run(data, classes, layer, seed, args.epochs))
            progress.add(1)
        rows[q] = {column: [figures[column] for figures in runs] for column in runs[0]}
    columns = [*cnn_run.FIGURES, cnn_run.ACCURACY]
    print(f"\nrate {args.rate:g}, {args.epochs} epochs, {args.seeds} seeds\n")
    print(f"| q | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for q, row in rows.items():
        cells = [f"{np.mean(row[c]):.3f} ± {np.std(row[c]):.3f}" for c in columns]
        print(f"| {q:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
