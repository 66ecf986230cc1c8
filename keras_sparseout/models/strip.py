"""`strip`: a plain Keras model, without the layers of this package."""

import dataclasses
import itertools

import keras

from keras_sparseout.layers.activation_penalty import ActivationPenalty
from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper
from keras_sparseout.layers.target_sparsity import TargetSparsity
from keras_sparseout.layers.weight_noise import WeightNoise
from keras_sparseout.measure import layer_selection
from keras_sparseout.models import constant_threshold
from keras_sparseout.models.copying import compile_state
from keras_sparseout.models.copying.layer_copies import custom_objects
from keras_sparseout.models.copying.model_graphs import (
    check_model,
    has_graph,
    inside,
    layers_called_in,
)
from keras_sparseout.models.copying.rebuilding import rebuild
from keras_sparseout.models.copying.steps import Change
from keras_sparseout.utils import validation

_REMOVED = (Sparseout, ActivationPenalty)
_OURS = (*_REMOVED, WeightNoise, SparseoutCellWrapper, TargetSparsity)


def strip(
    model: keras.Model, *, keep_thresholds: bool = False, verbose: int = 1
) -> keras.Model:
    """Returns a copy of a model without the layers of this package.

    The copy has the same weights and predictions, and its files load where this package
    is not installed. All else is copied, as `insert` does it.

    - The Sparseout family and ActivationPenalty, which pass their inputs on at
      inference, are removed. Where such a layer casts its input, or is inside another
      layer, a linear keras.layers.Activation of its name takes its place. An
      `activity_regularizer` of theirs goes with them.
    - Bridgeout, Shakeout and SparseoutCellWrapper become the layer or cell that they
      wrap, with the `activity_regularizer` of both.
    - A TargetSparsity becomes operations of Keras with its threshold as a constant. A
      Sequential model that has one becomes a functional model. Inside another layer, or
      where its input may have a mask, a keras.layers.Activation or a model of its name
      passes the mask on. Keras then warns that this model would not, but it does.
      Keras loads operations from a .keras file, not from an .h5.
    - Of two outputs that become one tensor, the second gets a linear
      keras.layers.Activation of its name.
    - Metrics of this package that the model was compiled with are left out.

    Args:
        model: Functional or Sequential model, built or not, with models of these kinds
            inside.
        keep_thresholds: Whether TargetSparsity layers stay as they are, to train on.
            The files then need this package.
        verbose: 1 prints what it did, 0 nothing.

    Returns:
        The new model, of the class of `model` if `insert` keeps that.

    Raises:
        ValueError: if `model` is a subclassed model, one of its layers can't be made
            again from its config, a custom layer makes layers of this package in its
            own code, or one of them is called with training=True, so that it acts in
            predictions.

    Example:

    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((8,)),
    ...         keras.layers.Dense(4, "relu", name="hidden"),
    ...         keras_sparseout.Sparseout(0.5, name="drop"),
    ...         keras_sparseout.Bridgeout(keras.layers.Dense(2, name="out"), 0.3),
    ...     ]
    ... )
    >>> plain = keras_sparseout.models.strip(model)
    strip: removed drop; unwrapped bridgeout
    >>> [layer.name for layer in plain.layers]
    ['hidden', 'out']
    """
    check_model(model)
    validation.check_bool("keep_thresholds", keep_thresholds)
    found = _Found(model, keep_thresholds)
    is_plain = not keep_thresholds
    new = rebuild(model, list(found.changes.values()), without_package=is_plain)
    if is_plain:
        _check_plain(new)
    if verbose:
        print(found.text())
    return new


