"""Finding the layers of a model that are to be watched, and naming them."""

import contextlib
import dataclasses
import re
from typing import TypeAlias

import keras

from keras_sparseout.backend import tracing
from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.measure import hooks
from keras_sparseout.utils import validation

# One entry of the argument `layers`.
LayerChoice: TypeAlias = str | type | re.Pattern[str] | keras.layers.Layer

# An RNN calls its cell in a loop, attention its Softmax only where nothing is faster.
_WITH_PARTS = (
    keras.layers.RNN,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)


# By the names that Keras and TensorFlow have for them.
_OF_HEADS = ("sigmoid", "hard_sigmoid", "log_sigmoid", "softmax", "softmax_v2")
_OF_HEADS += ("log_softmax", "log_softmax_v2", "linear")


@dataclasses.dataclass(frozen=True)
class Watched:
    """A layer, the path that its figures go by, and which side of it is measured.

    `is_part` says whether it stands for no layer of its own, but for a part of another.
    """

    name: str
    layer: keras.layers.Layer
    side: str
    is_part: bool


def find(model):
    """Returns every layer inside `model`, nested ones by their path, as `Watched`.

    Not those that stand for the inputs, which a model does not call.
    The side is "input" for Sparseout layers, whose output is noisy in training and
    whose input is the activations that they act on, and "output" for all others.
    """
    found, seen, names = [], {id(model)}, set()

    def visit(parent, prefix, in_part):
        # It hides the mask from the layer that it wraps.
        is_part = in_part or isinstance(parent, keras.layers.TimeDistributed)
        for layer in _children(parent):
            if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
                continue
            seen.add(id(layer))
            path = name = prefix + layer.name
            count = 0
            while name in names:
                count += 1
                name = f"{path}_{count}"
            names.add(name)
            side = "input" if isinstance(layer, Sparseout) else "output"
            found.append(Watched(name, layer, side, is_part))
            visit(layer, path + "/", in_part or isinstance(layer, _WITH_PARTS))

    visit(model, "", False)
    return found


def select(model, layers=None, where=None):
    """Returns the layers of `model` to watch.

    Args:
        model: A built Keras model.
        layers: List of layers of the model, paths ("encoder/dense"), regular
            expressions that match a whole path ("block.*", or compiled, to match a
            part of it), types (keras.layers.Conv2D), or, where no path matches, names
            of activations ("relu") or of types ("conv2d"), in lower case or not. None:
            all Sparseout layers, or if there is none, all with a nonlinear activation.
        where: The side to measure, "input" or "output"; None for that of `find`.

    Raises:
        ValueError: if there is none, or one that `layers` names is not in the model.
    """
    found = find(model)
    if where is not None:
        found = [dataclasses.replace(w, side=where) for w in found]
    if layers is not None:
        named = {w.name: w for wanted in layers for w in _look_up(wanted, found)}
        return list(named.values())
    watched = [w for w in found if isinstance(w.layer, Sparseout)]
    if not watched:
        watched = [w for w in found if not w.is_part and _is_nonlinear(w.layer)]
    if not watched:
        raise ValueError(
            "`layers` must name the layers to watch, since the model has neither "
            "Sparseout layers nor layers with a nonlinear activation. Received: "
            f"layers=None for model {model.name!r}. Give layers=[...]. Where the "
            "activation is an operation, as keras.ops.relu, name the layer after it, "
            'with where="input". The model has: '
            f"{validation.some_of([w.name for w in found])}."
        )
    return watched


def units(watched):
    """The number of units or channels of a built layer's activations, None if unknown.

    From the shape that it was built with, since layers of subclassed models have no
    `input` and no `output`.
    """
    config = watched.layer.get_build_config() or {}
    shapes = config.get("input_shape") or list(config.get("shapes_dict", {}).values())
    if shapes and watched.side == "output":
        try:
            shapes = watched.layer.compute_output_shape(shapes)
        except Exception:  # Whatever a layer raises that can't tell.
            return None
    while shapes and isinstance(shapes[0], (list, tuple)):
        shapes = shapes[0]
    if not shapes or len(shapes) < 2:
        return None
    return shapes[1 if hooks.channels_first(watched, len(shapes)) else -1]


