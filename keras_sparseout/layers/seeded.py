"""Layers that draw random masks, and save the states of their generators."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sparseout.backend import variables
from keras_sparseout.layers.adjustable import AdjustableLayer
from keras_sparseout.layers.nested_layers import held_by
from keras_sparseout.utils import validation


class SeededLayer(AdjustableLayer):
    """An adjustable layer with a seed generator, whose state is saved with the weights.

    A run that is resumed from a file so continues the sequence of draws. The layer also
    saves the states of layers inside it, such as a Dropout layer of Keras.

    Args:
        knobs: Dict of the first values, floats, by name.
        adjustable: Whether they are variables.
        seed: Integer, or None for a random one.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.
    """

    def __init__(
        self,
        knobs: Mapping[str, float],
        adjustable: bool,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        seed = validation.check_seed(seed)
        super().__init__(knobs, adjustable, **kwargs)
        self.seed = seed
        # At rate 0 too, so that files of all rates hold the same entries.
        self.seed_generator = keras.random.SeedGenerator(seed)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        super().save_own_variables(store)
        # Keras leaves the states of seed generators out of its files.
        store["seed_state"] = variables.to_numpy(self.seed_generator.state)
        inner = self._inner_states()
        if inner:
            states = [variables.to_numpy(state) for state in inner]
            store["inner_seed_states"] = np.stack(states)

    def _values_in(self, store):
        values = super()._values_in(store)
        if "seed_state" in store:
            seeds = self._seeds_in(store, "seed_state", 1)
            values.append((self.seed_generator.state, seeds))
        if "inner_seed_states" in store:
            seeds = self._seeds_in(store, "inner_seed_states", 2)
            inner = self._inner_states()
            # Another number of them comes from other layers inside: no telling whose.
            if len(inner) == len(seeds):
                values.extend(zip(inner, seeds, strict=True))
        return values

    def _seeds_in(self, store, name, rank):
        seeds = np.asarray(store[name])
        if seeds.dtype.kind not in "iu" or seeds.ndim != rank or seeds.shape[-1] != 2:
            raise ValueError(
                f"Layer {self.name!r}: `{name}` in a file must be pairs of integers. "
                f"Received: {name} of dtype {seeds.dtype} and shape {seeds.shape}. The "
                "file is damaged: load another one."
            )
        return seeds

    def _inner_states(self):
        """Returns the states of the seed generators of layers inside this one.

        It skips other layers of this package and what is inside them: they save their
        states themselves.
        """
        generators = held_by(self, keras.random.SeedGenerator, closed=(SeededLayer,))
        return [g.state for g in generators if g is not self.seed_generator]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
