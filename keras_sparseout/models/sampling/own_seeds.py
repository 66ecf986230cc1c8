"""Seeds of our own in the place of a model's, which stay as they are."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_sparseout.backend import variables
from keras_sparseout.layers.nested_layers import held_by
from keras_sparseout.utils.types import Tensor

# The name that each SeedGenerator gives its variable.
_STATE = "seed_generator_state"


class SeedStates:
    """States that stand for those of the seed generators that a model draws from.

    They are numbered in the order in which the generators are first drawn from.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model) -> None:
        # The generators' variables are kept, so that no other gets the same id.
        self._made: dict[int, tuple[keras.Variable, Any]] = {}
        self._drawn: list[int] = []
        # TensorFlow traces twice what makes variables, so make most of them here.
        with OwnSeeds(self):
            # Keras makes its global generator, which it can't while it traces.
            keras.random.randint((), 0, 2)
        for generator in held_by(model, keras.random.SeedGenerator):
            self.state_for(generator.state)

    def __len__(self) -> int:
        return len(self._drawn)

    def forget_order(self) -> None:
        """Lets the numbers begin again."""
        self._drawn.clear()

    def state_for(self, variable: keras.Variable) -> Any | None:
        """Returns the state that stands for `variable`; None if it holds no seed."""
        if variable.name != _STATE:
            return None
        key = id(variable)
        if key not in self._made:
            own = variables.make_outside_graph(np.zeros(2, variable.dtype))
            self._made[key] = (variable, own)
        if key not in self._drawn:
            self._drawn.append(key)
        return self._made[key][1]

    def assign(self, seeds: Tensor) -> None:
        """Assigns a row of `seeds` to each state, in the order of their numbers."""
        for number, key in enumerate(self._drawn):
            self._made[key][1].assign(seeds[number])


class OwnSeeds(keras.StatelessScope):
    """A scope in which seed generators draw from states of ours.

    What is assigned to another variable is read again in the scope, and is gone after
    it: no variable of a model changes. Losses are not kept.

    Args:
        states: The states.
    """

    def __init__(self, states: SeedStates) -> None:
        super().__init__()
        self._states = states

    def get_current_value(self, variable: keras.Variable) -> Tensor | None:
        """Returns the value that a variable has in the scope; None for its own."""
        state = self._states.state_for(variable)
        if state is None:
            return super().get_current_value(variable)
        return variables.read(state)

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        """Keeps what is assigned to a variable for the time of the scope."""
        variable, value = update
        state = self._states.state_for(variable)
        if state is None:
            super().add_update(update)
        else:
            # A real variable: what is assigned inside a loop is there after it.
            state.assign(value)


def seeds_of(entropy: int, counters: Sequence[int], number: int) -> np.ndarray:
    """Returns `number` pairs of 32-bit numbers, which depend on all the arguments.

    Row i does not depend on `number`.
    """
    sequence = np.random.SeedSequence(entropy, spawn_key=tuple(counters))
    return sequence.generate_state(2 * number).reshape(number, 2).astype("int64")
