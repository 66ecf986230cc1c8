"""Finding layers in a model, and measuring their activations on given data."""

import contextlib
import dataclasses

import keras
import tensorflow as tf
from keras import ops

from keras_sparseout.layers import Sparseout


@dataclasses.dataclass(frozen=True)
class Watched:
    """A layer, the path that its figures go by, and which side of it is measured."""

    name: str
    layer: keras.layers.Layer
    side: str
    in_cell: bool


def build(model, batch):
    """Makes a subclassed model create its layers and weights, without running it."""
    if not model.built:
        call = tf.function(lambda x: model(x, training=False), autograph=False)
        call.get_concrete_function(batch)


def find(model):
    """Returns every layer inside `model`, nested ones by their path, as `Watched`.

    The side is "input" for Sparseout layers, whose output is noisy in training and
    whose input is the activations that they act on, and "output" for all others.
    """
    found, seen, names = [], {id(model)}, set()

    def visit(parent, prefix, in_cell):
        for layer in _children(parent):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = name = prefix + layer.name
            count = 0
            while name in names:
                count += 1
                name = f"{path}_{count}"
            names.add(name)
            side = "input" if isinstance(layer, Sparseout) else "output"
            found.append(Watched(name, layer, side, in_cell))
            visit(layer, path + "/", in_cell or isinstance(layer, keras.layers.RNN))

    visit(model, "", False)
    return found


def select(model, layers=None):
    """Returns the layers of `model` to watch.

    Args:
        model: A built Keras model.
        layers: List of layers of the model or of their paths ("encoder/dense"). None:
            all Sparseout layers, or if there is none, all with a nonlinear activation.

    Raises:
        ValueError: if there is none, or one that `layers` names is not in the model.
    """
    found = find(model)
    if layers is not None:
        named = {w.name: w for w in (_look_up(wanted, found) for wanted in layers)}
        return list(named.values())
    watched = [w for w in found if isinstance(w.layer, Sparseout)]
    if not watched:
        watched = [w for w in found if not w.in_cell and _is_nonlinear(w.layer)]
    if not watched:
        raise ValueError(
            "`layers` must name the layers to watch, since the model has neither "
            "Sparseout layers nor layers with a nonlinear activation. Received: "
            f"layers=None for model {model.name!r} with the layers "
            f"{', '.join(w.name for w in found) or '(none)'}. Name some of them."
        )
    return watched


class Probe:
    """Measures the activations of watched layers, without training.

    The hooks are in place only while one compiled function is traced, that returns
    the figures and not the activations: at run time they cost nothing.

    Args:
        model: A built Keras model.
        watched: The layers, from `select`.
        metrics: Dict of functions f(x), one value for each vector along the last axis,
            by name.
    """

    def __init__(self, model, watched, metrics):
        self.model = model
        self.watched = watched
        self.metrics = metrics
        self.calls = {}
        self._step = tf.function(self._trace, autograph=False, reduce_retracing=True)

    def measure(self, batches):
        """Returns the figures over `batches` of model inputs, by key.

        The key of a layer's figure is "<metric>/<layer>", of the mean over the layers
        "<metric>". The figure of a sample is the mean over its positions, that of the
        data the mean over the samples. Positions where a metric is undefined because
        all activations are 0, or there is one unit, do not count; a layer without
        others has NaN, and does not count in the mean.
        """
        totals = {}
        for batch in batches:
            for key, sums in self._step(batch).items():
                total, count = totals.get(key, (0.0, 0))
                totals[key] = (total + float(sums[0]), count + int(sums[1]))
        figures = {}
        for metric in self.metrics:
            known = []
            for watched in self.watched:
                total, count = totals.get((metric, watched.name), (0.0, 0))
                figure = total / count if count else float("nan")
                figures[f"{metric}/{watched.name}"] = figure
                if count:
                    known.append(figure)
            figures[metric] = sum(known) / len(known) if known else float("nan")
        return figures

    def _trace(self, batch):
        graph = _graph_of(batch)
        sums, calls, inner = {}, {}, set()

        def record(watched, x):
            # A tensor of another graph, that of a loop body, can't be brought here. An
            # RNN calls its cell once outside the loop too: one step is no figure.
            if _graph_of(x) is not graph:
                inner.add(watched.name)
                return
            calls[watched.name] = calls.get(watched.name, 0) + 1
            data_format = getattr(watched.layer, "data_format", None)
            if data_format == "channels_first" and len(x.shape) > 2:
                x = ops.moveaxis(x, 1, -1)
            for metric, function in self.metrics.items():
                new = _sum_and_count(x, function, watched.name)
                old = sums.get((metric, watched.name))
                sums[metric, watched.name] = new if old is None else old + new

        # In the scope assignments to variables go nowhere: recurrent states and the
        # seeds of layers that draw even at inference stay what they are.
        with keras.StatelessScope(), _hooks(self.watched, record):
            self.model(batch, training=False)
        missed = [
            w.name for w in self.watched if w.name in inner or w.name not in calls
        ]
        if missed:
            raise ValueError(
                "`layers` must be layers that the model calls at inference, and not "
                "inside an RNN cell, a loop or a tf.function of its own, from where "
                f"activations can't be read. Received: layers={missed}. Name "
                "others with layers=[...], all in all: "
                f"{', '.join(w.name for w in find(self.model))}."
            )
        self.calls = calls
        return sums


@contextlib.contextmanager
def _hooks(watched, record):
    """Makes each layer report its activations, until the context is left."""

    def hook(w, call):
        def reporting(*args, **kwargs):
            outputs = call(*args, **kwargs)
            inputs = args[0] if args else kwargs
            seen = inputs if w.side == "input" else outputs
            record(w, keras.tree.flatten(seen)[0])
            return outputs

        return reporting

    hooked = []
    try:
        for w in watched:
            # Past Layer.__setattr__, which would track it.
            vars(w.layer)["call"] = hook(w, w.layer.call)
            hooked.append(w.layer)
        yield
    finally:
        for layer in hooked:
            del vars(layer)["call"]


def _sum_and_count(x, metric, name):
    """Returns the sum of a metric's figures over samples and their number, stacked."""
    if len(x.shape) < 2:
        raise ValueError(
            "`layers` must be layers whose activations have a batch and a feature "
            f"dimension. Received: {name} with shape {tuple(x.shape)}. Leave it out."
        )
    values = metric(x)
    undefined = True if x.shape[-1] == 1 else ops.all(x == 0, axis=-1)
    silent = ops.logical_and(undefined, ops.isnan(values))
    positions = tuple(range(1, len(values.shape)))
    counted = ops.sum(ops.cast(~silent, values.dtype), axis=positions)
    total = ops.sum(ops.where(silent, 0.0, values), axis=positions)
    figures = total / ops.maximum(counted, 1.0)
    return ops.stack([ops.sum(figures), ops.sum(ops.cast(counted > 0, values.dtype))])


def _graph_of(batch):
    # Eager tensors, as under tf.config.run_functions_eagerly, have none.
    return getattr(keras.tree.flatten(batch)[0], "graph", None)


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
    activation = getattr(layer, "activation", None)
    if activation is not None:
        return activation is not keras.activations.linear
    kinds = ("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
    return isinstance(layer, tuple(getattr(keras.layers, kind) for kind in kinds))


def _look_up(wanted, found):
    for watched in found:
        if watched.layer is wanted or watched.name == wanted:
            return watched
    name = getattr(wanted, "name", wanted)
    raise ValueError(
        "`layers` must be layers of the model or their names. Received: "
        f"layers={name!r}. The model has: {', '.join(w.name for w in found)}."
    )
