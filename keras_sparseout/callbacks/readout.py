"""What a tracker makes of sums: figures, units, histograms, and what it says."""

import warnings

from keras_sparseout.backend import event_files
from keras_sparseout.measure import non_finite
from keras_sparseout.measure.reading import read
from keras_sparseout.utils import validation


class Readout:
    """Turns the sums of layers into figures by log key, and keeps what is no number.

    Args:
        metrics: Dict of streaming metrics by name.
        log_dir: Folder for TensorBoard, or None.

    Attributes:
        units: Dict of arrays by key, of the last reading.
        histograms: Dict of `ActivationHistogram` by key, of the last reading.
    """

    def __init__(self, metrics, log_dir):
        self.metrics = metrics
        self.board = None if log_dir is None else event_files.Board(log_dir)
        self._filled = {"": {}, "val_": {}}
        self.begin_run()

    def begin_run(self):
        """Forgets the readings before."""
        self.units, self.histograms = {}, {}
        self._warned = set()
        self.close()

    def close(self):
        """Closes TensorBoard's file."""
        if self.board is not None:
            self.board.close()

    def figures(self, totals, watched, causes):
        """Returns the figures of `totals`, and tells no one."""
        return read(totals, watched, self.metrics, causes).figures

    def take(self, prefix, totals, watched, progress, model, loss):
        """Returns the figures of a reading, and tells of them elsewhere.

        Args:
            prefix: Of the keys, "" or "val_".
            totals: Dict of sums by layer.
            watched: The layers.
            progress: The `Progress` of training.
            model: The model.
            loss: The loss of the batches that were measured, if it is known.
        """
        filled, epoch = self._filled[prefix], progress.epoch + 1
        causes = non_finite.invalid_layers(model, watched, loss)
        reading = read(totals, watched, self.metrics, causes, filled)
        for name in reading.nan_layers:
            self.warn_once(
                f"The activations of layer {name!r} hold NaN, first seen in epoch "
                f"{epoch}. Its figures are NaN where they do.",
                about=name,
            )
            causes.pop(name, None)
        for cause in dict.fromkeys(causes.values()):
            names = [name for name in causes if causes[name] == cause]
            self.warn_once(
                f"{cause}, first seen in epoch {epoch}. The figures of "
                f"{validation.some_of(names)} are NaN while it is so.",
                about=cause,
            )
        figures = {prefix + key: figure for key, figure in reading.figures.items()}
        self.units.update((prefix + key, a) for key, a in reading.units.items())
        histograms = {
            f"{prefix}activations/{w.name}": filled[w.name]
            for w in watched
            if w.name in filled
        }
        self.histograms.update(histograms)
        if self.board is not None:
            self.board.write(progress.total, figures, histograms)
        return figures

    def warn_once(self, text, about):
        """Warns, unless it has warned about this before."""
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(text, stacklevel=4)


def describe(measured, metrics, where):
    """Prints what a tracker watches, and what it does not.

    Args:
        measured: The `Probe` or `StepSums`.
        metrics: The names of the metrics.
        where: What they are measured on.
    """
    sides = " and ".join(
        f"the {side}{'s' if len(names) > 1 else ''} of {', '.join(names)}"
        for side in ("input", "output")
        if (names := [w.name for w in measured.watched if w.side == side])
    )
    line = f"SparsityTracker: {', '.join(metrics)} of {sides} on {where}"
    if measured.left_out:
        left_out = [f"{name} ({why})" for name, why in measured.left_out.items()]
        line += f"; left out: {validation.some_of(left_out)}"
    print(line)
    names = {w.name for w in measured.watched}
    calls = measured.calls().items()
    several = [f"{name} {n} times" for name, n in calls if n > 1 and name in names]
    if several:
        print(
            f"SparsityTracker: called in each step {', '.join(several)}, which are "
            "measured together."
        )
