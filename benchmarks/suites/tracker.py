"""Cost of watching: an epoch of the example's CNN with and without SparsityTracker.

What the tracker adds in the training step (without probe data), and at the end of each
epoch (with probe data). Epochs take turns.
"""

import statistics
import threading
from collections.abc import Callable, Iterable

import keras
import numpy as np

from benchmarks.interleave import fastest
from benchmarks.models import EXAMPLE, compiled_model, fashion_cnn
from benchmarks.processes import Turns
from benchmarks.ratios import own
from benchmarks.report import Row, Table
from benchmarks.settings import Settings
from keras_sparseout import SparsityTracker

NONE = "no tracker"
BATCH_SIZE, PROBE, BURN_IN = 64, 512, 1


class Epochs(keras.callbacks.Callback):
    """Runs a `fit` in a thread, and holds it at the end of each epoch until called.

    So one fit runs at a time, and each is traced only once. Put it last among the
    callbacks: then an epoch's turn includes all that the others do at its beginning and
    end.
    """

    def __init__(self, fit: Callable[["Epochs"], None]) -> None:
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


def training(
    data: tuple[np.ndarray, np.ndarray], trackers: list[SparsityTracker], epochs: int
) -> Epochs:
    """Training of the example's CNN, an epoch a call."""
    x, y = data

    def fit(turns):
        model = compiled_model(EXAMPLE, "Sparseout q=1.5")
        model.fit(
            x,
            y,
            batch_size=BATCH_SIZE,
            epochs=epochs,
            verbose=0,
            callbacks=[*trackers, turns],
        )

    return Epochs(fit)


def epochs_of_fit(images: int, epochs: int) -> dict[str, Epochs]:
    """Epochs over the first of the example's images, by tracker."""
    ((x, y), (x_valid, _), _), _ = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    trackers = {
        NONE: [],
        f"{NONE} again": [],  # Differences that come from the machine.
        "SparsityTracker()": [SparsityTracker(verbose=0)],
        f"with {PROBE} probe samples": [SparsityTracker(x_valid[:PROBE], verbose=0)],
    }
    return {
        name: training((x[:images], y[:images]), callbacks, epochs)
        for name, callbacks in trackers.items()
    }


def run(settings: Settings) -> Iterable[Table]:
    """Yields the table of this suite."""
    images = 640 if settings.quick else 9000
    rounds = settings.rounds_or(9)
    title = f"an epoch of {images:,} images in batches of {BATCH_SIZE}"
    with Turns(settings) as turns:
        rounds_of = turns.measure(
            f"{__name__}:epochs_of_fit",
            rounds,
            title=title,
            burn_in=BURN_IN,  # For tracing and compiling.
            images=images,
            epochs=BURN_IN + rounds,
        )
    rows = []
    for name, epochs in rounds_of.items():
        cpu, wall = fastest(epochs)
        without = rounds_of[own(rounds_of, name, NONE)]
        added = [
            100 * (with_it.cpu / alone.cpu - 1)
            for with_it, alone in zip(epochs, without, strict=True)
        ]
        figures = {
            "CPU s": cpu,
            "wall s": wall,
            "added CPU %": statistics.median(added),
            "at least": min(added),
            "at most": max(added),
        }
        rows.append(Row(name, figures))
    note = (
        "Times are of the fastest round. What is added is the median of the "
        "differences within the rounds, beside the smallest and the largest of them."
    )
    yield Table(title, note, rows, rounds_of)
