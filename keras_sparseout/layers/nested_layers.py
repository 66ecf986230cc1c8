"""The layers directly inside a layer."""

import keras


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
