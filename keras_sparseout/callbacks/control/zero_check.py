"""Finds layers that are asked for zeros, but never have any."""

from collections.abc import Mapping, Sequence

import keras

from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils import validation

# It decides after so many readings of a run, or at the end of its first epoch. It finds
# the layers that had no zeros in this share of them: one reading may be of few
# activations, or of weights that are still 0, as those of PReLU.
_READINGS = 8
_WITHOUT = 0.75


class ZeroCheck:
    """Raises if layers that are to get zeros have none by their nature.

    A ReLU may be positive everywhere: a penalty or noise makes zeros there. Nothing
    brings the outputs of GELU, swish or tanh to exactly 0.

    Args:
        model: The model that is trained.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._readings = 0
        self._without: dict[str, int] = {}

    def take(
        self, watched: Sequence[WatchedLayer], figures: Mapping[str, float]
    ) -> None:
        """Takes the figures of a reading, by log key.

        Raises:
            ValueError: if it is the one after which that is known, and there are such
                layers.
        """
        self._readings += 1
        for w in watched:
            without = figures.get(f"zero_fraction/{w.name}") == 0
            self._without[w.name] = self._without.get(w.name, 0) + without
        if self._readings == _READINGS:
            self._decide(watched)

    def end_epoch(self, watched: Sequence[WatchedLayer]) -> None:
        """Decides at the end of a first epoch with few readings; raises as `take`."""
        if 0 < self._readings < _READINGS:
            self._decide(watched)
            self._readings = _READINGS

    def _decide(self, watched: Sequence[WatchedLayer]) -> None:
        enough = _WITHOUT * self._readings
        never = [
            w.name
            for w in watched
            if self._without.get(w.name, 0) >= enough
            and not layer_selection.is_rectified(self._model, w)
        ]
        if not never:
            return
        others = [w.name for w in watched if w.name not in never]
        leave = ""
        if others:
            leave = f", or name others, such as layers={others[:8]}"
        raise ValueError(
            '`metric="zero_fraction"` needs activations that can be exactly 0, as '
            f"after ReLU. Those of {validation.some_of(never)} never were. Received: "
            f'metric="zero_fraction". Give metric="hoyer"{leave}. Where the '
            "activation is an operation, as keras.ops.relu, make it a layer, "
            "keras.layers.ReLU()."
        )
