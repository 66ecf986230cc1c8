"""Models whose layers and calls Keras knows: which these are, and what is in them."""

import keras

from keras_sparseout.models.copying.layer_copies import listed, parts_of


def has_graph(layer: object) -> bool:
    """Whether `layer` is a model whose layers and calls Keras knows."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Function) and isinstance(layer, keras.Model)
    )


def check_is_model(model: object) -> None:
    """Raises unless `model` is a Keras model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model. Received: model={model!r}. Put layers "
            "into a keras.Sequential."
        )


def check_model(model: object) -> None:
    """Raises unless `model` can be rebuilt."""
    check_is_model(model)
    if not has_graph(model):
        raise ValueError(
            "`model` must be a functional or Sequential model: only there Keras knows "
            "which layers are called in which order. Received: "
            f"model={getattr(model, 'name', model)!r} of class {type(model).__name__}, "
            "a subclassed model. Change its layers in its own code, or make it with "
            "the functional API: keras.Model(inputs, outputs)."
        )


def layers_called_in(
    model: keras.Model, *, with_inputs: bool = False, in_time: bool = True
) -> list[keras.layers.Layer]:
    """Returns the layers that `model`, or a model inside it, calls in its graph.

    Before and after these a layer can be inserted.

    Args:
        model: The model.
        with_inputs: Whether layers that stand for inputs are among them.
        in_time: Whether those in a TimeDistributed, which calls them at each timestep,
            are among them.
    """
    found: dict[int, keras.layers.Layer] = {}
    seen: set[int] = set()

    def visit(layer: keras.layers.Layer) -> None:
        is_time = isinstance(layer, keras.layers.TimeDistributed)
        if id(layer) in seen or (is_time and not in_time):
            return
        seen.add(id(layer))
        for part in inside(layer):
            is_input = isinstance(part, keras.layers.InputLayer)
            if has_graph(layer) and (with_inputs or not is_input):
                found[id(part)] = part
            visit(part)

    visit(model)
    return list(found.values())


def inside(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers in the graph or in the config of `layer`."""
    if has_graph(layer):
        return layer.layers
    return [p for part in parts_of(layer).values() for p in listed(part)]


def in_several_places(model: keras.Model) -> set[int]:
    """Returns the ids of the layers that more than one model or wrapper has in it."""
    several: set[int] = set()
    seen: set[int] = set()

    def visit(layer: keras.layers.Layer) -> None:
        for part in inside(layer):
            if id(part) in seen:
                several.add(id(part))
            else:
                seen.add(id(part))
                visit(part)

    visit(model)
    return several
