"""Models of a user's own class: makes a copy of one from its graph."""

import inspect
import itertools
import numbers
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sparseout.models.copying.clear_names import ClearNames, is_of_keras
from keras_sparseout.models.copying.layer_copies import config_of, custom_objects

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


class _NotMade(Exception):
    """A class makes no copy; the message goes on after its name."""


def copy_of(
    model: keras.Model,
    graph: tuple[Any, ...],
    unchanged: Callable[[], tuple[Any, ...]],
    *,
    is_inner: bool,
) -> keras.Model:
    """Makes a copy of a model from a graph, of its own class if that makes one.

    Such a copy has the arguments that the `get_config` of its class adds to those of
    Keras, and the model's attributes of numbers or strings, also those that were set
    from outside. What the class computes from the layers stays as it is computed.

    Args:
        model: The model.
        graph: The inputs and outputs, or the layers.
        unchanged: Makes a graph of new layers that is as that of the model.
        is_inner: Whether it is inside another model, which trains it.

    Raises:
        ValueError: if a plain model would compute, or train, otherwise, and its class
            makes no copy.
    """
    kind = keras.Sequential if len(graph) == 1 else keras.Model
    if not _own(model):
        return kind(*graph, name=model.name)
    try:
        new = _of_own_class(model, graph)
    except _NotMade as error:
        _check_is_plain(model, error, is_inner=is_inner)
        return kind(*graph, name=model.name)
    _set_attributes(model, new, unchanged)
    return new


def _check_is_plain(model, error, *, is_inner):
    """Raises if a plain model would compute, or train, otherwise."""
    own = _OF_CALLS if is_inner else {*_OF_CALLS, *_OF_TRAINING}
    changed = sorted(own & {name for cls in _own(model) for name in vars(cls)})
    if changed:
        kind, graph = type(model).__name__, f"({', '.join(_graph_of(model))})"
        raise ValueError(
            f"`model` must be of a class that makes a copy from {graph} if it has a "
            f"`{changed[0]}` of its own. Received: model={model.name!r} of class "
            f"{kind}, {error}. Give keras.Model(model.input, model.output), which has "
            f"the same layers; or let that `__init__` begin with {graph}, pass this on "
            f"as it is, and take what a `get_config` of {kind} adds to that of Keras."
        ) from error


def _of_own_class(model, graph):
    """Makes a model of the class of a model from a graph, or raises `_NotMade`."""
    if not _takes_graph(model):
        raise _NotMade("whose `__init__` takes other arguments")
    if _takes_more(model) and not _has_config(model):
        raise _NotMade("whose `__init__` takes more")
    more: dict[str, Any] = {}
    # The class may change the lists that it is given.
    given = keras.tree.map_structure(lambda each: each, graph)
    try:
        if _has_config(model) and _initializers(model):
            config = config_of(model)
            more = {key: config[key] for key in config if key not in _IN_CONFIGS}
            more = _with_objects(more, model)
        new = type(model)(*given, name=model.name, **more)
    except Exception as error:
        call = ", ".join([*_graph_of(model), *(f"{key}=..." for key in more)])
        raise _NotMade(
            f"for which {type(model).__name__}({call}) raises "
            f"{type(error).__name__}: {f'{error}'.rstrip('.')}"
        ) from error
    if not _is_made_of(new, graph):
        raise _NotMade("whose `__init__` changes the graph that it is given")
    return new


def _with_objects(more, model):
    """Returns arguments with new objects where the config describes some."""
    names = ClearNames()
    described = {key: value for key, value in more.items() if _has_objects(value)}
    described = names.config(described, model)
    with keras.saving.custom_object_scope({**custom_objects(model), **names.objects}):
        return {**more, **{key: _read(value) for key, value in described.items()}}


def _is_object(value):
    """Whether a value of a config is what Keras writes for an object."""
    return isinstance(value, dict) and {"class_name", "config"} <= set(value)


def _has_objects(value):
    if _is_object(value):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return _container(value) is not None and any(map(_has_objects, inner))


def _read(value):
    """Returns a value of a config with new objects for those that it describes."""
    if _is_object(value):
        return keras.saving.deserialize_keras_object(value)
    kind = _container(value)
    if kind is dict:
        return {key: _read(each) for key, each in value.items()}
    return value if kind is None else kind(map(_read, value))


def _is_made_of(new, graph):
    """Whether a model has the very graph: these tensors, or these layers."""
    if len(graph) == 1:
        graph = [each for each in graph[0] if isinstance(each, keras.layers.Layer)]
        of_new = new.layers
    else:
        of_new = new.input, new.output
    try:
        are_same = keras.tree.map_structure(lambda a, b: a is b, graph, of_new)
    except (TypeError, ValueError):  # Another structure.
        return False
    return all(keras.tree.flatten(are_same))


def _set_attributes(model, new, unchanged):
    """Gives a copy the plain attributes that the class does not compute from layers."""
    plain = keras.Sequential()
    if not isinstance(model, keras.Sequential):
        plain = keras.Model(new.input, new.output)
    of_class: dict[str, Any] | None = None
    for name, value in vars(model).items():
        if name in vars(plain) or not _is_plain(value):
            continue
        if name in vars(new):
            its_own = vars(new)[name]
            if not _is_plain(its_own) or its_own == value:
                continue
            if of_class is None:
                of_class = _attributes_of_class(model, unchanged)
            if name in of_class and of_class[name] == value:
                continue
        setattr(new, name, _copied(value))


def _attributes_of_class(model, unchanged):
    """Returns the plain attributes that the class gives a model with the same layers.

    The layers are new ones: an `__init__` may change those that it gets.
    """
    try:
        twin = _of_own_class(model, unchanged())
    except Exception:  # Whatever a layer raises that is not in the new model.
        return {}
    return {name: value for name, value in vars(twin).items() if _is_plain(value)}


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
    """Whether a value is a number, a string, or lists, tuples or dicts of some."""
    kind = _container(value)
    if kind is dict:
        value = [*value, *value.values()]
    if kind is not None:
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _container(value):
    """Returns the type of a list, tuple or dict, None for those with more in them."""
    for kind in (list, tuple, dict):
        # Keras puts lists and dicts into types of its own, which it tracks.
        if type(value) is kind or (
            isinstance(value, kind) and is_of_keras(type(value))
        ):
            return kind
    return None


def _copied(value):
    """Returns a plain value, which the two models do not share."""
    kind = _container(value)
    if kind is dict:
        return {key: _copied(each) for key, each in value.items()}
    return value if kind is None else kind(map(_copied, value))
