"""`sparsify`: thresholds for a trained model, found on data, without training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import keras

from keras_sparseout.backend import tracing
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.probe_data import ProbeData, as_tensor
from keras_sparseout.models import (
    macs_budget,
    sparsify_arguments,
    sparsify_places,
)
from keras_sparseout.models.sparsification import Sparsification
from keras_sparseout.models.sparsify_table import SparsifyTable
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Data, Tensor

_BATCHES_WITHOUT_BAR = 20


def sparsify(
    model: keras.Model,
    x: Data,
    target: float | Mapping[LayerChoice, float] | None = None,
    *,
    budget: float | None = None,
    y: Tensor | None = None,
    metrics: Any = None,
    layers: LayerChoice | Sequence[LayerChoice] | None = None,
    where: Literal["before", "after"] = "before",
    axis: Literal[-1] | None = None,
    centre: Literal["mode"] | None = None,
    batch_size: int = 256,
    steps: int | None = None,
    return_table: bool = False,
    verbose: int = 1,
) -> keras.Model | tuple[keras.Model, SparsifyTable]:
    """Makes the activations of a trained model sparse, without training."""
    options = sparsify_arguments.check(target, budget, layers, where, axis, centre)
    sparsify_arguments.check_can_be_sparsified(model)
    validation.check_bool("return_table", return_table)
    data = ProbeData(x, batch_size=batch_size, steps=steps)
    labelled = sparsify_arguments.check_labels(x, y, metrics, model)
    batches = _Batches(data)
    first = keras.tree.map_structure(as_tensor, data.first_for(model))
    tracing.build(model, first)
    sparsify_arguments.check_weights(model)
    places, notes = sparsify_places.choose(
        model, batches, options.target, options.layers, options.where
    )
    progress = _Progress(verbose)
    work = Sparsification(model, places, options, batches, progress.tick)
    work.begin()
    if options.budget is None:
        work.reach_targets()
    else:
        wanted = macs_budget.wanted_samples(len(places))
        few = ProbeData(x, batch_size=min(batch_size, wanted), steps=steps)
        few.first_for(model)
        work.stay_within(options.budget, _first_samples(few, wanted))
    new = work.new_model()
    scores = {}
    if labelled:
        scores = work.scores(_evaluated(x, y, data), metrics)
    table = work.table(notes, scores)
    progress.close()
    if verbose:
        print(table)
    return (new, table) if return_table else new


class _Batches:
    """The batches of data as tensors, which can be gone through again and again."""

    def __init__(self, data: ProbeData) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            yield keras.tree.map_structure(as_tensor, batch)


class _Progress:
    """A progress bar, from some batches on.

    Args:
        verbose: 0 for no bar.
    """

    def __init__(self, verbose: int) -> None:
        self._verbose = verbose
        self._bar: Any = None
        self._count = 0

    def tick(self) -> None:
        """Counts a batch."""
        self._count += 1
        if self._verbose and self._count > _BATCHES_WITHOUT_BAR:
            self._bar = self._bar or keras.utils.Progbar(None)
            self._bar.update(self._count)

    def close(self) -> None:
        """Ends the line of the bar."""
        if self._bar is not None:
            self._bar.update(self._count, finalize=True)


def _first_samples(data: ProbeData, number: int) -> list[Any]:
    """Returns the first batches that together have at least `number` samples."""
    batches, samples = [], 0
    for batch in _Batches(data):
        batches.append(batch)
        samples += keras.tree.flatten(batch)[0].shape[0]
        if samples >= number:
            break
    return batches


def _evaluated(x: Data, y: Tensor | None, data: ProbeData) -> dict[str, Any]:
    """Returns the arguments with which `evaluate` sees the same samples."""
    if y is None:
        return {"x": x, "steps": data.steps}
    end = None if data.steps is None else data.steps * data.batch_size
    x, y = keras.tree.map_structure(lambda array: array[:end], (x, y))
    return {"x": x, "y": y, "batch_size": data.batch_size}
