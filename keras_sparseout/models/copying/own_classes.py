"""Models of a user's own class: makes a copy of one from its graph."""

import inspect
import itertools
import numbers
import types
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_sparseout.models.copying.clear_names import is_of_keras
from keras_sparseout.models.copying.layer_copies import config_of

# What a class of models may have of its own, so that a plain model does not do.
_OF_CALLS = {"call", "__call__", "compute_mask"}
_OF_TRAINING = {
    *("train_step", "test_step", "predict_step", "fit", "evaluate", "predict"),
    *("compute_loss", "compute_metrics", "compile", "compile_from_config"),
}
# What the config of a model has if the class has no `get_config` of its own.
_IN_CONFIGS = {
    *("name", "trainable", "dtype", "activity_regularizer"),
    *("layers", "input_layers", "output_layers", "build_input_shape"),
}
_VARIOUS = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_PLAIN = (numbers.Number, np.bool_, str, bytes, type(None))


def constructor_of(model: keras.Model, *, is_inner: bool) -> type[keras.Model]:
    """Returns the class that makes a copy of a model with a graph from its graph.

    It is the model's own class, or a plain one if that class has another `__init__`.

    Args:
        model: The model.
        is_inner: Whether it is inside another model, which trains it.

    Raises:
        ValueError: if a plain model would compute, or train, otherwise.
    """
    if isinstance(model, keras.Sequential):
        plain, own = keras.Sequential, _OF_CALLS
    else:
        plain = type(keras.Model(model.input, model.output))
        own = _OF_CALLS if is_inner else {*_OF_CALLS, *_OF_TRAINING}
    if type(model) is plain:
        return plain
    if _takes_graph(model) and (_has_config(model) or not _takes_more(model)):
        return type(model)
    changed = sorted(own & {name for cls in _own(model) for name in vars(cls)})
    if changed:
        kind = type(model).__name__
        raise ValueError(
            "`model` must be made by (inputs, outputs) or (layers) if its class has "
            f"a `{changed[0]}` of its own. Received: model={model.name!r} of class "
            f"{kind}, whose `__init__` takes more. Give keras.Model(model.input, "
            "model.output), which has the same layers; or let that `__init__` begin "
            f"with (inputs, outputs) or (layers), and give {kind} a `get_config` that "
            "adds the other arguments to those of Keras."
        )
    return plain


def make(
    model: keras.Model,
    constructor: type[keras.Model],
    graph: tuple[Any, ...],
    of_keras: Mapping[str, Any],
) -> keras.Model:
    """Makes a copy of a model from a graph, with what is its own.

    These are the arguments that its `get_config` adds to those of Keras, and attributes
    of numbers or strings, also those that were set from outside.

    Args:
        model: The model.
        constructor: What `constructor_of` returns for it.
        graph: The inputs and outputs, or the layers.
        of_keras: The attributes that a plain model has.

    Raises:
        ValueError: if the class does not take the arguments.
    """
    if constructor is not type(model) or not _own(model):
        return constructor(*graph, name=model.name)
    more: dict[str, Any] = {}
    if _has_config(model) and _initializers(model):
        config = config_of(model)
        more = {key: config[key] for key in config if key not in _IN_CONFIGS}
    try:
        new = constructor(*graph, name=model.name, **more)
    except Exception as error:
        if not more:
            raise
        raise ValueError(
            "`model` must be of a class whose `__init__` takes what its `get_config` "
            f"adds to the config of Keras. Received: model={model.name!r} of class "
            f"{type(model).__name__}, for which {type(model).__name__}(..., "
            f"{', '.join(f'{key}=...' for key in more)}) raises "
            f"{type(error).__name__}: {error}. Let it take them."
        ) from error
    for name, value in vars(model).items():
        if name not in of_keras and _is_plain(value):
            known, its_own = name in vars(new), vars(new).get(name)
            if not known or (_is_plain(its_own) and its_own != value):
                setattr(new, name, _copied(value))
    return new


def _own(model):
    """Returns the classes of a model that are not of Keras, its own first."""
    classes = itertools.takewhile(lambda cls: not is_of_keras(cls), type(model).__mro__)
    return [*classes]


def _graph_of(model):
    """Returns the names of the arguments that Keras makes such a model of."""
    return ["layers"] if isinstance(model, keras.Sequential) else ["inputs", "outputs"]


def _takes_graph(model):
    """Whether the class of a model takes a graph and a name, as a plain one does."""
    parameters = [*inspect.signature(type(model).__init__).parameters.values()][1:]
    kinds, graph = [p.kind for p in parameters], _graph_of(model)
    is_named = any(p.name == "name" for p in parameters)
    if not is_named and inspect.Parameter.VAR_KEYWORD not in kinds:
        return False
    takes_all = kinds[:1] == [inspect.Parameter.VAR_POSITIONAL]
    return takes_all or [p.name for p in parameters[: len(graph)]] == graph


def _has_config(model):
    return any("get_config" in vars(cls) for cls in _own(model))


def _takes_more(model):
    """Whether the `__init__` of a class of a model takes more than a plain one."""
    known = {"self", *_graph_of(model), *_IN_CONFIGS}
    for init in _initializers(model):
        parameters = inspect.signature(init).parameters.values()
        if {p.name for p in parameters if p.kind not in _VARIOUS} - known:
            return True
    return False


def _initializers(model):
    """Returns the `__init__` of each class of a model that has one of its own."""
    own = [vars(cls).get("__init__") for cls in _own(model)]
    return [init for init in own if isinstance(init, types.FunctionType)]


def _is_plain(value):
    """Whether a value is a number, a string, or made of some."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _copied(value):
    """Returns a plain value, which the two models do not share."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        kind = tuple if isinstance(value, tuple) else list
        return kind(map(_copied, value))
    return value
