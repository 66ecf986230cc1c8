"""Configs in which each class and function of the user has a name of its own."""

import contextlib
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras


class ClearNames:
    """Puts names into configs that mean one object each.

    Keras writes a function or class by its name. There may be several of one name, a
    function of Keras too, and a lambda has none. So these names are numbers behind it,
    and `objects` says what they mean. It is for `keras.saving.custom_object_scope`.

    Attributes:
        objects: Classes and functions, by their names in the configs.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def config(self, config: Mapping[str, Any], layer: object) -> dict[str, Any]:
        """Returns the config of a layer or operation with such names in it.

        What the config has under a key is what the layer has under this name, or under
        it with an underscore; or `layers` of a model.
        """
        new = {
            key: self._value(value, held_at(layer, key), layer)
            for key, value in config.items()
        }
        if isinstance(layer, (keras.Sequential, keras.Function)) and "layers" in config:
            # Those of inputs are in the config alone.
            named = {each.name: each for each in layer.layers}
            new["layers"] = [
                self._value(part, _by_name(part, named), layer)
                for part in config["layers"]
            ]
        return new

    def described(self, part: Any) -> Any:
        """Returns how Keras describes a layer, or a list of layers, with such names."""
        with quiet_about_lambdas():
            written = keras.saving.serialize_keras_object(part)
        return self._value(written, part, part)

    def made(self, part: Any) -> Any:
        """Returns what Keras makes this very layer of, or this list of layers."""
        if isinstance(part, (list, tuple)):
            return [self.made(each) for each in part]

        used: list[object] = []

        class Made:
            # Of what Keras finds by a name, it calls this.
            @staticmethod
            def from_config(config: object) -> Any:
                if used:
                    raise ValueError(f"several layers are made of {part.name!r}")
                used.append(config)
                return part

        name = self._name(Made)
        return {
            "class_name": type(part).__name__,
            "config": {},
            "registered_name": name,
        }

    def _value(self, value: Any, live: Any, owner: object) -> Any:
        """Returns `value`, which describes the object `live` of `owner`, if it does."""
        if isinstance(live, types.FunctionType):
            if isinstance(value, (dict, str)) and not is_of_keras(live):
                return self._function(value, live, owner)
        elif isinstance(live, (list, tuple)):
            if isinstance(value, (list, tuple)) and len(value) == len(live):
                pairs = zip(value, live, strict=True)
                return [self._value(*pair, owner) for pair in pairs]
        elif not isinstance(value, dict):
            return value
        elif isinstance(live, dict):
            return {
                key: self._value(each, live.get(key), owner)
                for key, each in value.items()
            }
        elif _describes(value, live):
            changed = {**value, "config": self.config(value["config"], live)}
            if not is_of_keras(type(live)):
                changed["registered_name"] = self._name(type(live))
            return changed
        return value

    def _function(self, value, function, owner):
        own = type(owner)
        if not is_of_keras(own) and not isinstance(owner, keras.layers.Lambda):
            if own.from_config.__module__.startswith("keras."):
                # Its `__init__` gets what the config has, and first got the function.
                return function
            if isinstance(value, str):
                # Only its own code knows what the name means.
                return value
        name = self._name(function)
        kind = {"module": "builtins", "class_name": "function"}
        return {**kind, "config": name, "registered_name": name}

    def _name(self, known: Any) -> str:
        for name, each in self.objects.items():
            if each is known:
                return name
        name = f"{known.__name__} {len(self.objects)}"
        self.objects[name] = known
        return name


def held_at(layer: object, key: str) -> Any:
    """Returns what a layer has in the attribute `key`, or in `_key`; else None."""
    if key == "layer" and isinstance(layer, keras.layers.Bidirectional):
        key = "forward_layer"
    own = vars(layer)
    if key in own or f"_{key}" in own:
        return own.get(key, own.get(f"_{key}"))
    try:
        return getattr(layer, key, None)
    except Exception:  # Whatever a property raises that has no value yet.
        return None


@contextlib.contextmanager
def quiet_about_lambdas() -> Iterator[None]:
    """Drops the warning that a function without a name is in a config."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a")
        yield


def is_of_keras(known: Any) -> bool:
    """Whether a class or function is one of Keras' own."""
    return (known.__module__ or "").startswith("keras.")


def _describes(value, live):
    is_whole = isinstance(value.get("config"), dict) and hasattr(live, "get_config")
    return is_whole and value.get("class_name") == type(live).__name__


def _by_name(part: Any, named: Mapping[str, keras.layers.Layer]) -> Any:
    config = part.get("config") if isinstance(part, dict) else None
    return named.get(config.get("name", "")) if isinstance(config, dict) else None
