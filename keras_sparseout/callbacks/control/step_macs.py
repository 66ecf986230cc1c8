"""Counts a model's needless multiply-accumulates inside its training step."""

import contextlib
import threading
from collections.abc import Collection, Iterator, Mapping

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import variables
from keras_sparseout.callbacks.control.macs_reader import InputProducts, MacsShares
from keras_sparseout.measure.layer_calls import LayerCalls
from keras_sparseout.summary import layer_macs
from keras_sparseout.utils.types import Tensor


class StepMacs:
    """The share of the model's MACs that zeros make needless, in each training batch.

    It counts the products of layers with their inputs, on the first samples of a batch.
    What else the model multiplies keeps the share that it had at inference.

    Args:
        model: The model that is trained.
        shares: What is counted.
        sample_size: How many samples of each batch are counted, the first ones.
    """

    only_inner = False

    def __init__(
        self, model: keras.Model, shares: MacsShares, sample_size: int
    ) -> None:
        self._model = model
        self._shares = shares
        self._sample_size = sample_size
        # Replicas are traced in threads that take turns within a step.
        self._thread = threading.local()
        self._epoch = np.zeros(2)
        with model.distribute_strategy.scope():
            # The sum of the figures since the last reading, and their number.
            self._sums = keras.Variable(
                ops.zeros((2,)),
                trainable=False,
                dtype="float32",
                aggregation="mean",
                name="needless_macs",
            )

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Counts what is called in this context."""
        places = {p.place: None for p in self._shares.products}
        step = LayerCalls(self._model, list(places))
        with step.reading():
            yield
        self._thread.figure = self._figure(step)

    def leave_out(self, names: Collection[str]) -> None:
        """Nothing: it acts on no layer."""

    def update(self, sums: Mapping[str, Tensor]) -> None:
        """Adds the figure of the batch."""
        figure = self._thread.figure
        added = ops.stack([figure, ops.ones_like(figure)])
        added = ops.where(ops.isfinite(figure), added, 0.0)
        self._sums.assign(ops.cast(self._sums, "float32") + added)

    @property
    def figure(self) -> Tensor:
        """The figure of the batch; NaN if activations are not finite."""
        return self._thread.figure

    def begin_epoch(self) -> None:
        """Sets the sums to 0."""
        self._sums.assign(np.zeros(2))
        self._epoch = np.zeros(2)

    def read(self) -> float:
        """Returns the mean figure since the last reading; NaN if there was no batch."""
        sums = np.array(variables.to_numpy(self._sums), "float64")
        self._sums.assign(np.zeros(2))
        self._epoch += sums
        return _mean(sums)

    def of_epoch(self) -> float:
        """Returns the mean figure of the readings of an epoch."""
        return _mean(self._epoch)

    def _figure(self, step: LayerCalls) -> Tensor:
        seen: dict[object, list[Tensor]] = {}
        for w, x, *_ in step.seen:
            seen.setdefault(w, []).append(x)
        figure = ops.convert_to_tensor(self._shares.rest, "float64")
        for products in self._shares.products:
            # A step may go through the model more than once.
            calls = seen.get(products.place, [])[products.call :: products.calls]
            if calls:
                figure += products.share * self._needless(products, calls)
            else:
                figure += products.share * products.needless
        return ops.cast(figure, "float32")

    def _needless(self, products: InputProducts, calls: list[Tensor]) -> Tensor:
        needless, total = 0.0, 0.0
        for x in calls:
            x = x[: self._sample_size]
            if products.shape is not None:
                x = ops.reshape(x, (-1, *products.shape))
            # Where all activations are NaN, nothing is known.
            valid = ops.where(ops.isnan(ops.sum(x)), np.nan, 1.0)
            macs = layer_macs.count(products.layer.layer, x)
            needless += macs.needless * ops.cast(valid, "float64")
            total += macs.total
        return needless / total


def _mean(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")
