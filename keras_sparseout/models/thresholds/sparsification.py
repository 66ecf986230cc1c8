"""The steps of `sparsify`: find thresholds, make the model, tell what changed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sparseout.layers.target_sparsity import TargetSparsity
from keras_sparseout.measure import layer_selection
from keras_sparseout.models.copying import compile_state
from keras_sparseout.models.copying.rebuilding import rebuild
from keras_sparseout.models.insert import insert
from keras_sparseout.models.thresholds import (
    arguments,
    calibration,
    centring,
    macs_budget,
)
from keras_sparseout.models.thresholds.arguments import Options
from keras_sparseout.models.thresholds.calibration import Calibration
from keras_sparseout.models.thresholds.place_reader import Measured, PlaceReader
from keras_sparseout.models.thresholds.places import Place
from keras_sparseout.models.thresholds.sparsify_table import COLUMNS, SparsifyTable
from keras_sparseout.utils.types import Tensor
from keras_sparseout.utils.validation import some_of

# Zeros this far from the target are worth a note.
_FAR = 0.01
# From how many batches the mode is told.
_OF_MODE = 8


class Sparsification:
    """One run of `sparsify`.

    Args:
        model: The model, built.
        places: Where thresholds go.
        options: What is asked for.
        batches: The data, an iterable of batches of tensors.
        tick: Called after each batch.
    """

    def __init__(
        self,
        model: keras.Model,
        places: Sequence[Place],
        options: Options,
        batches: Iterable[Any],
        tick: Callable[[], None],
    ) -> None:
        self.model = model
        self.places = places
        self.options = options
        self.found = Calibration(
            model, places, options.where, options.axis, batches, tick
        )
        self._reader = PlaceReader(self.found.model, self.found.calibrators)
        self._before: Measured
        self._left_alone: set[str] = set()
        self._shows_loss = True
        self._unscored: list[str] = []

    def begin(self) -> None:
        """Measures the model as it is; raises if the data do not do."""
        self._before = self._reader.measure(self.found.batches)
        if self.options.centre is not None:
            self._centre()
        self.found.count()
        for place, calibrator in zip(self.places, self.found.calibrators, strict=True):
            arguments.check_counted(
                place, calibrator, self._before.samples, self.options
            )

    def reach_targets(self) -> None:
        """Finds the thresholds for the targets of the places."""
        self.found.find([place.target for place in self.places])

    def stay_within(self, budget: float, sample: Iterable[Any]) -> None:
        """Finds targets and thresholds for a budget of multiply-accumulates."""
        targets = macs_budget.spread(
            self.found, self._reader, self._before, sample, budget
        )
        for place, target in zip(self.places, targets, strict=True):
            place.target = target
            if not target:
                self._left_alone.add(place.name)

    def new_model(self) -> keras.Model:
        """Returns a copy of the model with the thresholds."""
        made: dict[int, TargetSparsity] = {}

        def make(layer: keras.layers.Layer) -> TargetSparsity:
            place = next(p for p in self.places if p.layer is layer)
            made[id(layer)] = TargetSparsity(
                place.target,
                axis=self.options.axis,
                centre=None if place.centre is None else "mode",
                add_back=not place.is_folded,
                name=f"{layer.name}_threshold",
                dtype=layer.dtype_policy,
            )
            return made[id(layer)]

        kept = [p for p in self.places if p.name not in self._left_alone]
        if not kept:
            return rebuild(self.model, [])
        new = insert(
            self.model, {p.layer: make for p in kept}, where=self.options.where
        )
        _fold(new, kept)
        thresholds = self.found.thresholds()
        for place, threshold in zip(self.places, thresholds, strict=True):
            if place in kept:
                made[id(place.layer)].start(threshold, place.centre)
        return new

    def use_metrics(self, metrics: Any) -> None:
        """Sets the metrics of `scores`; None for those that the model has."""
        self._shows_loss = metrics is None
        model = self.found.model
        names = getattr(self.model, "output_names", None)
        is_renamed = names != getattr(model, "output_names", None)
        if is_renamed:
            # Labels, metrics and the table go by the names of the user's model.
            model.output_names = names
        if metrics is not None:
            self._compile_with(metrics)
        elif is_renamed or not model.compiled:
            try:
                compile_state.compile_like(self.model, model)
            except Exception as error:
                raise _Unscored(
                    "Keras can't make again what it was compiled with "
                    f"({_first_line(error)})"
                ) from error

    def first_scores(
        self, metrics: Any, data: Mapping[str, Any], *, are_asked: bool
    ) -> dict[str, float]:
        """Returns the scores without thresholds; none if the model does not do.

        Args:
            metrics: As `use_metrics` takes it.
            data: As `scores` takes it.
            are_asked: Whether the user gave labels for them, apart from the data.

        Raises:
            ValueError: if they are asked for, and the model does not do.
        """
        try:
            self.use_metrics(metrics)
            return self.scores(data)
        except _Unscored as error:
            if are_asked:
                raise ValueError(
                    "`metrics` must be given with `y` if a copy of the model can't be "
                    "evaluated as the model is compiled. Received: metrics=None, and "
                    f"model={self.model.name!r}: {error}. Give for example "
                    "metrics=[keras.metrics.SparseCategoricalAccuracy()]."
                ) from error
            self._unscored = [f"Loss and metrics left out: {error}."]
            return {}

    def scores(self, data: Mapping[str, Any]) -> dict[str, float]:
        """Returns the loss and metrics with the present thresholds, by name.

        A metric that has a figure for each class counts as their mean.

        Args:
            data: The arguments of `evaluate`.
        """
        model = self.found.model
        try:
            scores = model.evaluate(**data, verbose=0, return_dict=True)
        except ValueError as error:
            # Layers may add one when they are called, which Keras finds out then.
            if self._shows_loss and model.loss is None:
                because = f"it is compiled without a loss ({_first_line(error)})"
                raise _Unscored(because) from error
            raise
        return {
            name: float(np.mean(score))
            for name, score in scores.items()
            if self._shows_loss or not name.endswith("loss")
        }

    def table(
        self, notes: Iterable[str], scores: Mapping[str, tuple[float, float]]
    ) -> SparsifyTable:
        """Returns the table of the model before and after."""
        after = self._reader.measure(self.found.batches)
        rows = []
        for number, place in enumerate(self.places):
            cells = (
                place.name,
                type(place.layer).__name__,
                None if place.name in self._left_alone else place.target,
                self.found.thresholds()[number],
                self._before.zeros[number],
                after.zeros[number],
                self._before.needless[number],
                after.needless[number],
            )
            rows.append(dict(zip(COLUMNS, cells, strict=True)))
        return SparsifyTable(
            rows,
            (after.macs, self._before.effective, after.effective),
            self._change(),
            scores,
            [*notes, *self._notes(after), *self._unscored],
        )

    def _compile_with(self, metrics: Any) -> None:
        """Compiles the copy for metrics that the user gave."""
        model = self.found.model
        try:
            model.compile(
                # Keras evaluates no model without a loss.
                loss=_no_loss,
                metrics=arguments.as_list(metrics),
                jit_compile=False,
            )
        except TypeError as error:
            raise ValueError(
                "`metrics` must be left out if the class of the model has a `compile` "
                f"that does not take `loss` and `metrics`. Received: metrics="
                f"{metrics!r}, and model={self.model.name!r} of class "
                f"{type(model).__name__}, for which it raises {_first_line(error)}. "
                "Leave out `metrics` and `y`."
            ) from error

    def _centre(self) -> None:
        """Finds the centres, and puts them into the calibration and its biases."""
        per_unit = self.options.axis is not None
        samples = self.found.sample(_OF_MODE)
        for place, calibrator, values in zip(
            self.places, self.found.calibrators, samples, strict=True
        ):
            place.is_folded = self.options.where == "before" and centring.can_fold(
                place.layer, per_unit=per_unit
            )
            if place.is_folded or self.options.budget is None:
                centre = centring.mode(values).reshape(calibrator.threshold.shape)
                place.centre = centre if centre.any() else None
                calibrator.centre.assign(centre)
                if not place.is_folded:
                    calibrator.restored.assign(centre)
        _fold(self.found.model, self.places)

    def _change(self) -> float:
        """Returns the relative mean-squared change of the outputs."""
        thresholds = self.found.thresholds()
        sums: Any = 0.0
        for batch in self.found.batches:
            self.found.assign([0.0] * len(thresholds))
            outputs = self.found.outputs(batch)
            self.found.assign(thresholds)
            sums = sums + self.found.change(batch, outputs)
        return calibration.relative(sums)

    def _notes(self, after: Measured) -> list[str]:
        """Returns the lines below the table."""
        asked = [p for p in self.places if p.name not in self._left_alone]
        zeros = {p.name: z for p, z in zip(self.places, after.zeros, strict=True)}
        more = [p.name for p in asked if zeros[p.name] > p.target + _FAR]
        added = [p.name for p in asked if p.centre is not None and not p.is_folded]
        less = [
            p.name
            for p in asked
            if zeros[p.name] < p.target - _FAR and p.name not in added
        ]
        folded = [p.name for p in asked if p.centre is not None and p.is_folded]
        plain = [
            p.name
            for p in asked
            if self.options.centre is not None and p.centre is None
        ]
        lines = [
            ("More zeros than asked, by nature", more),
            ("Fewer zeros than asked, since many activations are equal", less),
            ("The bias has the centre", folded),
            ("The centre is added back, so that nothing becomes 0", added),
            ("Around 0, since that is the mode, or no bias can have it", plain),
            ("Left as they were by the budget", sorted(self._left_alone)),
            ("Products not counted", after.uncounted),
        ]
        return [f"{text}: {some_of(names)}." for text, names in lines if names]


class _Unscored(Exception):
    """Says why a copy of the model can't be evaluated as the model is compiled."""


def _first_line(error: Exception) -> str:
    line = "".join(str(error).splitlines()[:1]).rstrip(".")
    return f"{type(error).__name__}: {line}"


def _no_loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return ops.zeros(ops.shape(y_pred)[:1])


def _fold(model: keras.Model, places: Iterable[Place]) -> None:
    """Puts the centres into the biases of the layers of a copy."""
    layers = {w.name: w.layer for w in layer_selection.all_layers(model)}
    for place in places:
        if place.is_folded and place.centre is not None:
            centring.fold(layers[place.name], place.centre)
