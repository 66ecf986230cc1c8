"""Deep copies of callbacks, as a search over hyperparameters makes them."""

import copy
from collections.abc import Collection
from typing import Any, Protocol, TypeVar

import keras


class Forgetting(Protocol):
    """A callback that can forget its training run."""

    def _forget(self) -> None:
        """Sets the attributes that belong to a run of training to their start."""


T = TypeVar("T", bound=Forgetting)


def copy_without_run(callback: T, memo: dict[int, Any], shared: Collection[str]) -> T:
    """Returns a deep copy of a callback, which is in no run of training.

    Args:
        callback: The callback.
        memo: The `memo` of `__deepcopy__`.
        shared: Names of the attributes to share. Layers and data are the user's: a copy
            of a layer would no longer be a layer of the model.
    """
    copied = object.__new__(type(callback))
    memo[id(callback)] = copied
    keras.callbacks.Callback.__init__(copied)
    copied._forget()
    of_the_run = set(vars(copied))
    for name, value in vars(callback).items():
        if name not in of_the_run:
            share = name in shared
            vars(copied)[name] = value if share else copy.deepcopy(value, memo)
    return copied
