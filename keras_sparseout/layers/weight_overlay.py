"""Calling a layer with other values in the place of its weights."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_sparseout.utils.types import Tensor


class Overlay(keras.StatelessScope):
    """Replaces the values of some variables; everything else happens as without it.

    Inside a plain `keras.StatelessScope` no variable is assigned: the caller has to
    put every variable in and to read it out again. That misses variables that a layer
    does not list, such as the states of a stateful RNN. It fails for variables that are
    assigned in a loop, such as the seed of a dropout in an RNN cell.

    Args:
        values: Pairs of a variable and the value that replaces its own.
    """

    def __init__(self, values: Iterable[tuple[keras.Variable, Tensor]]) -> None:
        super().__init__(collect_losses=True)
        for variable, value in values:
            super().add_update((variable, value))

    def get_current_value(self, variable: keras.Variable) -> Tensor | None:
        """Returns the value that replaces a variable's own, here or in a scope around.

        None if there is none.
        """
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        """Assigns to a variable; raises if its value is replaced."""
        variable, value = update
        if super().get_current_value(variable) is not None:
            raise ValueError(
                "`weights` must be weights that the layer does not assign when it is "
                "called: the layer would store the noisy value as its weight. "
                f"Received: weights with {variable.path}. Name other "
                "`weights`, or wrap only the layer inside that has this one."
            )
        with self._suspended():
            variable.assign(value)

    @contextlib.contextmanager
    def _suspended(self) -> Iterator[None]:
        """Leaves this scope, but not those around it, for as long as it takes.

        Inside it, Keras turns every assignment into a call of `add_update`.
        """
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def add_loss(self, loss: Any) -> None:
        """Keeps a loss for the caller, or hands it to a scope around that collects."""
        if self.original_scope is None:
            super().add_loss(loss)
        # There the layer that added the loss finds it.
        elif self.original_scope.collect_losses:
            self.original_scope.add_loss(loss)