class _Found:
    """What `strip` has to do in a model.

    Args:
        model: The model.
        keep_thresholds: Whether TargetSparsity layers stay.

    Attributes:
        changes: A change for each layer that does not stay, by its id.
    """

    def __init__(self, model: keras.Model, keep_thresholds: bool) -> None:
        self.changes: dict[int, Change] = {}
        self._model = model
        self._called = {id(layer) for layer in layers_called_in(model)}
        self._keep_thresholds = keep_thresholds
        self._seen: set[int] = set()
        # Elsewhere masks come with the inputs.
        self._outermost = {id(layer) for layer in model.layers}
        layers = layer_selection.all_layers(model)
        self._has_masks = any(constant_threshold.makes_masks(w.layer) for w in layers)
        self._visit(model)
        for watched in layers:
            stays = isinstance(watched.layer, TargetSparsity) and keep_thresholds
            is_ours = isinstance(watched.layer, _OURS) and not stays
            if is_ours and id(watched.layer) not in self._seen:
                raise _out_of_reach(watched.name, type(watched.layer).__name__)

    def _visit(self, layer):
        if id(layer) in self._seen:
            return
        self._seen.add(id(layer))
        change = self._change_of(layer)
        if change is not None:
            if change.function is not None:
                change = self._with_masks(change)
            self.changes[id(layer)] = change
            if change.keeps is None:
                # What is inside goes with it.
                self._seen.update(id(part) for part in inside(layer))
                return
        for part in inside(layer):
            self._visit(part)
        if has_graph(layer):
            self._rename(layer)

    def _change_of(self, layer, dtype=None):
        if isinstance(layer, keras.layers.TimeDistributed):
            # What acts on each element acts on each timestep, in its dtype.
            change = self._change_of(layer.layer, layer.compute_dtype)
            if change is not None and change.keeps is None:
                return dataclasses.replace(change, layer=layer)
            if change is not None and not has_graph(change.keeps):
                _check_dtype(layer, change.keeps)
        elif isinstance(layer, _REMOVED):
            return Change(layer, is_removed=True)
        elif isinstance(layer, WeightNoise):
            return Change(layer, keeps=layer.wrapped())
        elif isinstance(layer, SparseoutCellWrapper):
            return Change(layer, keeps=layer.cell)
        elif isinstance(layer, TargetSparsity) and not self._keep_thresholds:
            return constant_threshold.change_of(layer, dtype)
        return None

    def _with_masks(self, change):
        """Returns the change of a threshold, which passes on masks that may come in."""
        if id(change.layer) not in self._called:
            new = constant_threshold.as_layer(change)
            return Change(change.layer, replacement=new)
        is_outermost = id(change.layer) in self._outermost
        may_be_masked = self._has_masks and not is_outermost
        return dataclasses.replace(change, may_be_masked=may_be_masked)

    def _rename(self, model):
        """Gives a layer the name of its wrapper if another one has its own name."""
        called = {id(layer) for layer in model.layers}
        kept = {id(layer): self._innermost(layer) for layer in model.layers}
        wrappers = [w for w in model.layers if id(kept[id(w)]) not in called]
        others = getattr(model, "operations", model.layers)
        taken = {each.name for each in others if all(each is not w for w in wrappers)}
        named: set[int] = set()
        for wrapper in wrappers:
            layer = kept[id(wrapper)]
            if id(layer) in named:
                continue
            named.add(id(layer))
            numbered = (f"{wrapper.name}_{n}" for n in itertools.count(1))
            names = itertools.chain([layer.name, wrapper.name], numbered)
            name = next(name for name in names if name not in taken)
            taken.add(name)
            if name != layer.name:
                change = self.changes[id(wrapper)]
                self.changes[id(wrapper)] = dataclasses.replace(change, name=name)

    def _innermost(self, layer):
        change = self.changes.get(id(layer))
        if change is None or change.keeps is None:
            return layer
        return self._innermost(change.keeps)

    def text(self) -> str:
        """What was done, in a line."""
        names = {id(w.layer): w.name for w in layer_selection.all_layers(self._model)}
        done: dict[str, list[str]] = {}
        for number, change in self.changes.items():
            what = "removed"
            if change.keeps is not None:
                what = "unwrapped"
            elif not change.is_removed:
                what = "made constant the thresholds of"
            done.setdefault(what, []).append(names[number])
        metrics = compile_state.metrics_of_package(self._model)
        if metrics and not self._keep_thresholds:
            done["left out the metrics"] = metrics
        texts = [f"{what} {', '.join(each)}" for what, each in done.items()]
        return f"strip: {'; '.join(texts) or 'the model has no layer of this package'}"


def _check_dtype(time, layer):
    """Raises if `time`, a TimeDistributed, would not let `layer` cast its input."""
    if time.compute_dtype != layer.compute_dtype:
        raise ValueError(
            "`model` must have each TimeDistributed in the dtype of the layer inside: "
            "Keras lets only wrappers in it cast. Received: model with "
            f"{time.name!r} in {time.compute_dtype}, around {layer.name!r} in "
            f"{layer.compute_dtype}. Give TimeDistributed that dtype."
        )


def _check_plain(model):
    """Raises if something of this package is left in the model."""
    for layer in model.layers:
        for name, value in custom_objects(layer).items():
            if value.__module__.partition(".")[0] == "keras_sparseout":
                raise ValueError(
                    "`model` must have functions and classes of this package only as "
                    f"layers that are called. Received: model with {layer.name!r}, "
                    f"which has {name}. Take it out of that layer."
                )


def _out_of_reach(name, kind):
    around = name.rpartition("/")[0] or name
    return ValueError(
        "`model` must have layers of this package where a functional or Sequential "
        f"model calls them, or in the config of a layer. Received: model with {name!r} "
        f"of class {kind}, which the code of {around!r} makes: a file would bring it "
        "back. Take it out of that code."
    )
