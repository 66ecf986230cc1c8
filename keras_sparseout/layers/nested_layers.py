"""What is inside a layer: the layers directly inside, and all objects of a kind."""

from typing import TypeVar

import keras

T = TypeVar("T")


def children(
    layer: keras.layers.Layer,
) -> list[tuple[keras.layers.Layer, list[str]]]:
    """Returns each layer directly inside `layer`, with its names there.

    The names are the attributes that hold it, such as "cell" or "cells/0" in a list,
    and then its own name. The order is the one in which `layer` got them.
    """
    found: dict[int, tuple[keras.layers.Layer, list[str]]] = {}
    # Among the attributes is Keras' own list, with the layers of dicts and sets too.
    for attribute, value in vars(layer).items():
        is_list = isinstance(value, (list, tuple))
        for i, child in enumerate(value if is_list else (value,)):
            if isinstance(child, keras.layers.Layer) and child is not layer:
                _, names = found.setdefault(id(child), (child, []))
                # Attributes come first: an automatic name has a number.
                if not attribute.startswith("_"):
                    names.append(f"{attribute}/{i}" if is_list else attribute)
    return [(child, [*names, child.name]) for child, names in found.values()]


def held_by(
    layer: keras.layers.Layer, kind: type[T], closed: tuple[type, ...] = ()
) -> list[T]:
    """Returns the objects of class `kind` that `layer` holds, each of them once.

    They are among its attributes, in lists, tuples, sets and dicts there, and in the
    same places of the layers inside.

    Args:
        layer: The layer, or a model.
        kind: The class to look for.
        closed: Classes of layers inside that are not looked into.
    """
    found: list[T] = []
    seen: set[int] = {id(layer)}

    def visit(value: object) -> None:
        if id(value) in seen:
            return
        if isinstance(value, kind):
            seen.add(id(value))
            found.append(value)
        elif isinstance(value, (list, tuple, set, dict)):
            seen.add(id(value))
            for item in value.values() if isinstance(value, dict) else value:
                visit(item)
        elif isinstance(value, keras.layers.Layer) and not isinstance(value, closed):
            seen.add(id(value))
            visit(vars(value))

    visit(vars(layer))
    return found
