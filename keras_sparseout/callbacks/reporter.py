"""Turns the sums of a tracker's layers into figures, and reports them."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sparseout.backend import event_files
from keras_sparseout.callbacks.figure_sources import Source, TrainingSteps
from keras_sparseout.callbacks.progress import Progress
from keras_sparseout.measure import non_finite
from keras_sparseout.measure.layer_sums import Metrics
from keras_sparseout.measure.reading import read
from keras_sparseout.metrics import ActivationHistogram
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import PathLike

MOST_LAYERS_IN_LOGS = 8


class Reporter:
    """Turns sums into figures by log key, writes them for TensorBoard, and warns.

    Args:
        metrics: Dict of streaming metrics by name.
        log_dir: Folder for TensorBoard, or None.

    Attributes:
        units: Dict of arrays by key, of the last reading: the metrics that have a
            figure for each unit.
        histograms: Dict of `ActivationHistogram` by key, of the last reading.
    """

    def __init__(self, metrics: Metrics, log_dir: PathLike | None) -> None:
        self.metrics = metrics
        self.log_dir = log_dir
        self._file = None if log_dir is None else event_files.EventFile(log_dir)
        self._histograms: dict[str, dict[str, ActivationHistogram]]
        self._histograms = {"": {}, "val_": {}}
        self.begin_run()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Reporter":
        return Reporter(self.metrics, self.log_dir)

    def __reduce__(self) -> tuple[Any, ...]:
        return Reporter, (self.metrics, self.log_dir), {"units": self.units}

    def begin_run(self) -> None:
        """Forgets the readings before."""
        self.units: dict[str, np.ndarray] = {}
        self.histograms: dict[str, ActivationHistogram] = {}
        self._warned: set[str] = set()
        self._described = False
        self.close()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._file is not None:
            self._file.close()

    def keys(
        self, prefix: str, names: Sequence[str], per_layer: bool | None
    ) -> set[str]:
        """Returns the keys of the figures that go into the logs.

        Args:
            prefix: The beginning of the keys.
            names: The names of the layers.
            per_layer: Whether each layer's figures do; None for up to 8 layers.
        """
        if per_layer is None:
            per_layer = len(names) <= MOST_LAYERS_IN_LOGS
        names = names if per_layer else ()
        return {
            prefix + metric + name
            for metric, measure in self.metrics.items()
            if not isinstance(measure, ActivationHistogram)
            for name in ("", *(f"/{name}" for name in names))
        }

    def epoch_figures(
        self, source: TrainingSteps | None, model: keras.Model, loss: Any
    ) -> dict[str, float]:
        """Returns the figures of an epoch's training batches, and reports nothing."""
        if source is None or not source.epoch_sums:
            return {}
        causes = non_finite.invalid_layers(model, source.watched, loss)
        return read(source.epoch_sums, source.watched, self.metrics, causes).figures

    def report(
        self, source: Source, model: keras.Model, loss: Any, progress: Progress
    ) -> dict[str, float]:
        """Reads the source, and returns the figures after it has reported them.

        Args:
            source: Where the sums come from.
            model: The model.
            loss: The loss of the batches that were measured, 0 if it is unknown.
            progress: How far training has come.
        """
        sums, watched, prefix = source.read(), source.watched, source.prefix
        filled, epoch = self._histograms[prefix], progress.epoch + 1
        causes = non_finite.invalid_layers(model, watched, loss)
        reading = read(sums, watched, self.metrics, causes, filled)
        for name in reading.nan_layers:
            self.warn_once(
                f"The activations of layer {name!r} contain NaN, first seen in epoch "
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
        if self._file is not None:
            self._file.write(progress.total, figures, histograms)
        return figures

    def warn_once(self, text: str, about: str) -> None:
        """Warns, unless it has warned about this before in this run."""
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(text, stacklevel=4)

    def warn_of_probe_figures(self, keys: set[str]) -> None:
        """Warns that `logs` get figures of probe data under keys of validation."""
        if keys:
            self.warn_once(
                f"{validation.some_of(sorted(keys))} in the logs are another "
                "callback's figures of probe data. The validation figures are only in "
                "`history`. Give the metrics other names for both, for example metrics="
                f'{{"probe_{next(iter(self.metrics))}": ...}}.',
                about="probe data",
            )

    def warn_of_validation(self, error: ValueError) -> None:
        """Warns that validation can't be measured."""
        text = f"SparsityTracker: validation has no figures. {error}"
        self.warn_once(text, about="val_")

    def describe(self, source: Source, data: str, *, once: bool = False) -> None:
        """Prints which layers are measured and which are left out.

        Args:
            source: What reads them.
            data: A few words for the data that are measured.
            once: Whether not to print what was printed in this run already.
        """
        if once and self._described:
            return
        self._described = True
        sides = " and ".join(
            f"the {side}{'s' if len(names) > 1 else ''} of {', '.join(names)}"
            for side in ("input", "output")
            if (names := [w.name for w in source.watched if w.side == side])
        )
        line = f"SparsityTracker: {', '.join(self.metrics)} of {sides} on {data}"
        if source.left_out:
            left_out = [f"{name} ({why})" for name, why in source.left_out.items()]
            line += f"; left out: {validation.some_of(left_out)}"
        print(line)
        watched = {w.name for w in source.watched}
        calls = source.calls().items()
        several = [
            f"{name} {n} times" for name, n in calls if n > 1 and name in watched
        ]
        if several:
            print(
                f"SparsityTracker: called in each step {', '.join(several)}, which are "
                "measured together."
            )
