"""Cost of watching: an epoch of the example's CNN with and without SparsityTracker.

    python benchmarks/tracker.py

prints the CPU time of an epoch over the example's 9,000 images, and what the tracker
adds to it: in the training step (without probe data), and at the end of each epoch
(with probe data). Epochs take turns. The figure is the median of the differences
within the rounds.
"""

import argparse
import os
import statistics
import sys
import threading
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from interleave import fastest, measure, print_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from fashion_cnn import EMBEDDED, build_model, load_data

from keras_sparseout import Sparseout, SparsityTracker


class Turns(keras.callbacks.Callback):
    """Runs a `fit` in a thread, and holds it at the end of each epoch until called.

    So one fit runs at a time, and each is traced only once. Put it last among the
    callbacks: then an epoch's turn includes all that the others do at its beginning and
    end.
    """

    def __init__(self, fit: Callable[["Turns"], None]) -> None:
        super().__init__()
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=fit, args=(self,), daemon=True)

    def __call__(self):
        """Runs one epoch."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        while not self._done.acquire(timeout=1):
            if not self._thread.is_alive():
                raise RuntimeError("A fit broke off: see its error above.")

    def on_epoch_end(self, epoch, logs=None):
        """Waits for the next turn."""
        self._done.release()
        self._go.acquire()

    def end(self):
        """Lets the fit end after its last epoch."""
        self._go.release()
        self._thread.join()


def training(
    data: tuple[np.ndarray, np.ndarray],
    trackers: list[SparsityTracker],
    batch_size: int,
    epochs: int,
) -> Turns:
    """Training of the example's CNN, an epoch a call."""
    x, y = data

    def fit(turns):
        keras.utils.set_random_seed(1)
        model = build_model(
            x.shape[1:], 10, lambda name: Sparseout(0.3, q=1.5, name=name)
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=0,
            callbacks=[*trackers, turns],
        )

    return Turns(fit)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--probe", type=int, default=512, help="samples of probe data")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()

    (train, (x_valid, _), _), _ = load_data(EMBEDDED)
    trackers = {
        "no tracker": [],
        "no tracker again": [],  # Differences that come from the machine.
        "SparsityTracker()": [SparsityTracker(verbose=0)],
        f"with {args.probe} probe samples": [
            SparsityTracker(x_valid[: args.probe], verbose=0)
        ],
    }
    burn_in = 1  # For tracing and compiling.
    candidates = {
        name: training(train, callbacks, args.batch_size, burn_in + args.rounds)
        for name, callbacks in trackers.items()
    }
    print_machine()
    print(f"\nan epoch of {len(train[0]):,} images in batches of {args.batch_size}")
    rounds_of = measure(candidates, rounds=args.rounds, burn_in=burn_in)
    for turns in candidates.values():
        turns.end()

    results = fastest(rounds_of)
    for name, (cpu, wall) in results.items():
        added = [
            with_it[0] / without[0] - 1
            for with_it, without in zip(
                rounds_of[name], rounds_of["no tracker"], strict=True
            )
        ]
        print(
            f"{name:<24} {cpu:6.2f} s CPU {wall:6.2f} s wall   "
            f"added {100 * statistics.median(added):5.1f} % CPU "
            f"({100 * min(added):.1f} to {100 * max(added):.1f})"
        )


if __name__ == "__main__":
    main()