def unreached(missed, model, *, named=True):
    """The error for layers whose activations could not be read.

    Args:
        missed: Their names.
        model: The model that they are in.
        named: Whether the user named them; otherwise they are the defaults.
    """
    found = find(model)
    rule = "be layers that the model calls, and not"
    received = f"layers={missed[:8]}"
    if not named:
        rule = "be given, since the default ones are not called, or"
        received = f"layers=None, for {validation.some_of(missed)}"
    return ValueError(
        f"`layers` must {rule} inside an RNN cell, a loop or a tf.function of its own, "
        "from where activations can't be read. "
        f"Received: {received}. {_remedy(missed[0], found, model)} The model has: "
        f"{validation.some_of([w.name for w in found], missed[0])}."
    )


def _remedy(name, found, model):
    around = sorted(w.name for w in found if name.startswith(w.name + "/"))
    layers = {w.name: w.layer for w in found}
    for layer in (model, *(layers[n] for n in around)):
        if tracing.is_tf_function(layer.call):
            return (
                f"Take @tf.function off the `call` of {layer.name!r}: Keras compiles "
                "the whole step."
            )
    if around:
        return f"Name what is around it, layers=[{around[0]!r}], or others."
    return "Name layers that it calls, layers=[...]."


def _children(parent):
    if isinstance(parent, keras.Model):
        return parent.layers
    children, seen = [], set()

    def visit(value):
        if isinstance(value, keras.layers.Layer):
            children.append(value)
        elif isinstance(value, (list, tuple, dict)) and id(value) not in seen:
            seen.add(id(value))
            for item in list(value.values() if isinstance(value, dict) else value):
                visit(item)

    visit(vars(parent))
    return children


def _is_nonlinear(layer):
    kinds = ("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
    name = _activation(layer)
    if name is not None:
        return name != "linear"
    return isinstance(layer, tuple(getattr(keras.layers, kind) for kind in kinds))


def is_head(layer):
    """Whether a layer's activation is one that a model ends with, not a hidden one."""
    if isinstance(layer, keras.layers.Softmax):
        return True
    return _activation(layer) in _OF_HEADS


def _activation(layer):
    """The name of a layer's activation function, None if it has none."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return _activation(layer.layer)
    function = getattr(layer, "activation", None)
    return None if function is None else getattr(function, "__name__", "")


def _kinds(layer):
    """Returns the names of a layer's type and of its activation, in lower case."""
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    return {type(layer).__name__.lower(), name.lower()} - {"nonetype"}


def _look_up(wanted, found):
    """Returns those of `found` that one entry of `layers` means, at least one."""
    if isinstance(wanted, type):
        chosen = [w for w in found if isinstance(w.layer, wanted)]
    elif isinstance(wanted, re.Pattern):
        chosen = [w for w in found if wanted.search(w.name)]
    elif isinstance(wanted, str):
        chosen = [w for w in found if w.name == wanted]
        with contextlib.suppress(re.error):  # A name may be no regular expression.
            chosen = chosen or [w for w in found if re.fullmatch(wanted, w.name)]
        alike = [w for w in found if wanted.lower() in _kinds(w.layer)]
        # Of a part, such as an RNN's cell, the whole has the activation too.
        chosen = chosen or [w for w in alike if not w.is_part] or alike
    else:
        chosen = [w for w in found if w.layer is wanted]
    if chosen:
        return chosen
    shown = wanted.__name__ if isinstance(wanted, type) else wanted
    shown = getattr(wanted, "name", getattr(wanted, "pattern", shown))
    names = [w.name for w in found]
    kinds = sorted(set().union(*(_kinds(w.layer) for w in found)))
    raise ValueError(
        "`layers` must be layers of the model, their names, regular expressions that "
        "match names, types, or names of types or activations. "
        f"Received: layers={shown!r}, which is not among them. "
        + validation.did_you_mean(shown, [*names, *kinds], "Name others.")
        + f" The model has: {validation.some_of(names, shown)}."
    )


def check_layers(layers):
    """Returns `layers` as a list for `select`, or None."""
    one = (str, type, re.Pattern, keras.layers.Layer)
    if layers is None:
        return None
    if isinstance(layers, one):
        return [layers]
    if (
        not isinstance(layers, (list, tuple))
        or not layers
        or not all(isinstance(item, one) for item in layers)
    ):
        raise ValueError(
            "`layers` must be a list of at least one layer, name, regular expression, "
            f"type or activation's name. Received: layers={layers!r}. Leave it out for "
            "the default."
        )
    return list(layers)
