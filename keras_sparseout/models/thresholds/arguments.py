"""Checks the arguments of `sparsify`."""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_sparseout.backend import datasets, tracing
from keras_sparseout.measure import layer_selection, non_finite
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.models.copying.model_graphs import check_model
from keras_sparseout.models.thresholds.calibrator import Calibrator
from keras_sparseout.models.thresholds.places import Place, Side, shown
from keras_sparseout.utils import validation
from keras_sparseout.utils.validation import some_of, value_error

Target = float | Mapping[LayerChoice, float]


class Options(NamedTuple):
    """The arguments that say what is asked for, checked."""

    target: Target | None
    budget: float | None
    layers: list[LayerChoice] | None
    where: Side
    axis: Literal[-1] | None
    centre: Literal["mode"] | None


def check(
    target: object,
    budget: object,
    layers: Any,
    where: object,
    axis: object,
    centre: object,
) -> Options:
    """Returns the arguments that say what is asked for; raises if they are wrong."""
    if (target is None) == (budget is None):
        raise ValueError(
            "Either `target` or `budget` must be given: the share of zeros, or the "
            "share of the multiply-accumulates that may remain. Received: "
            f"target={target!r}, budget={budget!r}. Give for example target=0.7."
        )
    if isinstance(target, Mapping):
        if layers is not None:
            raise ValueError(
                "`layers` must be left out if `target` is a dict, whose keys name the "
                f"layers. Received: layers={layers!r}. Leave it out."
            )
        target = _check_targets(target)
    elif target is not None:
        target = validation.check_target(target)
    chosen = layer_selection.check_layers(layers)
    if where not in ("before", "after"):
        remedy = "Leave it out for the input of the layers."
        raise value_error("where", where, '"before" or "after"', remedy)
    if where == "after" and chosen is None and not isinstance(target, dict):
        raise ValueError(
            '`layers` must name the layers if `where` is "after". Received: '
            "layers=None, where='after'. Name those whose outputs to make sparse, for "
            'example layers="relu".'
        )
    if axis is not None and axis != -1:
        rule = "None, for one threshold a layer, or -1, for one for each unit"
        raise value_error("axis", axis, rule, "Leave it out for None.")
    if centre not in (None, "mode"):
        remedy = "Leave it out for None."
        raise value_error("centre", centre, 'None, for 0, or "mode"', remedy)
    return Options(
        target,
        _check_budget(budget),
        chosen,
        where,
        None if axis is None else -1,
        centre,
    )


def _check_budget(budget: object) -> float | None:
    """Returns `budget` as a float; raises unless it is a number in (0, 1], or None."""
    if budget is None:
        return None
    if not validation.is_real(budget) or not 0 < budget <= 1:
        raise value_error(
            "budget",
            budget,
            "a number > 0 and <= 1, the share of the multiply-accumulates that may "
            "remain",
            "Give for example budget=0.5.",
        )
    return float(budget)


def _check_targets(targets: Mapping[Any, object]) -> dict[LayerChoice, float]:
    """Returns a dict of targets; raises unless all are shares of zeros."""
    checked: dict[LayerChoice, float] = {}
    if not targets:
        raise value_error(
            "target",
            dict(targets),
            "a number or a dict with at least one layer",
            "Give for example target=0.7.",
        )
    for choice, share in targets.items():
        if not isinstance(choice, (str, type, re.Pattern, keras.layers.Layer)):
            raise value_error(
                "target",
                dict(targets),
                "a dict whose keys are layers, paths, regular expressions or types",
                'Give for example target={"dense": 0.7}.',
            )
        try:
            checked[choice] = validation.check_target(share)
        except ValueError as error:
            raise ValueError(f"{error} It stands at {shown(choice)}.") from None
    return checked


def check_can_be_sparsified(model: object) -> None:
    """Raises unless `model` is one that can be rebuilt, and whose back end is known."""
    check_model(model)
    tracing.check_can_trace("sparsify")


