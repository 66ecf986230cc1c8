"""Where `sparsify` puts thresholds, and which targets are for which place."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import graph, tracing
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_calls import LayerCalls
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.models.copying.model_graphs import layers_called_in
from keras_sparseout.models.thresholds.weighted import behind_weights
from keras_sparseout.summary import layer_macs
from keras_sparseout.utils.validation import some_of

Side = Literal["before", "after"]


@dataclasses.dataclass
class Place:
    """A place for a threshold.

    Attributes:
        name: Path of the layer before or after which it is.
        layer: That layer.
        target: The share of zeros that is asked for.
        centre: The mode around which activations are cut, None for 0.
        is_folded: Whether the bias of the layer makes up for the centre.
    """

    name: str
    layer: keras.layers.Layer
    target: float = 0.0
    centre: np.ndarray | None = None
    is_folded: bool = False


class Places(NamedTuple):
    """The places for thresholds in a model.

    Attributes:
        chosen: List of `Place`, in the order of the model's layers.
        notes: Lines that say what was left out, and why.
    """

    chosen: list[Place]
    notes: list[str]


class _Fed(NamedTuple):
    """What a trace of the model tells about its layers, by name.

    Attributes:
        dtypes: The types of what is read.
        data: Names of the layers that the model's inputs feed, with no weights between.
        samples: How many samples there are.
    """

    dtypes: dict[str, str]
    data: set[str]
    samples: int


def choose(
    model: keras.Model,
    batches: Iterable[Any],
    target: float | Mapping[LayerChoice, float] | None,
    layers: Sequence[LayerChoice] | None,
    where: Side,
) -> Places:
    """Returns the places for thresholds.

    Args:
        model: A built model that can be rebuilt.
        batches: Batches of inputs of the model.
        target: As for `sparsify`, checked.
        layers: List of layers, as for `layer_selection.select`, or None.
        where: On which side of the layers.

    Raises:
        ValueError: if there is none; if a layer that is named is not in the model, is
            not called, or has no floating-point activations there; if two expressions
            in `target` match one layer; if there is only one sample, or NaN or infinity
            comes to a kernel.
    """
    targets = _targets(model, target) if isinstance(target, Mapping) else None
    found = layer_selection.all_layers(model)
    notes: list[str] = []
    if targets is not None:
        watched = [w for w in found if w.name in targets]
    elif layers is not None:
        watched = layer_selection.select(model, layers)
    else:
        watched = [w for w in found if _has_kernel(w.layer)]
    side: Literal["input", "output"] = "input" if where == "before" else "output"
    watched = [dataclasses.replace(w, side=side) for w in watched]
    fed = _read(model, batches, watched)
    if fed.samples < 2:
        raise ValueError(
            "`x` must hold at least 2 samples, since a quantile of one says little "
            f"about others. Received: x with {fed.samples}. Give some hundred samples, "
            "as many kinds of them as the model will meet."
        )
    if targets is None and layers is None:
        watched, notes = _default(model, watched, fed)
    else:
        watched = _check_named(model, watched, fed)
    share = target if isinstance(target, float) else 0.0
    places = [
        Place(w.name, w.layer, (targets or {}).get(w.name, share)) for w in watched
    ]
    return Places(places, notes)


def _targets(
    model: keras.Model, target: Mapping[LayerChoice, float]
) -> dict[str, float]:
    """Returns the target of each layer that `target` names, by the layer's path."""
    exact: dict[str, float] = {}
    matched: dict[str, dict[float, LayerChoice]] = {}
    for choice, share in target.items():
        for w in _select(model, choice):
            if choice in (w.name, w.layer):
                exact[w.name] = share
            else:
                matched.setdefault(w.name, {}).setdefault(share, choice)
    for name, choices in matched.items():
        if len(choices) > 1 and name not in exact:
            both = " and ".join(shown(choice) for choice in choices.values())
            raise ValueError(
                "`target` must have one share for each layer. Received: target in "
                f"which {both} match {name!r}, with the shares "
                f"{', '.join(map(str, choices))}. Name this layer by its path, "
                "which goes before expressions."
            )
    return {**{name: next(iter(shares)) for name, shares in matched.items()}, **exact}


def _select(model: keras.Model, choice: LayerChoice) -> list[WatchedLayer]:
    """Returns the layers that a key of `target` matches."""
    try:
        return layer_selection.select(model, [choice])
    except ValueError as error:
        text = str(error).replace("`layers`", "the keys of `target`", 1)
        raise ValueError(
            text[:1].upper() + text[1:].replace("layers=", "the key ", 1)
        ) from None


def _has_kernel(layer: keras.layers.Layer) -> bool:
    """Whether a layer is Dense, EinsumDense or a convolution, or wraps one."""
    if isinstance(layer, keras.layers.Wrapper):
        return _has_kernel(layer.layer)
    return layer_macs.is_countable(layer) and not isinstance(layer, keras.layers.RNN)


