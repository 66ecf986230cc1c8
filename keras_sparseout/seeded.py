"""Layers that draw, whose draws go on where they stopped when a file is loaded."""

import keras

from keras_sparseout import validation
from keras_sparseout.adjustable import Adjustable, value_of


class Seeded(Adjustable):
    """An adjustable layer with a seed generator, whose state is saved with the weights.

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

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if "seed_state" in store:
            self.seed_generator.state.assign(store["seed_state"])

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
