"""How to train with thresholds: several ways to ask for the same share of zeros.

    python studies/thresholds.py

trains examples/fashion_cnn.py with a TargetSparsity layer at three places, in several
ways. It prints a markdown table of means and standard deviations over the seeds: the
share of the model's multiply-accumulates that zeros make needless, the shares of zeros
and of dead units on 2,000 test images, averaged over the three places, and the test
accuracy.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import cnn_run
import keras
import numpy as np
from cnn_run import fashion_cnn
from finished_runs import FinishedRuns
from frontier import L1, RATE

from keras_sparseout import ActivationPenalty, Sparseout, TargetSparsity

COLUMNS = ("zeros", "dead", cnn_run.NEEDLESS, cnn_run.ACCURACY)


def ramp(target: float, done: float) -> float:
    """From half of the zeros to the target, over the first half of training."""
    return 0.5 + (target - 0.5) * min(1.0, 2 * done)


def last_eighth(target: float, done: float) -> float:
    """With 8 epochs, this is the last one."""
    return target if done >= 7 / 8 else 0.0


class Way(NamedTuple):
    """A way of training with thresholds.

    Attributes:
        axis: None for one threshold, -1 for one for each channel or unit.
        straight_through: Whether the gradient passes below the threshold too.
        rate: Rate of the Dropout behind the threshold.
        weight: Weight of the L1 penalty before the threshold.
        schedule: Function of the target, and of the part of training that is done,
            that returns the target for now.
    """

    axis: Literal[-1] | None = None
    straight_through: bool = False
    rate: float = RATE
    weight: float = 0
    schedule: Callable[[float, float], float] | None = None


WAYS = {
    "from the start": Way(),
    f"after an L1 penalty of {L1:g}": Way(weight=L1),
    "`straight_through=True`": Way(straight_through=True),
    "no Dropout behind it": Way(rate=0),
    "in the last epoch alone": Way(schedule=last_eighth),
    "target raised over the first half": Way(schedule=ramp),
    "`axis=-1`": Way(axis=-1),
}


class Scheduled(keras.callbacks.Callback):
    """Makes the layers of a way, and moves their targets before each epoch."""

    def __init__(self, way: Way, target: float, epochs: int) -> None:
        super().__init__()
        self.way, self.target, self.epochs = way, target, epochs
        self.thresholds: list[TargetSparsity] = []

    def make(self, name: str) -> keras.Model:
        way = self.way
        cutting = TargetSparsity(
            self.target,
            axis=way.axis,
            straight_through=way.straight_through,
            adjustable=way.schedule is not None,
        )
        self.thresholds.append(cutting)
        penalties = [ActivationPenalty(way.weight)] if way.weight else []
        # At q = 2, which is Dropout.
        layers = [*penalties, cutting, Sparseout(way.rate, q=2)]
        return keras.Sequential(layers, name=name)

    def on_epoch_begin(self, epoch, logs=None):
        if self.way.schedule is not None:
            for cutting in self.thresholds:
                cutting.target = self.way.schedule(self.target, epoch / self.epochs)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", type=float, default=0.8, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="(%(default)s)")
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="CSV",
        help="add each run to this file as it ends, and repeat none that is in it",
    )
    args = parser.parse_args()
    try:
        TargetSparsity(args.target)
        settings = ("way", "target", "epochs", "seed")
        runs = FinishedRuns(args.runs, settings, COLUMNS)
    except ValueError as error:
        parser.error(str(error))

    data, classes = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    progress = keras.utils.Progbar(len(WAYS) * args.seeds, unit_name="run")
    rows = {}
    for name, way in WAYS.items():
        for seed in range(args.seeds):
            run = name, args.target, args.epochs, seed
            if run not in runs:
                parts = Scheduled(way, args.target, args.epochs)
                figures = cnn_run.run(
                    data, classes, parts.make, seed, args.epochs, [parts]
                )
                runs.add(run, figures)
            rows.setdefault(name, []).append(runs[run])
            progress.add(1)
    print(f"\ntarget {args.target:g}, {args.epochs} epochs, {args.seeds} seeds\n")
    print(f"| | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, figures in rows.items():
        values = [[run[column] for run in figures] for column in COLUMNS]
        cells = [f"{np.mean(v):.3f} ± {np.std(v):.3f}" for v in values]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
