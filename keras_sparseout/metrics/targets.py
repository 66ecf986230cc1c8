"""Keeps targets and predictions away from the measures, which take activations."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def refused(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Lets a measure say what to do where `compile(metrics=[...])` has Keras call it.

    Args:
        function: A function of `x`, or the `update_state` of a metric. Keras would call
            it with targets and predictions, and `update_state` also with weights.
    """
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if names[0] == "self":
            # The predictions are where the weights would be.
            has_targets = len(args) > 2 and "sample_weight" in kwargs
        else:
            has_targets = len(args) > 1 and getattr(args[1], "shape", ()) != ()
        if has_targets:
            raise _has_targets(function, args)
        return function(*args, **kwargs)

    return checked


def _has_targets(function: Callable[..., Any], args: tuple[Any, ...]) -> ValueError:
    name = function.__name__
    if name == "update_state":
        name = f"{type(args[0]).__name__}.{name}"
    return ValueError(
        "`x` must be the activations of a layer, not the targets and predictions that "
        f"`compile(metrics=[...])` gives. Received: a call of {name} with both. Take "
        "it out of `compile`, and give `fit` the callback keras_sparseout."
        "SparsityTracker(metrics=[...]) with it."
    )