def check_weights(model: keras.Model) -> None:
    """Raises if layers of a model are quantized, or weights are not finite."""
    found = layer_selection.all_layers(model)
    quantized = [w.name for w in found if getattr(w.layer, "quantization_mode", None)]
    if quantized:
        raise ValueError(
            "`model` must not be quantized: its kernels take integers. Received: model "
            f"with quantized layers: {some_of(quantized)}. Sparsify the model first, "
            "and quantize what that returns."
        )
    causes = set(non_finite.invalid_layers(model, found).values())
    if causes:
        raise ValueError(
            "`model` must have finite weights. Received: model in which "
            f"{some_of(sorted(causes))}. Restore it from an earlier checkpoint."
        )


def check_labels(x: Any, y: Any, metrics: Any, model: keras.Model) -> bool:
    """Returns whether there are labels; raises if they, or metrics, do not fit."""
    is_dataset = datasets.is_dataset(x) or isinstance(x, keras.utils.PyDataset)
    if y is not None and is_dataset:
        raise ValueError(
            "`y` must be left out if `x` is a data set, which has the labels in it. "
            f"Received: y of type {type(y).__name__}. Leave it out."
        )
    labelled = y is not None or (is_dataset and _yields_labels(x))
    if metrics is not None and not labelled:
        raise ValueError(
            "`y` must be given with `metrics`. Received: "
            f"y=None, metrics={metrics!r}. Give labels, or a data set that has them."
        )
    if y is not None and metrics is None and not model.compiled:
        raise ValueError(
            "`metrics` must be given with `y` if the model is not compiled. Received: "
            "metrics=None. Give for example "
            "metrics=[keras.metrics.SparseCategoricalAccuracy()]."
        )
    if y is not None:
        _check_same_length(x, y)
    return labelled and (metrics is not None or model.compiled)


def _yields_labels(x: Any) -> bool:
    if datasets.is_dataset(x):
        return datasets.yields_labels(x)
    return keras.utils.unpack_x_y_sample_weight(x[0])[1] is not None


def _check_same_length(x: Any, y: Any) -> None:
    samples = keras.tree.flatten(x)[0].shape[0]
    if not all(len(np.shape(array)) for array in keras.tree.flatten(y)):
        raise ValueError(
            "`y` must be an array or tensor, or a list or dict of them, one for each "
            f"output. Received: y of type {type(y).__name__} with numbers in it. Give "
            "numpy.asarray(y)."
        )
    sizes = [np.shape(array)[0] for array in keras.tree.flatten(y)]
    if any(size != samples for size in sizes):
        raise ValueError(
            f"`y` must have a label for each of the {samples} samples of `x`. "
            f"Received: y of length {', '.join(map(str, sizes))}. Cut both to one "
            "length."
        )


def check_counted(
    place: Place, calibrator: Calibrator, samples: int, options: Options
) -> None:
    """Raises unless what was counted at a place is finite, and enough for its target.

    Args:
        place: The place.
        calibrator: What counted there.
        samples: How many samples it saw.
        options: What is asked for.
    """
    if calibrator.has_invalid():
        side = "enters" if options.where == "before" else "leaves"
        raise ValueError(
            "`x` must give finite activations. Received: x with which NaN or infinity "
            f"{side} {place.name!r}. Look for it in x with numpy.isfinite, then in the "
            "layers before it with activation_sparsity."
        )
    needed, counted = math.ceil(1 / (1 - place.target)), calibrator.least_counted()
    if 0 < counted < needed:
        wanted = math.ceil(samples * needed / counted)
        raise ValueError(
            f"`x` must hold at least {wanted} samples for target={place.target:g} and "
            f"axis={options.axis}, since one activation in {needed} passes. Received: "
            f"x with {samples} samples, {counted} activations at {place.name!r}. Give "
            "some hundred samples."
        )


def as_list(value: Any) -> Any:
    """Returns metrics as `compile` takes them: a list or dict."""
    return value if isinstance(value, (list, tuple, dict)) else [value]
