"""Layers that draw, whose draws go on where they stopped when a file is loaded."""

import keras
import numpy as np

from keras_sparseout.layers.adjustable import Adjustable, value_of
from keras_sparseout.utils import validation

_WITH_STATE = (keras.layers.Layer, keras.random.SeedGenerator)


class Seeded(Adjustable):
    """An adjustable layer with a seed generator, whose state is saved with the weights.

    So are those of seed generators of layers inside, such as a dropout of Keras.

    Args:
        knobs: Dict of the first values, floats, by name.
        adjustable: Whether they are variables.
        seed: Integer, or None for a random one.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.
    """

    def __init__(self, knobs, adjustable, seed, **kwargs):
        seed = validation.check_seed(seed)
        super().__init__(knobs, adjustable, **kwargs)
        self.seed = seed
        # Whatever the rate, so that the state of a layer does not depend on it.
        self.seed_generator = keras.random.SeedGenerator(seed)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras leaves the states of seed generators out of its files.
        store["seed_state"] = value_of(self.seed_generator.state)
        inner = self._inner_states()
        if inner:
            store["inner_seed_states"] = np.stack([value_of(s) for s in inner])

    def _values_in(self, store):
        values = super()._values_in(store)
        if "seed_state" in store:
            seeds = self._seeds_in(store, "seed_state", 1)
            values.append((self.seed_generator.state, seeds))
        if "inner_seed_states" in store:
            seeds = self._seeds_in(store, "inner_seed_states", 2)
            inner = self._inner_states()
            # From a file of other layers inside, it can't be told whose they are.
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
        """The states of the seed generators of layers inside.

        Not of those inside of another layer of this package, which saves them itself.
        """
        states, seen = [], {id(self), id(self.seed_generator)}

        def visit(value):
            if isinstance(value, (list, tuple, set, dict)):
                for item in value.values() if isinstance(value, dict) else value:
                    visit(item)
            elif isinstance(value, _WITH_STATE) and id(value) not in seen:
                seen.add(id(value))
                if isinstance(value, keras.random.SeedGenerator):
                    states.append(value.state)
                elif not isinstance(value, Seeded):
                    visit(vars(value))

        visit(vars(self))
        return states

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
