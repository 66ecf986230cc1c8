"""The figures of controlled layers: what the sums of batches and probe data come to."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import keras
import numpy as np

from keras_sparseout.callbacks.control.arguments import targets_by_layer
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.dead_units import DeadUnitCount
from keras_sparseout.callbacks.control.macs_budget import NEEDLESS_MACS, MacsBudget
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.zero_check import ZeroCheck
from keras_sparseout.measure import non_finite
from keras_sparseout.measure.layer_sums import Metrics
from keras_sparseout.measure.reading import read
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils import validation

Sums: TypeAlias = Mapping[str, list[np.ndarray]]
Figures: TypeAlias = dict[str, float]


class ControlFigures:
    """Turns the sums of layers' metrics into figures, by log key.

    It also tells which units are dead, says what is controlled, and which layers have
    figures that mean nothing.

    Args:
        model: The model that is trained.
        metrics: Dict of streaming metrics by name: the controlled one, "dead_units".
        settings: What is controlled.
        messages: What the controller says.
        budget: What counts the model's MACs, if that is what is controlled.

    Attributes:
        watched: The layers.
        budget: The argument.
        units: What is known of dead units.
        probed: Figures of the probe data that were measured last.
        quiet: Whether broken layers need no line, as the user knows of the loss.
    """

    def __init__(
        self,
        model: keras.Model,
        metrics: Metrics,
        settings: ControlSettings,
        messages: ControllerMessages,
        budget: MacsBudget | None = None,
    ) -> None:
        self.watched: Sequence[WatchedLayer] = []
        self.budget = budget
        self.units = DeadUnitCount(metrics)
        self.probed: Figures = {}
        self.quiet = False
        self._model = model
        self._metrics = metrics
        self._settings = settings
        self._messages = messages
        asks_for_zeros = settings.metric == "zero_fraction"
        # A threshold makes the zeros itself.
        given = settings.actuator == "threshold"
        self._zeros = ZeroCheck(model) if asks_for_zeros and not given else None
        self._broken: dict[str, str] = {}

    def describe(self, names: Sequence[str]) -> None:
        """Says what is controlled, unless it said just that.

        Args:
            names: Names of the layers.
        """
        settings = self._settings
        targets = targets_by_layer(settings.target, names)
        if self.budget is not None:
            subject = f"the model, by the zeros of {validation.some_of(names)},"
            targets = dict(zip([subject], targets.values(), strict=False))
        self._messages.controlled(
            settings.metric, targets, settings.actuator, settings.bounds
        )

    def begin_epoch(self) -> None:
        """Forgets what is counted for an epoch alone."""
        self.units.begin_epoch()
        if self.budget is not None:
            self.budget.step.begin_epoch()

    def of_reading(self, sums: Sums, loss: float) -> tuple[Figures, dict[str, float]]:
        """Returns the figures of a reading, and the shares of dead units by layer.

        Args:
            sums: Sums of training batches by layer.
            loss: The loss of these batches.
        """
        self._find_broken(loss)
        self.units.add(sums)
        units = self.units.read(self.watched, self._broken)
        self._messages.nan_activations(units.nan_layers)
        if units.uncounted:
            self._messages.print(
                f"the units of {validation.some_of(units.uncounted)} vary in number, "
                "so that dead ones are not counted: `max_dead` does not hold there"
            )
        self._messages.broken(self._broken, quiet=self.quiet)
        figures = self._figures("", sums)
        if self.budget is not None:
            figures[NEEDLESS_MACS] = self.budget.step.read()
        if self._zeros is not None:
            self._zeros.take(self.watched, figures)
        return figures, units.dead_shares

    def of_epoch(self, sums: Sums, probe_sums: Sums | None, loss: float) -> Figures:
        """Returns the figures of an epoch.

        Args:
            sums: Sums of the epoch's training batches by layer; empty without batches.
            probe_sums: Sums of the probe data; None without probe data.
            loss: The loss of the last batches.
        """
        self._find_broken(loss)
        self._messages.broken(self._broken, quiet=self.quiet)
        figures = self._figures("", sums) if sums else {}
        if self._zeros is not None:
            self._zeros.end_epoch(self.watched)
        if sums and self.budget is not None:
            figures[NEEDLESS_MACS] = self.budget.step.of_epoch()
        if probe_sums is not None:
            self.measure_probe(probe_sums)
            figures.update(self.probed)
        return figures

    def measure_probe(self, sums: Sums) -> None:
        """Takes the sums of the probe data."""
        self.probed = self._figures("val_", sums)
        if self.budget is not None:
            self.probed[f"val_{NEEDLESS_MACS}"] = self.budget.measure()

    def state(self) -> list[float | None]:
        """Returns the figures of the probe data, for a resumed run."""
        return [self.probed.get(key) for key in self._probe_keys()]

    def known(self, state: Sequence[float | None]) -> Figures:
        """Returns the figures of the probe data from the `state` of an earlier run."""
        figures = zip(self._probe_keys(), state, strict=True)
        return {key: float(figure) for key, figure in figures if figure is not None}

    def _find_broken(self, loss: float) -> None:
        self._broken = non_finite.invalid_layers(self._model, self.watched, loss)

    def _figures(self, prefix: str, sums: Sums) -> Figures:
        # The sums of dead units come last, and are read by `DeadUnitCount`.
        metrics = {n: m for n, m in self._metrics.items() if n != "dead_units"}
        figures = read(sums, self.watched, metrics, self._broken).figures
        keys = self._settings.keys(self.watched)
        new = self._keys(prefix)
        return {new: figures[key] for key, new in zip(keys, new, strict=True)}

    def _probe_keys(self) -> list[str]:
        whole = [] if self.budget is None else [f"val_{NEEDLESS_MACS}"]
        return [*self._keys("val_"), *whole]

    def _keys(self, prefix: str) -> list[str]:
        return [prefix + key for key in self._settings.keys(self.watched)]
