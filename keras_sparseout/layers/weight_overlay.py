"""Calls with other values in the place of variables, or without any effect."""

import keras


class Overlay(keras.StatelessScope):
    """Puts values in the place of some variables, and lets all else happen as without.

    Keras' own scope holds back every assignment, so that all variables have to be put
    into it and read from it again. That misses the ones that a layer does not list,
    such as the states of a stateful RNN, and fails for those that are assigned inside
    a loop, such as the seed of a dropout in an RNN cell.
    """

    def __init__(self, values):
        super().__init__(collect_losses=True)
        for variable, value in values:
            super().add_update((variable, value))

    def get_current_value(self, variable):
        """The value that stands in for a variable, here or in a scope around."""
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update):
        """Assigns to a variable, or raises if a value stands in for it."""
        variable, value = update
        if super().get_current_value(variable) is not None:
            raise ValueError(
                "`weights` must be weights that the layer does not assign when it is "
                "called: the noise would come into the weight itself. Received: "
                f"weights with {variable.path}. Name other `weights`, or wrap only "
                "the layer inside that has this one."
            )
        self.__exit__()
        try:
            variable.assign(value)
        finally:
            self.__enter__()

    def add_loss(self, loss):
        """Keeps a loss for the caller, unless a scope around collects them."""
        if self.original_scope is None:
            super().add_loss(loss)
        # The layer that has it finds it there.
        elif self.original_scope.collect_losses:
            self.original_scope.add_loss(loss)


class _Calling(keras.layers.Layer):
    """Calls a function.

    Called, it has variables read as they are stored: inside of a layer in mixed
    precision they come in half precision. Its `compute_output_spec` has the function
    called without computing or assigning anything.
    """

    def call(self, function, *args, **kwargs):
        return function(*args, **kwargs)


calling = _Calling(dtype="float32", autocast=False)
