"""A wrapper whose call has the arguments of the call of the layer that it wraps."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras


class WrappedCall:
    """Gives the method `call` of a `WrapperOfCalls` the arguments of the layer inside.

    Keras asks `inspect.signature(layer.call)` what a layer takes: it tells tensors from
    options by that, and passes masks only to arguments that it finds there. A subclass
    whose `call` is no `WrappedCall` has the arguments that it names itself.

    Args:
        function: The method, with `inputs`, `*args`, `training` and `**kwargs`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(
        self, layer: "WrapperOfCalls | None", owner: type
    ) -> Callable[..., Any]:
        if layer is None:
            return self.function
        first = next(iter(layer._call_arguments.parameters))

        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = layer._with_input_first(args, kwargs)
            if not args and first in kwargs:
                args = (kwargs.pop(first),)
            return self.function(layer, *args, **kwargs)

        bound: Any = call
        bound.__signature__ = layer._call_arguments
        return bound


class WrapperOfCalls(keras.layers.Wrapper):
    """A wrapper that can be called as the layer that it wraps, and with `training`.

    Its `call` is a `WrappedCall`.

    Args:
        layer: The layer to wrap.
        **kwargs: As for every Keras layer.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        # Set first: `super().__init__` looks for the arguments of `call`.
        self._call_arguments = _with_training(inspect.signature(layer.call))
        super().__init__(layer=layer, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer, also with the input under the name `inputs`."""
        args, kwargs = self._with_input_first(args, kwargs)
        return super().__call__(*args, **kwargs)

    def _with_input_first(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments of a call, with `inputs` by place.

        The wrapped layer may have another name for them.
        """
        rest = {**kwargs}
        if not args and "inputs" not in self._call_arguments.parameters:
            args = (rest.pop("inputs"),) if "inputs" in rest else ()
        return args, rest


def _with_training(arguments: inspect.Signature) -> inspect.Signature:
    """Returns the arguments, with `training` by keyword, as Keras passes it."""
    kind = inspect.Parameter
    # False also where the layer inside has True: noise is there in training alone.
    training = kind("training", kind.KEYWORD_ONLY, default=False)
    given = dict(arguments.parameters)
    given.pop("training", None)
    last = [given.pop(p.name) for p in [*given.values()] if p.kind is kind.VAR_KEYWORD]
    return inspect.Signature([*given.values(), training, *last])
