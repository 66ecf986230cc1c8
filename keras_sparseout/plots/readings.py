"""The figures of a history by log key, and where in epochs they were read."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from keras_sparseout.utils import validation

# By the prefix of a log key: the data that its figures were measured on.
KINDS = {"": "training", "val_": "validation or probe"}


class _HasHistory(Protocol):
    """What `fit` returns, and the callbacks that measure."""

    @property
    def history(self) -> Mapping[str, Sequence[float]]: ...


History: TypeAlias = Mapping[str, Sequence[float]] | _HasHistory


class Readings:
    """The figures of a history, for the pictures over epochs.

    Args:
        history: Dict of lists by log key, or an object that has one as `history`.
    """

    def __init__(self, history: History) -> None:
        figures = getattr(history, "history", history)
        if not isinstance(figures, Mapping):
            raise ValueError(
                "`history` must be a dict of lists by log key, or have one as its "
                f"`.history`. Received: history={history!r:.80}. Give what `fit` "
                "returns, or a SparsityTracker."
            )
        self._figures = figures
        sizes = (len(v) for v in figures.values() if hasattr(v, "__len__"))
        self._epochs = max(sizes, default=0)
        if not self._epochs:
            raise ValueError(
                "`history` must hold the figures of at least one epoch. Received: "
                f"history={dict(figures)!r:.80}. Give it after training."
            )

    def __contains__(self, key: str) -> bool:
        return key in self._figures

    def layers(self, metric: str) -> list[str]:
        """Returns the layers with figures of `metric`, in the order of the model."""
        seen, probed = (
            [key.removeprefix(start) for key in self._figures if key.startswith(start)]
            for start in (f"{metric}/", f"val_{metric}/")
        )
        # A layer may have only one of the two; the longer list tells more of the order.
        return list(dict.fromkeys(max(probed, seen, key=len) + probed + seen))

    def metrics(self) -> list[str]:
        """Returns what single layers have: metrics, and what a controller moves."""
        names = (key.split("/")[0] for key in self._figures if "/" in key)
        return list(dict.fromkeys(name.removeprefix("val_") for name in names))

    def require(
        self, argument: str, metric: str, *, mean_is_enough: bool = False
    ) -> None:
        """Raises, blaming `argument`, unless there are figures of `metric`."""
        mean = any(f"{kind}{metric}" in self._figures for kind in KINDS)
        if self.layers(metric) or (mean and mean_is_enough):
            return
        there = self.metrics() or [key for key in self._figures if key != "epoch"]
        if mean:
            remedy = (
                "There is only its mean over the layers; a tracker's `history` has "
                "each of them, and with per_layer=True the logs do."
            )
        else:
            otherwise = "Give one of these, or the history of a SparsityTracker."
            remedy = validation.did_you_mean(metric, there, otherwise)
        raise ValueError(
            f"`{argument}` must be one that `history` holds of layers, as "
            f"'<{argument}>/<layer>'; it has {', '.join(there)}. "
            f"Received: {argument}={metric!r}. {remedy}"
        )

    def points(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns where in epochs `key` was read, and the figures, without NaN."""
        figures = self._read(key)
        there = np.isfinite(figures)
        return self._places(key)[there], figures[there]

    def grid(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns where in epochs `keys` were read, and a row for each, with NaN."""
        places = self._places(keys[0])
        for key in keys:
            if len(self._figures[key]) != len(places):
                self._fail(key, len(places))
        rows = np.array([self._read(key) for key in keys])
        # Where all are NaN, only other keys were read.
        there = np.isfinite(rows).any(axis=0)
        return (places[there], rows[:, there]) if there.any() else (places, rows)

    def _read(self, key):
        try:
            figures = np.asarray(self._figures[key], float)
        except (TypeError, ValueError):
            figures = None
        if figures is None or figures.ndim != 1:
            raise ValueError(
                "`history` must hold a list of numbers at each key. Received: "
                f"history[{key!r}]={self._figures[key]!r:.80}. Give it as `fit` or a "
                "tracker made it."
            )
        return figures

    def _places(self, key):
        count = len(self._read(key))
        expected = np.arange(1, self._epochs + 1)
        if "epoch" in self._figures:
            places = self._read("epoch")
            if len(places) == count:
                return places
            # `fit` logged it once an epoch, beside finer readings of a callback.
            ends = np.ceil(places - 1e-6)
            expected = np.arange(ends[0], ends[-1] + 1) if ends.size else ends
        if count == len(expected):
            return expected
        validated = self._validated() if key.startswith("val_") else ()
        if not count or count != len(validated):
            self._fail(key, len(expected))
        return validated

    def _validated(self):
        """Returns where in epochs a tracker saw validation, as with `validation_freq`.

        What `fit` returns does not say it: it has a figure for each validation alone.
        """
        if "epoch" not in self._figures:
            return ()
        places = self._read("epoch")
        count = len(places)
        seen = np.zeros(count, bool)
        for key, figures in self._figures.items():
            # Probe data have no figures of training, and no need of validation.
            has_twin = key.startswith("val_") and key[4:] in self._figures
            if has_twin and hasattr(figures, "__len__") and len(figures) == count:
                seen |= np.isfinite(self._read(key))
        return places[seen]

    def _fail(self, key, expected):
        remedy = "Put NaN where nothing was measured, or leave the key out."
        if key.startswith("val_"):
            remedy += (
                " What `fit` returns does not say which epochs `validation_freq` chose,"
                " a SparsityTracker does: give it, or {**run.history, "
                "**tracker.history}."
            )
        raise ValueError(
            "`history` must hold as many figures at each key as there are epochs, or "
            f"readings in 'epoch'. Received: history[{key!r}] with "
            f"{len(self._figures[key])}, where {expected} are expected. {remedy}"
        )
