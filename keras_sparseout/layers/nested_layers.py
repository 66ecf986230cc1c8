"""What is inside a layer: the layers directly inside, and all objects of a kind."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import keras

from keras_sparseout.backend import tracing

T = TypeVar("T")


def children(
    layer: keras.layers.Layer,
) -> list[tuple[keras.layers.Layer, list[str]]]:
    """Returns each layer directly inside `layer`, with its names there.

    The names are the attributes that hold it, such as "cell", or "cells/0" in a list,
    and then its own name. The order is the one in which `layer` got them.

    Layers that Keras does not track are among them: `self.drops.setdefault("a", drop)`
    hides a layer from Keras, but `call` may call it all the same.
    """
    found: dict[int, tuple[keras.layers.Layer, list[str]]] = {}
    # Among the attributes is Keras' own list, with the layers of sets too.
    for attribute, value in vars(layer).items():
        for name, child in _layers_in(attribute, value, ()):
            if child is not layer:
                _, names = found.setdefault(id(child), (child, []))
                # Attributes come first: an automatic name has a number.
                if not attribute.startswith("_"):
                    names.append(name)
    return [(child, [*names, child.name]) for child, names in found.values()]


def places(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Returns the layers directly inside `layer`, by each place that holds them.

    A place is an attribute, also one of Keras' own, such as "_query_dense", or a part
    of it, such as "cells/0". Layers of one class and config have equal places.
    """
    return {
        place: child
        for attribute, value in vars(layer).items()
        for place, child in _layers_in(attribute, value, ())
        if child is not layer
    }


def _layers_in(
    name: str, value: object, around: tuple[int, ...]
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields the layers in lists, tuples and dicts; `around` has their ids."""
    if isinstance(value, keras.layers.Layer):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and id(value) not in around:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(items):
            yield from _layers_in(f"{name}/{key}", item, (*around, id(value)))


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
        seen.add(id(value))
        if isinstance(value, kind):
            found.append(value)
        if isinstance(value, (list, tuple, set, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                visit(item)
        elif isinstance(value, keras.layers.Layer) and not isinstance(value, closed):
            visit(vars(value))

    visit(vars(layer))
    return found


def check_traceable(
    layers: Iterable[keras.layers.Layer],
    matters: Callable[[keras.layers.Layer], Any],
    argument: str,
    what: str,
) -> None:
    """Raises if a layer traces itself: it would keep its graph beyond this call.

    Args:
        layers: The layers.
        matters: Function of a layer: whether a graph that it keeps does harm.
        argument: Name of the argument with the layers, for the message.
        what: What must not be in such a graph, for the message.
    """
    for layer in layers:
        if tracing.is_tf_function(layer.call) and matters(layer):
            raise ValueError(
                f"`{argument}` must have no tf.function around {what}. Received: "
                f"{argument} with {layer.name!r}, whose `call` is one. Take "
                "@tf.function off it: Keras compiles the whole step."
            )
