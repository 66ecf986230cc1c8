"""Reads or changes the calls of layers while a model is called or traced."""

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_sparseout.backend import tensors
from keras_sparseout.measure import call_arguments
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.types import Tensor

# Gets a layer, its activations, and their mask.
Record: TypeAlias = Callable[[WatchedLayer, Tensor, Tensor | None], None]
# Gets a layer's method and what that was called with; returns what the call returns.
Around: TypeAlias = Callable[..., Any]

_LOCK = threading.RLock()


class Hooks:
    """Makes layers report their activations for as long as a context is entered.

    Only calls in the thread that entered the context are reported: other threads may
    run or trace the same layers meanwhile, with hooks of their own or with none.

    Args:
        watched: List of `WatchedLayer`.
        record: The function to report to. It gets the layer, its activations, and
            their mask of timesteps or None. If the side is "outputs", it gets whatever
            the layer returns, unchanged.
    """

    def __init__(self, watched: Sequence[WatchedLayer], record: Record) -> None:
        self.watched = watched
        self.record = record

    def __enter__(self) -> None:
        thread = threading.get_ident()
        with _LOCK:
            for w in self.watched:
                stand_in = _stand_in_for(w.layer, "call")
                reader = functools.partial(_report, w, self.record)
                stand_in.readers.append((thread, self, reader))

    def __exit__(self, *error: object) -> None:
        thread = threading.get_ident()
        with _LOCK:
            for layer in {id(w.layer): w.layer for w in self.watched}.values():
                stand_in = _stand_in_for(layer, "call")
                stand_in.readers = [
                    r for r in stand_in.readers if r[:2] != (thread, self)
                ]
                stand_in.leave_if_unused()


class Overrides:
    """Puts functions around methods of layers for as long as a context is entered.

    As with `Hooks`, other threads call the methods themselves.

    Args:
        functions: List of a layer, the name of its method, such as "call", and the
            function, which gets the method and the arguments of its call.
    """

    def __init__(
        self, functions: Sequence[tuple[keras.layers.Layer, str, Around]]
    ) -> None:
        self.functions = functions

    def __enter__(self) -> None:
        thread = threading.get_ident()
        with _LOCK:
            for layer, name, function in self.functions:
                _stand_in_for(layer, name).arounds.append((thread, self, function))

    def __exit__(self, *error: object) -> None:
        thread = threading.get_ident()
        with _LOCK:
            for layer, name, _ in self.functions:
                stand_in = _stand_in_for(layer, name)
                stand_in.arounds = [
                    a for a in stand_in.arounds if a[:2] != (thread, self)
                ]
                stand_in.leave_if_unused()


class _StandIn:
    """Takes the place of a layer's method while some thread reads or changes it."""

    def __init__(self, layer: keras.layers.Layer, name: str) -> None:
        self.layer = layer
        self.name = name
        self.own = vars(layer).get(name)
        self.call = getattr(layer, name)
        # What `inspect.signature` returns for this.
        self.__signature__ = inspect.signature(self.call)
        # Threads, their hooks, and functions that get what the layer was called with,
        # its mask, and what it returned.
        self.readers: list[tuple[int, Hooks, Callable[..., None]]] = []
        # Threads, their overrides, and functions that get the method too.
        self.arounds: list[tuple[int, Overrides, Around]] = []
        # Not by setattr: Layer.__setattr__ would track it.
        vars(layer)[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        here = threading.get_ident()
        call = self.call
        for thread, _, around in list(self.arounds):
            if thread == here:
                call = functools.partial(around, call)
        readers = [reader for thread, _, reader in self.readers if thread == here]
        if not readers:
            return call(*args, **kwargs)
        inputs = call_arguments.first(self.layer, args, kwargs)
        mask = mask_for_call(self.layer, args, kwargs)
        outputs = call(*args, **kwargs)
        for reader in readers:
            reader(inputs, mask, outputs)
        return outputs

    def leave_if_unused(self) -> None:
        """Gives the layer its method back, unless some thread still needs this."""
        if self.readers or self.arounds:
            return
        del vars(self.layer)[self.name]
        if self.own is not None:
            vars(self.layer)[self.name] = self.own


def _stand_in_for(layer: keras.layers.Layer, name: str) -> _StandIn:
    names = [name]
    if name == "call":
        # Keras calls this one where the layer is quantized.
        names = ["quantized_call", "call"]
    for known in names:
        present = vars(layer).get(known)
        if isinstance(present, _StandIn):
            return present
    return _StandIn(layer, names[0] if layer.quantization_mode else name)


def _report(
    w: WatchedLayer, record: Record, inputs: Any, mask: Any, outputs: Any
) -> None:
    """Reports one call of a layer."""
    if w.side == "outputs":
        record(w, outputs, None)
        return
    x = _first(outputs if w.side == "output" else inputs)
    mask = mask_of_call(w, x, inputs, mask)
    if tensors.is_sparse(x):
        x = ops.convert_to_tensor(x, sparse=False)
    record(w, x, mask)


def mask_for_call(
    layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Returns the mask that a layer is called with, or those of its inputs.

    To be read before the call: attention takes the masks of its inputs away.
    """
    mask = call_arguments.named(layer, "mask", args, kwargs)
    if mask is None:
        inputs = call_arguments.first(layer, args, kwargs)
        mask = keras.tree.map_structure(_mask_of, inputs)
    return mask


def mask_of_call(w: WatchedLayer, x: Any, inputs: Any, mask: Any) -> Tensor | None:
    """Returns the mask of timesteps of a layer's activations, None if there is none.

    Args:
        w: The layer, with the side that is meant.
        x: The activations.
        inputs: What the layer is called with.
        mask: What `mask_for_call` returned.
    """
    if w.side == "output":
        # A layer may give its output a mask in `call`, as nested models and attention
        # do. As in Keras, that one counts.
        own = _mask_of(x)
        mask = _mask_computed(w.layer, inputs, mask) if own is None else own
    mask = _first(mask)
    return None if mask is None or len(mask.shape) >= rank_of(x) else mask


def _mask_computed(layer: keras.layers.Layer, inputs: Any, mask: Any) -> Tensor | None:
    """Returns the mask that Keras will give the output of a layer after its `call`."""
    if not layer.supports_masking:
        return None
    mask = _first(layer.compute_mask(inputs, mask))
    # Outputs are in the order in which the layer goes through the timesteps.
    if mask is not None and getattr(layer, "go_backwards", False):
        mask = ops.flip(mask, axis=1)
    return mask


def with_mask_of(x: Tensor, copy: Tensor) -> Tensor:
    """Returns a `copy` of a tensor with the mask of timesteps that it has."""
    mask = _mask_of(x)
    if mask is not None:
        copy._keras_mask = mask
    return copy


def rank_of(x: Any) -> int:
    """The number of dimensions of `x`, 0 if unknown or if it is no tensor."""
    shape = getattr(x, "shape", ())
    return 0 if getattr(shape, "rank", 0) is None else len(shape)


def _first(structure: Any) -> Tensor | None:
    """The first tensor of what a layer gets or returns."""
    return next(iter(keras.tree.flatten(structure)), None)


def _mask_of(x: Tensor) -> Tensor | None:
    # The attribute that the Keras guide to masking names.
    return getattr(x, "_keras_mask", None)
