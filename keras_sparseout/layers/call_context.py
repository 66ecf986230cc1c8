"""What Keras tells a layer that it calls: whether to train, in which precision to read.

Keras keeps both in a context of its own and passes them to layers alone. So each
function here calls a small layer.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import keras

_Result = TypeVar("_Result")


class _Training(keras.layers.Layer):
    """Returns the `training` that Keras gives it."""

    def call(self, training: bool = False) -> bool:
        return training


class _Caller(keras.layers.Layer):
    """Calls a function."""

    def call(self, function, *args, **kwargs):
        return function(*args, **kwargs)


_training = _Training(name="training")
_caller = _Caller(name="caller", dtype="float32", autocast=False)


def is_training() -> bool:
    """Whether a layer that is called here, without `training`, would train."""
    return bool(_training())


def set_training(training: bool) -> None:
    """Sets what the next layers are told that are called without `training`.

    Inside of a layer's call Keras tells them what the last layer was told.
    """
    _training(training=training)


def without_autocast(function: Callable[[], _Result]) -> _Result:
    """Calls `function`, which reads variables in the precision that they are stored in.

    Inside of a layer in mixed precision Keras casts them to half precision.
    """
    return _caller(function=function)


def call_symbolically(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls `function`, such as a layer, without computing or assigning anything.

    Layers that are called make their weights.

    Returns:
        `KerasTensor`s like what it returns.
    """
    return _caller.compute_output_spec(function, *args, **kwargs)


def is_inside_rnn() -> bool:
    """Whether `keras.layers.RNN` is calling its cell, of which this is a part."""
    code = keras.layers.RNN.call.__code__
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False
