"""Layers as text: a call that makes an equal layer."""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import keras


def call_of(layer: keras.layers.Layer, **others: float) -> str:
    """Writes the call that makes a layer like `layer`, with constant knobs.

    The text evaluates where `keras` and the names of this package are imported.

    Args:
        layer: A layer of this package.
        **others: Other values for knobs, shortened to 4 digits.

    Example:

    >>> layer = keras_sparseout.Sparseout(0.5, name="hidden")
    >>> call_of(layer, q=1.23456)
    "Sparseout(0.5, q=1.235, name='hidden')"
    """
    config = layer.get_config()
    del config["adjustable"]
    texts = {name: _text(config[name]) for name in layer.knobs}
    texts |= {name: f"{value:.4g}" for name, value in others.items()}
    return _call(type(layer).__name__, type(layer), config, texts)


def _call(
    written: str,
    cls: type,
    config: Mapping[str, Any],
    always: Mapping[str, str] | None = None,
) -> str:
    """Writes a call of the class `cls`, without arguments that have their defaults.

    Args:
        written: How the class is written.
        cls: The class.
        config: The arguments, as `get_config` returns them.
        always: The text of arguments that are written even if they have their defaults.
    """
    defaults = _defaults(cls)
    texts = dict(always or {})
    for name, value in config.items():
        default = defaults.get(name, inspect.Parameter.empty)
        if name not in texts and not _is_default(name, value, default, config):
            texts[name] = _text(value)
    arguments = [texts.pop(name) for name in _required(cls) if name in texts]
    if "name" in texts:
        texts["name"] = texts.pop("name")  # Comes last.
    arguments += [f"{name}={text}" for name, text in texts.items()]
    return f"{written}({', '.join(arguments)})"


def _defaults(cls):
    """The defaults of the arguments of a class and its bases, by name."""
    defaults = {}
    for base in reversed(cls.__mro__):
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            defaults[name] = parameter.default
    return defaults


def _required(cls):
    """The names of the arguments without a default, in order."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return [p.name for p in named if p.default is p.empty]


def _is_default(name, value, default, config):
    if name == "dtype":
        # A wrapper takes the dtype of its cell by default.
        inner = config.get("cell") or {}
        inner = inner.get("config", {}).get("dtype", value)
        return value == inner and _text(value) == repr(keras.config.dtype_policy().name)
    if default is None:
        # None stands for these, in Keras too.
        default = {
            "activation": "linear",
            "data_format": keras.config.image_data_format(),
            "epsilon": keras.config.epsilon(),
        }.get(name)
    if isinstance(default, str) and isinstance(value, dict):
        # A name, such as "glorot_uniform", may be saved as an object.
        words = re.sub(
            r"(?<=[a-z0-9])(?=[A-Z])", "_", value.get("class_name", "")
        ).lower()
        return words == default and _text(value).endswith("()")
    return value == default


def _text(value):
    """A value of a config as an expression."""
    if isinstance(value, dict):
        if "class_name" in value:
            return _text_of_object(value)
        return "{" + ", ".join(f"{k!r}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(_text, value))
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value)


def _text_of_object(saved):
    """The expression that makes an object that was saved, such as an initializer."""
    name, config = saved["class_name"], saved.get("config")
    if name == "__tuple__":
        return _text(tuple(saved["items"]))
    if name == "DTypePolicy":
        return repr(config["name"])
    cls, written = _public_class(saved)
    if cls is not None and not issubclass(cls, keras.Model):
        known = _defaults(cls)
        if set(_required(cls)) <= set(config) and set(config) <= set(known):
            return _call(written, cls, config)
    return f"keras.saving.deserialize_keras_object({saved!r})"


def _public_class(saved):
    """The class of a saved object, and how to write it; (None, None) if unknown.

    Args:
        saved: Dict, the saved form of an object of Keras, of this package or of a user.
    """
    name = saved["class_name"]
    module, *path = (saved.get("module") or "").split(".")
    found = None
    if module == "keras":
        found = keras
        for part in path:
            found = getattr(found, part, None)
        found = getattr(found, name, None)
        name = ".".join([module, *path, name])
    elif saved.get("registered_name") == f"keras_sparseout>{name}":
        found = keras.saving.get_registered_object(saved["registered_name"])
    return (found, name) if isinstance(found, type) else (None, None)
