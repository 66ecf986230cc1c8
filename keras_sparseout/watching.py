"""Finding layers in a model, and reading their activations while it is traced."""

import contextlib
import dataclasses
import re

import keras
import tensorflow as tf
from keras import ops

from keras_sparseout import validation
from keras_sparseout.layers import Sparseout

# An RNN calls its cell in a loop, attention its Softmax only where nothing is faster.
_WITH_PARTS = (
    keras.layers.RNN,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)


@dataclasses.dataclass(frozen=True)
class Watched:
    """A layer, the path that its figures go by, and which side of it is measured.

    `is_part` says whether it stands for no layer of its own, but for a part of another.
    """

    name: str
    layer: keras.layers.Layer
    side: str
    is_part: bool


def build(model, batch):
    """Makes a subclassed model create its layers and weights, without running it."""
    if not model.built:
        # Of any batch size, as `fit` does it: the inputs of the model keep it.
        trace(model, batch, None)


def trace(model, batch, size):
    """Traces a call of `model` with the inputs in `batch`, but `size` samples."""

    def spec(x):
        x = tf.convert_to_tensor(x)
        return tf.TensorSpec((size, *x.shape[1:]), x.dtype)

    call = tf.function(lambda x: model(x, training=False), autograph=False)
    call.get_concrete_function(keras.tree.map_structure(spec, batch))


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
            f"layers=None for model {model.name!r} with the layers "
            f"{', '.join(w.name for w in found) or '(none)'}. Name some of them."
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
    return shapes[1 if _channels_first(watched, len(shapes)) else -1]


class Hooks:
    """Makes layers report their activations for as long as a context is entered.

    `record(watched, x, mask)` gets the activations with the units last, and their mask
    of timesteps or None. The context may be entered anew before it is left, as when the
    replicas of a MirroredStrategy are traced in threads that take turns: only the first
    entry sets the hooks, only the last exit removes them.
    """

    def __init__(self, watched, record):
        self.watched = watched
        self.record = record
        self._depth = 0
        self._replaced = []

    def __enter__(self):
        self._depth += 1
        if self._depth == 1:
            for w in self.watched:
                name = "quantized_call" if w.layer.quantization_mode else "call"
                self._replaced.append((w.layer, name, vars(w.layer).get(name)))
                # Past Layer.__setattr__, which would track it.
                vars(w.layer)[name] = self._reporting(w, getattr(w.layer, name))

    def __exit__(self, *error):
        self._depth -= 1
        while self._depth == 0 and self._replaced:
            layer, name, call = self._replaced.pop()
            del vars(layer)[name]
            if call is not None:
                vars(layer)[name] = call

    def _reporting(self, w, call):
        def reporting(*args, **kwargs):
            outputs = call(*args, **kwargs)
            inputs = args[0] if args else next(iter(kwargs.values()), None)
            mask = kwargs.get("mask")
            if mask is None:
                mask = keras.tree.map_structure(_mask_of, inputs)
            seen = inputs
            if w.side == "output":
                seen = outputs
                supported = w.layer.supports_masking
                mask = w.layer.compute_mask(inputs, mask) if supported else None
            x, mask = _first(seen), _first(mask)
            if isinstance(x, tf.SparseTensor):
                x = ops.convert_to_tensor(x, sparse=False)
            rank = rank_of(x)
            if mask is not None and len(mask.shape) >= rank:
                mask = None
            # Outputs are in the order in which the layer goes through the timesteps.
            backwards = w.side == "output" and getattr(w.layer, "go_backwards", False)
            if mask is not None and backwards:
                mask = ops.flip(mask, axis=1)
            if _channels_first(w, rank):
                x = ops.moveaxis(x, 1, -1)
            self.record(w, x, mask)
            return outputs

        return reporting


def unreached(names, model):
    """The error for layers whose activations could not be read."""
    return ValueError(
        "`layers` must be layers that the model calls, and not inside an RNN cell, a "
        "loop or a tf.function of its own, from where activations can't be read. "
        f"Received: layers={names}. Name others with layers=[...], all in all: "
        f"{', '.join(w.name for w in find(model))}."
    )


def graph_of(tensors):
    """The graph that tensors belong to; None of eager ones."""
    # A ragged tensor has no graph, but its parts have.
    for tensor in tf.nest.flatten(tensors, expand_composites=True):
        if tf.is_tensor(tensor):
            return getattr(tensor, "graph", None)
    return None


def rank_of(x):
    """The number of dimensions of `x`, 0 if unknown or if it is no tensor."""
    shape = getattr(x, "shape", ())
    return 0 if getattr(shape, "rank", 0) is None else len(shape)


def _first(tensors):
    return next(iter(keras.tree.flatten(tensors)), None)


def _mask_of(x):
    # Where Keras keeps the mask of a tensor, as its guide to masking has it.
    return getattr(x, "_keras_mask", None)


def _channels_first(watched, rank):
    return rank > 2 and getattr(watched.layer, "data_format", "") == "channels_first"


def _children(parent):
    if isinstance(parent, keras.Model):
        return parent.layers
    children = []
    for value in list(vars(parent).values()):
        if isinstance(value, (keras.layers.Layer, list, tuple, dict)):
            children.extend(
                item
                for item in keras.tree.flatten(value)
                if isinstance(item, keras.layers.Layer)
            )
    return children


def _is_nonlinear(layer):
    if isinstance(layer, keras.layers.TimeDistributed):
        return _is_nonlinear(layer.layer)
    activation = getattr(layer, "activation", None)
    if activation is not None:
        return activation is not keras.activations.linear
    kinds = ("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
    return isinstance(layer, tuple(getattr(keras.layers, kind) for kind in kinds))


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
    raise ValueError(
        "`layers` must be layers of the model, their names, regular expressions that "
        f"match names, or types. Received: layers={shown!r}, which is not among "
        f"{', '.join(names)}. "
        + validation.did_you_mean(shown, names, "Name some of these.")
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
            "`layers` must be a list of at least one layer, name, regular expression "
            f"or type. Received: layers={layers!r}. Leave it out for the default."
        )
    return list(layers)
