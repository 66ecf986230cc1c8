"""Copies of single layers: made anew from their configs."""

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras

from keras_sparseout.layers import nested_layers
from keras_sparseout.models.copying.clear_names import (
    ClearNames,
    held_at,
    is_of_keras,
    quiet_about_lambdas,
)

# What the config of a layer holds: a layer, or a list of them.
Part: TypeAlias = keras.layers.Layer | Sequence[keras.layers.Layer]


def copy_of(
    layer: keras.Operation,
    parts: Mapping[str, Part] | None = None,
    *,
    by_config: bool = False,
) -> keras.Operation:
    """Makes an equal layer or operation from the config of `layer`, without its state.

    Args:
        layer: The layer or operation.
        parts: What takes the place of layers inside it, by their key in the config, as
            `parts_of` has them.
        by_config: Whether the layer gets equal ones, not these themselves.

    Raises:
        ValueError: if its class can't make it from its config.
    """
    parts, names, known = parts or {}, ClearNames(), custom_objects(layer)
    if by_config:
        within = [inner for part in parts.values() for inner in listed(part)]
        for inner in within:
            known = {**custom_objects(inner), **known}
    write = names.described if by_config else names.made
    try:
        with keras.saving.custom_object_scope(known):
            config = names.config(config_of(layer), layer)
            config |= {key: write(part) for key, part in parts.items()}
        with keras.saving.custom_object_scope({**known, **names.objects}):
            new = _made_from(config, layer)
    except Exception as error:
        raise _not_made(layer, known, error) from error
    if new.name != layer.name:
        new.name = layer.name
    masks = getattr(layer, "supports_masking", None)
    if masks != getattr(new, "supports_masking", None):
        # It may be set from outside, which is in no config.
        new.supports_masking = masks
    return new


def _not_made(layer, known, error):
    kind, says = type(layer).__name__, f"{error}".splitlines()[:1]
    own = [name for name, value in known.items() if isinstance(value, type)]
    remedy = (
        "Give it functions that are written with `def` or `lambda`, and put other "
        "callables into a layer of your own."
    )
    if own:
        remedy = (
            f"Give {' and '.join(own)} a `get_config` that returns all arguments of "
            "its `__init__`."
        )
    return ValueError(
        "`model` must have layers that can be made again from their configs. "
        f"Received: model with the layer {layer.name!r}, for which "
        f"{kind}.from_config(layer.get_config()) raises {type(error).__name__}: "
        f"{''.join(says).rstrip('.')}. {remedy}"
    )


def _made_from(config, layer):
    if isinstance(layer, keras.layers.Lambda):
        # Its config has its arguments as files have them.
        for key in {"function", "output_shape", "mask", "arguments"} & set(config):
            config[key] = held_at(layer, key)
        return type(layer)(**config)
    parameters = inspect.signature(type(layer).__init__).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        # Such a class has the defaults of Keras.
        for key in {"trainable", "dtype"} - set(parameters):
            config.pop(key, None)
    return type(layer).from_config(config)


def config_of(layer: keras.Operation) -> dict[str, Any]:
    """Returns the config of a layer or operation."""
    with quiet_about_lambdas():
        return layer.get_config()


def parts_of(layer: keras.layers.Layer) -> dict[str, Part]:
    """The layers that the config of `layer` holds, by their key there.

    Other ones can go in their place, also in files: the layer of a `TimeDistributed`,
    the cell of an `RNN`. What the layer makes by itself, in its `__init__`, can't be
    replaced: a file would bring it back.
    """
    try:
        config = config_of(layer)
    except Exception:  # Whatever a layer raises that has no config.
        return {}
    found = {}
    for key, value in config.items():
        attribute = key
        if key == "layer" and isinstance(layer, keras.layers.Bidirectional):
            attribute = "forward_layer"
        part = getattr(layer, attribute, None)
        if isinstance(value, (dict, list)) and _is_made_of_layers(part):
            found[key] = part
    return found


def listed(part: Part) -> list[keras.layers.Layer]:
    """Returns the layers of one part."""
    return [part] if isinstance(part, keras.layers.Layer) else list(part)


def _is_made_of_layers(part):
    if isinstance(part, (list, tuple)):
        return bool(part) and all(isinstance(p, keras.layers.Layer) for p in part)
    return isinstance(part, keras.layers.Layer)


def custom_objects(layer: keras.Operation) -> dict[str, Any]:
    """The classes and functions inside `layer` that Keras may not know, by name."""
    found: dict[str, Any] = {}
    inside = [layer]
    if isinstance(layer, keras.layers.Layer):
        inside += nested_layers.held_by(layer, keras.layers.Layer)
    for each in inside:
        found.setdefault(type(each).__name__, type(each))
        for value in vars(each).values():
            if isinstance(value, types.FunctionType):
                found.setdefault(value.__name__, value)
            elif hasattr(value, "get_config"):
                found.setdefault(type(value).__name__, type(value))
    return {name: value for name, value in found.items() if not is_of_keras(value)}