def _read(
    model: keras.Model, batches: Iterable[Any], watched: Sequence[WatchedLayer]
) -> _Fed:
    """Runs the model, and reads what its layers take or return.

    It looks for NaN where a kernel takes it: behind it a ReLU may make it 0.
    """
    kernels = [
        dataclasses.replace(w, side="input")
        for w in layer_selection.all_layers(model)
        if layer_macs.is_countable(w.layer)
    ]
    # Their kernels are variables, but of a fixed transform.
    constants = [
        (variable, ops.convert_to_numpy(variable))
        for w in layer_selection.all_layers(model)
        if isinstance(w.layer, keras.layers.STFTSpectrogram)
        for variable in w.layer.variables
    ]
    dtypes: dict[str, str] = {}
    data: set[str] = set()

    def call(batch):
        step = LayerCalls(model, list(dict.fromkeys([*watched, *kernels])))
        with keras.StatelessScope(constants), step.reading():
            outputs = model(batch, training=False)
        called = step.calls()
        weighted = behind_weights(graph.tensors_in(batch), graph.tensors_in(outputs))
        finite: dict[str, Any] = {}
        for w, _, _, x in step.seen:
            dtype = keras.backend.standardize_dtype(x.dtype)
            if w.name in called and w in watched:
                dtypes[w.name] = dtype
                if not hasattr(x, "op") or x.op.name not in weighted:
                    data.add(w.name)
            if w.name in called and keras.backend.is_float_dtype(dtype):
                is_finite = ops.all(ops.isfinite(x))
                finite[w.name] = finite.get(w.name, True) & is_finite
        return finite

    function, samples = tracing.graph_function(call), 0
    for batch in batches:
        if not samples:
            tracing.prepare(function, model, batch)
        samples += keras.tree.flatten(batch)[0].shape[0]
        invalid = [n for n, ok in tracing.run(function, batch).items() if not bool(ok)]
        if invalid:
            raise ValueError(
                "`x` must give finite activations. Received: x with which NaN or "
                f"infinity comes to {invalid[0]!r}. Look for it in x with "
                "numpy.isfinite, then in the layers before this one."
            )
    return _Fed(dtypes, data, samples)


def _within_reach(model: keras.Model) -> set[int]:
    """Returns the ids of the layers before or after which thresholds can be found.

    At each timestep of a TimeDistributed, padding can't be told from data.
    """
    return {id(layer) for layer in layers_called_in(model, in_time=False)}


def _default(
    model: keras.Model, watched: Sequence[WatchedLayer], fed: _Fed
) -> tuple[list[WatchedLayer], list[str]]:
    """Returns the places that nobody named, and notes on those left out."""
    reachable = _within_reach(model)
    inner = {
        id(w.layer.layer)
        for w in watched
        if isinstance(w.layer, keras.layers.Wrapper) and id(w.layer) in reachable
    }
    watched = [w for w in watched if id(w.layer) not in inner]
    within = [w for w in watched if id(w.layer) in reachable and w.name in fed.dtypes]
    outside = [w.name for w in watched if w not in within]
    data = [w.name for w in within if w.name in fed.data]
    kept = [w for w in within if w.name not in fed.data]
    notes = []
    if data:
        notes.append(
            "Left alone, since the data themselves go in: "
            f"{some_of(data)}. Name them in `layers` to include them."
        )
    if outside:
        notes.append(f"Out of reach, inside other layers: {some_of(outside)}.")
    if not kept:
        found = [w.name for w in layer_selection.all_layers(model)]
        raise ValueError(
            "`layers` must name the layers, since the model has no Dense, EinsumDense "
            "or convolution whose input is made of activations, and that is not inside "
            f"another layer. Received: layers=None for model {model.name!r}. "
            f"{' '.join(notes)} The model has: {some_of(found)}."
        )
    return kept, notes


def _check_named(
    model: keras.Model, watched: Sequence[WatchedLayer], fed: _Fed
) -> list[WatchedLayer]:
    """Returns the layers that were named; raises unless they can have a threshold."""
    reachable = _within_reach(model)
    names = [w.name for w in watched if id(w.layer) in reachable]
    # "block.*" means the layers there, and not what is inside them.
    watched = [
        w
        for w in watched
        if w.name in names or not any(w.name.startswith(n + "/") for n in names)
    ]
    unread = [w.name for w in watched if w.name not in fed.dtypes]
    if unread:
        raise layer_selection.unreadable(unread, model)
    outside = [w.name for w in watched if w.name not in names]
    if outside:
        raise _out_of_reach(model, outside, reachable)
    for w in watched:
        dtype = fed.dtypes[w.name]
        if not keras.backend.is_float_dtype(dtype):
            verb = "take" if w.side == "input" else "return"
            raise ValueError(
                f"`layers` must be layers that {verb} floating-point numbers. "
                f"Received: {w.name} with {dtype}. Leave it out."
            )
    return watched


def _out_of_reach(
    model: keras.Model, names: Sequence[str], reachable: set[int]
) -> ValueError:
    """The error for layers that were named, but are inside other layers."""
    around = [model.name] + [
        w.name
        for w in layer_selection.all_layers(model)
        if names[0].startswith(w.name + "/") and id(w.layer) in reachable
    ]
    return ValueError(
        "`layers`, or the keys of `target`, must be layers that the model calls, or a "
        f"model inside it. Received: {some_of(names)}, called by {around[-1]!r} in its "
        "own code. Name fewer layers, or the ones around these."
    )


def shown(choice: LayerChoice) -> str:
    """Returns one entry of `layers` as a message shows it."""
    if isinstance(choice, re.Pattern):
        return repr(choice.pattern)
    return repr(getattr(choice, "__name__", getattr(choice, "name", choice)))
