"""Which share of the layers' units is dead, told over several short epochs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_sparseout.measure.layer_sums import Metrics, add, split
from keras_sparseout.measure.watched_layer import WatchedLayer

# Fewer vectors can't tell a dead unit from one that fires rarely.
_ENOUGH_VECTORS = 256


class UnitReading(NamedTuple):
    """What is known of the units.

    Attributes:
        dead_shares: Dict of the share of dead units by layer, of the layers of which
            enough vectors were seen.
        nan_layers: Names of the layers with NaN among their activations.
        uncounted: Names of the layers without one number of units.
    """

    dead_shares: dict[str, float]
    nan_layers: list[str]
    uncounted: list[str]


class DeadUnitCount:
    """Adds up the sums of training batches until they tell which units are dead.

    Args:
        metrics: Dict of the metrics of the sums by name, with "dead_units" among them.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sums: dict[str, list[np.ndarray]] = {}

    def begin_epoch(self) -> None:
        """Forgets the layers of which enough vectors were seen; short epochs add up."""
        self._sums = self._of_few_vectors()

    def add(self, totals: Mapping[str, list[np.ndarray]]) -> None:
        """Adds sums of all metrics, by layer."""
        for name, sums in totals.items():
            add(self._sums, name, sums)

    def read(
        self, watched: Sequence[WatchedLayer], broken: Collection[str]
    ) -> UnitReading:
        """Returns what the sums so far tell.

        Args:
            watched: The layers.
            broken: Names of layers whose figures mean nothing.
        """
        shares, nan_layers, uncounted = {}, [], []
        for w in watched:
            sums = self._sums[w.name]
            has_nan = any(np.isnan(part).any() for part in sums)
            if has_nan:
                nan_layers.append(w.name)
            fired, vectors = self._of_units(sums)
            if vectors < 0:
                uncounted.append(w.name)
            if vectors >= _ENOUGH_VECTORS:
                unknown = has_nan or w.name in broken
                shares[w.name] = np.nan if unknown else float(np.mean(fired == 0))
        return UnitReading(shares, nan_layers, uncounted)

    def state(self, names: Iterable[str]) -> list[list[Any] | None]:
        """Returns the sums of layers that the next epoch goes on with, or None."""
        kept = self._of_few_vectors()
        return [
            [np.asarray(part).tolist() for part in kept[name]] if name in kept else None
            for name in names
        ]

    def resume(
        self, names: Iterable[str], state: Sequence[Sequence[Any] | None]
    ) -> None:
        """Goes on from the `state` of an earlier run, for the layers of these names."""
        self._sums = {
            name: [np.array(part, "float64") for part in sums]
            for name, sums in zip(names, state, strict=True)
            if sums is not None
        }

    def _of_few_vectors(self) -> dict[str, list[np.ndarray]]:
        return {
            name: sums
            for name, sums in self._sums.items()
            if self._vectors(sums) < _ENOUGH_VECTORS
        }

    def _vectors(self, sums: Sequence[np.ndarray]) -> float:
        """Returns how many vectors one layer's `sums` come from."""
        return float(self._of_units(sums)[1])

    def _of_units(self, sums: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Returns how often each unit fired, and the number of vectors."""
        by_metric = {name: own for name, _, own in split(sums, self._metrics)}
        return by_metric["dead_units"]
