"""The arguments of a layer's call, whether they were given by place or by keyword."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras


def first(
    layer: keras.Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Returns the input of a call: the first argument of `layer.call` that was given.

    None if there is none.
    """
    if args:
        return args[0]
    return kwargs.get(_name_of_first(layer, kwargs))


def with_first(
    layer: keras.Operation,
    function: Callable[[Any], Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call, with `function` called on the input."""
    if args:
        return (function(args[0]), *args[1:]), {**kwargs}
    name = _name_of_first(layer, kwargs)
    return args, {**kwargs, name: function(kwargs[name])} if name else {}


def first_by_place(
    layer: keras.Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments with the input by place: layers name it differently."""
    if args or not kwargs:
        return args, {**kwargs}
    name = _name_of_first(layer, kwargs)
    others = {key: value for key, value in kwargs.items() if key != name}
    return (first(layer, args, kwargs),), others


def named(
    layer: keras.Operation,
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Returns the argument `name` of a call, None if it was not given."""
    place = place_of(layer, name)
    if place is not None and place < len(args):
        return args[place]
    return kwargs.get(name)


def place_of(layer: keras.Operation, name: str) -> int | None:
    """Returns the place of an argument of `layer.call`; None if it has none."""
    for place, parameter in enumerate(_parameters(layer)):
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            return None
        if parameter.name == name:
            return place
    return None


def _name_of_first(layer, kwargs):
    # Keywords may be in any order: `layer(training=False, inputs=x)`.
    names = [parameter.name for parameter in _parameters(layer)]
    return next((name for name in (*names, *kwargs) if name in kwargs), "")


def _parameters(layer):
    # Of the instance: a wrapper may have the arguments of the layer inside.
    return list(inspect.signature(layer.call).parameters.values())


def has_call(model: keras.Model) -> bool:
    """Whether a model can be called. One that only has a `train_step` may not."""
    return type(model).call is not keras.Model.call
