"""`insert`: layers put after others, or before them."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import keras

from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.models.copying.model_graphs import (
    check_model,
    has_graph,
    layers_called_in,
)
from keras_sparseout.models.copying.operation_names import names_in
from keras_sparseout.models.copying.rebuilding import rebuild
from keras_sparseout.models.copying.steps import Change
from keras_sparseout.utils import validation

# Makes the layer to insert from the layer that was matched, or is its class.
Factory: TypeAlias = Callable[..., keras.layers.Layer]


def insert(
    model: keras.Model,
    layers: Mapping[LayerChoice, Factory],
    *,
    where: Literal["after", "before"] = "after",
) -> keras.Model:
    """Returns a copy of a model with layers put after others, or before them.

    The copy has layers of its own, with copies of the weights, and is compiled as the
    model was, with a copy of the optimizer's state. The model is left as it is. The
    names of its layers stay, though not always their order, by which Keras numbers them
    in files of weights.

    A layer that is called several times, or is in a model that is, gets one layer,
    which is called as often. Models inside the model are changed inside. In a frozen
    model it keeps its own `trainable`, so that a threshold goes on to follow its input.

    Args:
        model: Functional or Sequential model, built or not, with models of these kinds
            inside.
        layers: Dict of what to insert by where. A key is a layer of the model, a path
            ("encoder/dense"), a regular expression (a string must match a whole path,
            "block.*"; a compiled one may match a part of it), a type
            (keras.layers.Conv2D), or, where no path matches, the name of an activation
            ("relu") or of a type ("conv2d"). A value is a function that gets the layer
            and returns a new one, such as `lambda layer: Sparseout(0.5)`, or a class
            of layers that needs no arguments.
        where: "after" for the output of the layer; if it returns several tensors, for
            the first floating-point one. "before" for its input, which must be one
            tensor; a recurrent layer may have initial states too.

    Returns:
        The new model, of the class of `model`, with what the `get_config` of that class
        adds to that of Keras as arguments, and with its attributes of numbers or
        strings. If its `__init__` takes other arguments, or adds layers to those that
        it gets, the new model is a plain one; where that would compute or train
        otherwise, it is an error. Where something is inserted after the last layer, its
        output is the model's; an output that had its name from the layer now has it
        from the new one, and losses and metrics given by that name follow.

    Raises:
        ValueError: if `model` is a subclassed model, or one of its layers can't be made
            again from its config; if a key matches no layer, a layer that another one
            matches too, a part of another layer, such as the cell of an RNN, or what
            returns or takes no floating-point tensor; if a value makes no new layer, or
            one after which a weight would have another shape.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, "relu", name="hidden")]
    ... )
    >>> make = lambda layer: keras_sparseout.Sparseout(0.5, name=layer.name + "_drop")
    >>> sparse = keras_sparseout.models.insert(model, {"relu": make})
    >>> [layer.name for layer in sparse.layers]
    ['hidden', 'hidden_drop']
    >>> [layer.name for layer in model.layers]
    ['hidden']
    """
    check_model(model)
    if where not in ("after", "before"):
        remedy = "Leave it out for the output of the layers."
        raise validation.value_error("where", where, '"after" or "before"', remedy)
    factories = _factories(model, layers)
    names = names_in(model)
    taken = {id(watched.layer) for watched in layer_selection.all_layers(model)}
    changes = []
    for layer, factory in factories:
        new = _make(layer, factory, names, taken)
        taken.add(id(new))
        sides: dict[str, Any] = {where: new}
        changes.append(Change(layer, **sides))
    return rebuild(model, changes)


def _factories(model, layers):
    """Returns each layer that a key matches, with its factory."""
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(
            "`layers` must be a dict with at least one layer, name, regular expression "
            "or type, and what makes the layer to insert. Received: "
            f"layers={layers!r}. "
            'Give for example {"dense": lambda layer: Sparseout(0.5)}.'
        )
    called = {id(layer) for layer in layers_called_in(model)}
    found: dict[int, tuple[LayerChoice, keras.layers.Layer, Factory]] = {}
    for choice, factory in layers.items():
        _check_factory(choice, factory)
        matches = _matches(model, choice)
        for watched in matches:
            layer = watched.layer
            if id(layer) not in called:
                if any(watched.name.startswith(w.name + "/") for w in matches):
                    # ".*" means the layer around it.
                    continue
                raise _is_a_part(model, choice, watched, called)
            if id(layer) in found:
                raise ValueError(
                    "`layers` must match each layer once. Received: layers with "
                    f"{_shown(found[id(layer)][0])} and {_shown(choice)}, which both "
                    f"match {watched.name!r}. Name it in one of them alone, or call "
                    "`insert` twice."
                )
            found[id(layer)] = choice, layer, factory
    return [(layer, factory) for _, layer, factory in found.values()]


def _matches(model, choice):
    for layer in layers_called_in(model, with_inputs=True):
        if isinstance(layer, keras.layers.InputLayer) and choice in (layer, layer.name):
            raise ValueError(
                "`layers` must not be inputs of a model. Received: layers with "
                f"{_shown(choice)}, an InputLayer. Name the layer that is called on "
                'it, with where="before".'
            )
    if not isinstance(choice, (str, type, re.Pattern, keras.layers.Layer)):
        raise ValueError(
            "`layers` must have as keys layers of the model, names, regular "
            f"expressions or types. Received: layers={{{choice!r}: ...}}. Give for "
            'example {"dense": lambda layer: Sparseout(0.5)}.'
        )
    return layer_selection.select(model, [choice])


def _check_factory(choice, factory):
    rule = (
        "`layers` must have functions as values, which get a layer and return a new one"
    )
    received = f"Received: layers={{{_shown(choice)}: {factory!r}}}."
    if isinstance(factory, keras.layers.Layer):
        raise ValueError(
            f"{rule}: each place has a layer of its own. {received} Give for example "
            f"lambda layer: {type(factory).__name__}(...)."
        )
    if not callable(factory):
        raise ValueError(
            f"{rule}. {received} Give for example lambda layer: Sparseout(0.5)."
        )


def _make(layer, factory, names, taken):
    """Makes the layer to insert at `layer`, with a name that no other layer has."""
    is_class = isinstance(factory, type) and issubclass(factory, keras.layers.Layer)
    if is_class and not _needs_nothing(factory):
        raise ValueError(
            "`layers` must have classes as values only if they need no arguments. "
            f"Received: layers={{...: {factory.__name__}}} for {layer.name!r}. Give "
            f"lambda layer: {factory.__name__}(...)."
        )
    new = factory() if is_class else factory(layer)
    if not isinstance(new, keras.layers.Layer) or isinstance(
        new, keras.layers.InputLayer
    ):
        raise ValueError(
            "`layers` must have functions as values that return a keras.layers.Layer. "
            f"Received: a function that returns {new!r} for {layer.name!r}. Give for "
            "example lambda layer: Sparseout(0.5)."
        )
    is_called = isinstance(getattr(new, "output", None), keras.KerasTensor)
    if id(new) in taken or (is_called and not has_graph(new)):
        raise ValueError(
            "`layers` must have functions as values that make a new layer each time. "
            f"Received: a function that returns {new.name!r} again for {layer.name!r}. "
            "Make the layer inside the function: lambda layer: "
            f"{type(new).__name__}(...)."
        )
    base, count = new.name, 0
    while new.name in names:
        count += 1
        new.name = f"{base}_{count}"
    names.add(new.name)
    return new


def _needs_nothing(kind):
    parameters = [*inspect.signature(kind.__init__).parameters.values()][1:]
    may_be_left_out = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(
        p.default is not p.empty or p.kind in may_be_left_out for p in parameters
    )


def _is_a_part(model, choice, watched, called):
    """The error for a layer whose calls can't be changed."""
    around = [
        w.name
        for w in layer_selection.all_layers(model)
        if watched.name.startswith(w.name + "/") and id(w.layer) in called
    ]
    return ValueError(
        "`layers` must be layers that a functional or Sequential model calls. "
        f"Received: layers with {_shown(choice)}, which matches {watched.name!r}. It "
        f"is called by {around[-1]!r}, in code that can't be changed. Name that one, "
        "or fewer layers."
    )


def _shown(choice):
    if isinstance(choice, type):
        return choice.__name__
    return repr(getattr(choice, "name", getattr(choice, "pattern", choice)))
