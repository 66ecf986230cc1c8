"""A budget of multiply-accumulates that a SparsityController keeps a model to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sparseout.callbacks.control.actuators import ActuatorName
from keras_sparseout.callbacks.control.macs_reader import MacsReader, MacsShares
from keras_sparseout.callbacks.control.step_macs import StepMacs
from keras_sparseout.measure.probe_data import ProbeData
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils import validation

# The name of the metric.
NEEDLESS_MACS = "needless_macs"
# So many made-up samples tell which layers have zeros.
_SAMPLES = 8


class MacsBudget:
    """What is known of a model's MACs, and of the layers whose zeros save them.

    Args:
        model: A built model.
        candidates: The layers that may be controlled.
        named: Whether the user named them: then each has to save MACs.
        actuator: What is moved.
        data: The probe data, or None.
        sample_size: How many samples of each batch are counted.

    Attributes:
        shares: What zeros save.
        watched: The layers to control.
        step: What counts in the training step.
    """

    def __init__(
        self,
        model: keras.Model,
        candidates: Sequence[WatchedLayer],
        *,
        named: bool,
        actuator: ActuatorName,
        data: ProbeData | None,
        sample_size: int,
    ) -> None:
        self.asked = model, list(candidates), actuator, data, sample_size
        self._data = data
        self._actuator = actuator
        self._reader = MacsReader(model, candidates)
        example = _example(model, data)
        self.shares: MacsShares = self._reader.shares(example)
        saving = [w for w in candidates if self._saves(w.name)]
        if not saving or (named and len(saving) < len(candidates)):
            raise self._save_none(model, [w for w in candidates if w not in saving])
        if len(saving) < len(candidates):
            self._reader = MacsReader(model, saving)
            self.shares = self._reader.shares(example)
        self.watched = saving
        self.step = StepMacs(model, self.shares, sample_size)

    @property
    def of_layers(self) -> dict[str, float]:
        """Dict of what the zeros of the controlled layers save, by name."""
        return {w.name: self.shares.of_layers[w.name] for w in self.watched}

    def check(self, target: float | Mapping[str, float]) -> None:
        """Raises if so many MACs can't be needless."""
        check_together(target)
        most = self.shares.most
        if not isinstance(target, Mapping) and target < most:
            return
        shown = math.floor(1000 * most) / 1000
        zeros = "Zeros in the data count too: x=... shows them. "
        raise ValueError(
            '`target` of "needless_macs" must be below the share of the model\'s '
            "multiply-accumulates that are needless if all activations of "
            f"{validation.some_of([w.name for w in self.watched])} are zero, here "
            f"{shown:.3f}. Received: target={target!r}. Ask for less, or name more "
            f"layers. {'' if self._data else zeros}".rstrip()
        )

    def measure(self) -> float:
        """Returns the needless share of the MACs on the probe data."""
        return self._reader.measure(self._data or [])

    def _saves(self, name: str) -> bool:
        """Whether zeros of a layer save MACs, and it has some, or gets them."""
        has_zeros = self._actuator == "threshold" or self.shares.zeros.get(name, 0) > 0
        return has_zeros and self.shares.of_layers[name] > 0

    def _save_none(
        self, model: keras.Model, others: Sequence[WatchedLayer]
    ) -> ValueError:
        never = [w.name for w in others if not self.shares.zeros.get(w.name)]
        lost = [w.name for w in others if w.name not in never]
        reasons = []
        if never:
            reasons.append(f"{validation.some_of(never)}, which are never exactly 0")
        if lost:
            reasons.append(
                f"{validation.some_of(lost)}, whose zeros are no factor of products"
            )
        return ValueError(
            "`layers` must be layers whose zeros make multiply-accumulates needless, "
            'for metric="needless_macs": the input of dense layers, convolutions and '
            "the like, after ReLU or TargetSparsity. Received: model "
            f"{model.name!r} with {', and '.join(reasons)}. Name others, or leave "
            "`layers` out for all that save some."
        )


def prepared(
    before: MacsBudget | None,
    target: float | Mapping[str, float],
    *arguments: Any,
    **options: Any,
) -> MacsBudget:
    """Returns the budget for these arguments of `MacsBudget`; raises if it can't be.

    Args:
        before: That of an earlier run, which is returned if it is the same.
        target: The share of the MACs that is to be needless.
        *arguments: The model and the candidates.
        **options: The other arguments.
    """
    model, candidates = arguments
    wanted = model, list(candidates), *(options[o] for o in _COMPARED)
    budget = before
    if budget is None or budget.asked != wanted:
        budget = MacsBudget(model, candidates, **options)
    budget.check(target)
    return budget


_COMPARED = ("actuator", "data", "sample_size")


def check_together(target: float | Mapping[str, float]) -> bool:
    """Raises if `target` is not one number, for the whole model."""
    if isinstance(target, Mapping):
        raise ValueError(
            '`target` must be one number for metric="needless_macs", the share of the '
            f"whole model's multiply-accumulates. Received: target={target!r}. Name "
            "the layers with `layers`."
        )
    return True


def _example(model: keras.Model, data: ProbeData | None) -> Any:
    """Returns a batch of inputs of the model: probe data, or made-up samples."""
    if data is not None:
        return data.first_for(model)
    specs = getattr(model, "inputs", None)
    if specs is not None:
        structure = getattr(model, "input", specs)
    else:
        shapes: Any = (model.get_build_config() or {}).get("input_shape")
        known = isinstance(shapes, (list, tuple)) and len(shapes) > 1
        known = known and all(isinstance(n, int) for n in shapes[1:])
        structure = keras.KerasTensor(shapes, dtype="float32") if known else None
    parts: list[Any] = [] if structure is None else keras.tree.flatten(structure)
    if not parts or any(map(_can_not_be_made_up, parts)):
        raise ValueError(
            '`x` must be given for metric="needless_macs", since the model\'s layers '
            "are counted on a batch, and the shapes of its inputs are not all known, "
            "or some are strings. "
            f"Received: x=None for model {model.name!r}. Give some hundred samples, "
            "for example x=x_train[:256]."
        )
    if isinstance(structure, list) and len(parts) == 1:
        # A Sequential model has a list of one, which it does not take.
        structure = parts[0]
    return keras.tree.map_structure(_made_up, structure)


def _can_not_be_made_up(spec: keras.KerasTensor) -> bool:
    return None in spec.shape[1:] or spec.dtype == "string"


def _made_up(spec: keras.KerasTensor) -> Any:
    shape = (spec.shape[0] or _SAMPLES, *spec.shape[1:])
    if keras.backend.is_float_dtype(spec.dtype):
        values = np.random.default_rng(0).normal(size=shape)
    else:
        values = np.ones(shape)
    return ops.cast(ops.convert_to_tensor(values), spec.dtype)
