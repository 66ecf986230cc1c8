"""Layers as text: a call that makes an equal layer."""

import inspect
import math
import re

import keras


def call_of(layer, **others):
    """The call that makes a constant layer like `layer`, as text.

    It evaluates where `keras` and the names of this package are imported.

    Args:
        layer: A layer of this package.
        **others: Knobs that are to be others, floats; shortened to 4 digits.
    """
    config = layer.get_config()
    del config["adjustable"]
    texts = {name: _text(config[name]) for name in layer.knobs}
    texts |= {name: f"{value:.4g}" for name, value in others.items()}
    return _call(type(layer).__name__, type(layer), config, texts)


def _call(written, cls, config, texts=()):
    """Writes a call of the class `cls`, without arguments that have their defaults.

    Args:
        written: How the class is written.
        cls: The class.
        config: Dict of the arguments, as `get_config` returns it.
        texts: Dict of arguments as text, those that are written in any case.
    """
    defaults = _defaults(cls)
    texts = dict(texts)
    for name, value in config.items():
        default = defaults.get(name, inspect.Parameter.empty)
        if name not in texts and not _is_default(name, value, default, config):
            texts[name] = _text(value)
    arguments = [texts.pop(name) for name in _required(cls) if name in texts]
    if "name" in texts:
        texts["name"] = texts.pop("name")  # As the last one.
    arguments += [f"{name}={text}" for name, text in texts.items()]
    return f"{written}({', '.join(arguments)})"


def _defaults(cls):
    """The defaults of its arguments by name, also of those that its bases take."""
    defaults = {}
    for base in reversed(cls.__mro__):
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            defaults[name] = parameter.default
    return defaults


def _required(cls):
    """The names of the arguments that have to be given, in order."""
    _, *parameters = inspect.signature(cls.__init__).parameters.values()
    named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return [p.name for p in named if p.default is p.empty]


def _is_default(name, value, default, config):
    if name == "dtype":
        # That of a cell is the default of what is around it.
        inner = config.get("cell") or {}
        inner = inner.get("config", {}).get("dtype", value)
        return value == inner and _text(value) == repr(keras.config.dtype_policy().name)
    if default is None:
        # What None stands for, in Keras too.
        default = {
            "activation": "linear",
            "data_format": keras.config.image_data_format(),
            "epsilon": keras.config.epsilon(),
        }.get(name)
    if isinstance(default, str) and isinstance(value, dict):
        # Such as "glorot_uniform" for an initializer that is saved as an object.
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
    """The expression that makes a layer, initializer or the like that was saved."""
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
    """The class of a saved object, and how it is written; (None, None) if unknown.

    Args:
        saved: Dict, what an object of Keras, of this package or of a user is saved as.
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
