"""Copies of callbacks, as a search over hyperparameters makes them, also in files."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Self

import keras


class CopiedCallback(keras.callbacks.Callback):
    """A callback whose deep copies and pickles are in no run of training.

    A subclass has `_forget`, which sets the attributes that belong to a run to their
    start, and `_shared`: names of the attributes that a deep copy shares. Layers and
    data are the user's: a copy of a layer would no longer be a layer of the model.
    """

    _forget: Callable[[], None]
    _shared: ClassVar[tuple[str, ...]] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__({})
        for name, value in self.__getstate__().items():
            share = name in self._shared
            copied.__dict__[name] = value if share else copy.deepcopy(value, memo)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        started = object.__new__(type(self))
        started.__setstate__({})
        return {k: v for k, v in vars(self).items() if k not in vars(started)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        keras.callbacks.Callback.__init__(self)
        self._forget()
        self.__dict__.update(state)
