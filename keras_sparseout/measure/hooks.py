"""Reading the activations of layers while a model is traced."""

import functools
import threading

import keras
import tensorflow as tf
from keras import ops

_LOCK = threading.RLock()


class Hooks:
    """Makes layers report their activations for as long as a context is entered.

    `record(watched, x, mask)` gets the activations with the units last, and their mask
    of timesteps or None. Only calls in the thread that entered the context are
    reported: others may run or trace the same layers meanwhile, with hooks of their
    own or with none.

    Args:
        watched: List of `watching.Watched`. Of one whose side is "outputs" `record`
            gets what the layer returns, as it is.
        record: The function to report to.
    """

    def __init__(self, watched, record):
        self.watched = watched
        self.record = record

    def __enter__(self):
        thread = threading.get_ident()
        with _LOCK:
            for w in self.watched:
                stand_in = _stand_in_for(w.layer)
                reader = functools.partial(_report, w, self.record)
                stand_in.readers.append((thread, self, reader))

    def __exit__(self, *error):
        thread = threading.get_ident()
        with _LOCK:
            for layer in {id(w.layer): w.layer for w in self.watched}.values():
                stand_in = _stand_in_for(layer)
                stand_in.readers = [
                    r for r in stand_in.readers if r[:2] != (thread, self)
                ]
                if not stand_in.readers:
                    stand_in.leave()


class _StandIn:
    """Takes the place of a layer's `call` while some thread reads it."""

    def __init__(self, layer):
        self.layer = layer
        self.name = "quantized_call" if layer.quantization_mode else "call"
        self.own = vars(layer).get(self.name)
        self.call = getattr(layer, self.name)
        self.readers = []
        # Past Layer.__setattr__, which would track it.
        vars(layer)[self.name] = self

    def __call__(self, *args, **kwargs):
        outputs = self.call(*args, **kwargs)
        here = threading.get_ident()
        for thread, _, reader in list(self.readers):
            if thread == here:
                reader(outputs, *args, **kwargs)
        return outputs

    def leave(self):
        del vars(self.layer)[self.name]
        if self.own is not None:
            vars(self.layer)[self.name] = self.own


def _stand_in_for(layer):
    for name in ("call", "quantized_call"):
        if isinstance(vars(layer).get(name), _StandIn):
            return vars(layer)[name]
    return _StandIn(layer)


def _report(w, record, outputs, *args, **kwargs):
    """Reports one call of the layer of `w`."""
    if w.side == "outputs":
        record(w, outputs, None)
        return
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
    if channels_first(w, rank):
        x = ops.moveaxis(x, 1, -1)
    record(w, x, mask)


def rank_of(x):
    """The number of dimensions of `x`, 0 if unknown or if it is no tensor."""
    shape = getattr(x, "shape", ())
    return 0 if getattr(shape, "rank", 0) is None else len(shape)


def channels_first(watched, rank):
    """Whether activations of this rank have their channels before the positions."""
    return rank > 2 and getattr(watched.layer, "data_format", "") == "channels_first"


def _first(tensors):
    return next(iter(keras.tree.flatten(tensors)), None)


def _mask_of(x):
    # Where Keras keeps the mask of a tensor, as its guide to masking has it.
    return getattr(x, "_keras_mask", None)
