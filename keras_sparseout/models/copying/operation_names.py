"""Names of the operations in a model, which must differ from those of new ones."""

import keras

from keras_sparseout.models.copying.model_graphs import has_graph, inside


def names_in(model: keras.Model) -> set[str]:
    """Returns the names of all layers and operations in the graphs of a model."""
    names: set[str] = set()
    seen: set[int] = set()

    def visit(layer: keras.layers.Layer) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if has_graph(layer):
            names.update(layer.name for layer in layer.layers)
        if isinstance(layer, keras.Function):
            names.update(operation.name for operation in layer.operations)
        for part in inside(layer):
            visit(part)

    visit(model)
    return names


def reserve(names: set[str]) -> None:
    """Lets Keras give other names than `names` to operations without a name.

    Keras counts the names that it gave in this process. A model from a file may have
    "subtract" although that count is 0, and no two operations of a model may have one
    name.
    """
    highest: dict[str, int] = {}
    for name in names:
        base, _, digits = name.rpartition("_")
        if not digits.isdecimal():
            base, digits = name, "0"
        if hasattr(keras.ops, base):
            highest[base] = max(highest.get(base, 0), int(digits))
    for base, number in highest.items():
        nameless = type(base, (keras.Operation,), {})
        given = -1
        while given < number:
            suffix = nameless().name[len(base) + 1 :]
            given = int(suffix) if suffix.isdecimal() else 0
