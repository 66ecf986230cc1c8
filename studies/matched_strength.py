"""Noise of equal strength at every q: the rates that Sparseout layers need for it.

Sparseout adds noise of variance |x|^q p / (1 - p) to an activation x. Where |x| is
below 1, a smaller q means more noise at the same rate p. So a comparison of several q
at one rate is a comparison of strengths too. `MatchedStrength` takes that difference
away.
"""

from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_sparseout import Sparseout


class Moments(NamedTuple):
    """Means over the elements of a layer's input x.

    Attributes:
        own: Mean of |x|^q with the layer's q, as the layer computes it:
            x^2 (|x| + epsilon)^(q - 2).
        square: Mean of x^2.
    """

    own: float
    square: float


class InputMoments:
    """Reads the moments of the inputs of Sparseout layers, without noise.

    Reading changes no variable of the model: states of RNNs, moving statistics and
    seeds stay as they are. A stateful RNN starts from the states that it has.

    Args:
        model: Functional or Sequential model of one input.
        x: Sample of the training data, an array.
        batch_size: Samples in one pass. None for all of them.
    """

    def __init__(
        self, model: keras.Model, x: np.ndarray, batch_size: int | None = None
    ) -> None:
        self.layers = {
            layer.name: layer
            for layer in model.layers
            if isinstance(layer, Sparseout) and layer.adjustable
        }
        if not self.layers:
            raise ValueError(
                "`model` must have a Sparseout layer with adjustable=True among its "
                f"own layers, `model.layers`. Received: model={model.name!r} with "
                f"layers={[layer.name for layer in model.layers]}. Make its Sparseout "
                "layers adjustable, and put them into the model itself rather than "
                "into a model inside it."
            )
        self._x, self._step = x, batch_size or len(x)
        inputs = [layer.input for layer in self.layers.values()]
        self._model = keras.Model(model.inputs[0], inputs)

    def read(self) -> dict[str, Moments]:
        """Returns the present moments, a dict by name of layer."""
        sums = np.zeros((len(self.layers), 2))
        for start in range(0, len(self._x), self._step):
            batch = self._x[start : start + self._step]
            # What is assigned in this scope does not reach the variables.
            with keras.StatelessScope():
                inputs = self._model(batch, training=False)
            # A model of one output may return it without a list.
            inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            layers = self.layers.values()
            means = [_moments(*pair) for pair in zip(layers, inputs, strict=True)]
            sums += len(batch) * np.array(means)
        means = (sums / len(self._x)).tolist()
        return {name: Moments(*m) for name, m in zip(self.layers, means, strict=True)}


def _moments(layer, x):
    x = ops.cast(x, "float32")
    own = ops.square(x) * ops.power(ops.abs(x) + layer.epsilon, layer.q - 2)
    return float(ops.mean(own)), float(ops.mean(ops.square(x)))


class MatchedStrength(keras.callbacks.Callback):
    """Gives each Sparseout layer the rate at which its noise is as strong as at q = 2.

    At the start of each epoch it sets the odds p / (1 - p) of each layer so that

        p / (1 - p) mean |x|^q = r / (1 - r) mean x^2

    where r is the layer's reference rate and x its input on a fixed sample of the
    training data, without noise. The right side is the variance that Dropout at rate r
    would add to the same activations, as a mean over all elements. A layer with q = 2
    keeps r, and so does one whose inputs are all 0.

    Put it behind a callback that resets the states of RNNs, since it reads from the
    states that they have.

    Args:
        x: Sample of the training data, an array. For a stateful model the rows of one
            batch, of any length.
        reference: Rate r of q = 2, >= 0 and < 1: one for all layers, or a dict by name
            of layer.
        match: False leaves the rates as they are, and only reads the strengths.
        batch_size: Samples in one pass, None for all of them.

    Raises:
        ValueError: if a reference is out of range or does not fit the layers, the model
            has no adjustable Sparseout layer, or a layer's inputs are not finite.

    Attributes:
        history: One entry an epoch, a dict by name of layer: its "rate", the "strength"
            p / (1 - p) mean |x|^q of its noise, and the "reference" r / (1 - r)
            mean x^2.
    """

    def __init__(
        self,
        x: np.ndarray,
        reference: float | Mapping[str, float],
        *,
        match: bool = True,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self._x, self._batch_size = x, batch_size
        self._reference, self._match = reference, match
        rates = reference.values() if isinstance(reference, Mapping) else [reference]
        for rate in rates:
            if not 0 <= rate < 1:
                raise ValueError(
                    "`reference` must be rates >= 0 and < 1: at rate 1 the odds are "
                    f"infinite. Received: reference={reference}. Give the rate of q = "
                    "2, for example 0.3."
                )
        self.history: list[dict[str, dict[str, float]]] = []

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._moments = InputMoments(model, self._x, self._batch_size)
        names = self._moments.layers
        reference = self._reference
        if not isinstance(reference, Mapping):
            reference = dict.fromkeys(names, reference)
        if reference.keys() != names.keys():
            raise ValueError(
                "`reference` must have a rate for each adjustable Sparseout layer. "
                f"Received: reference={reference} for layers={list(names)}. Give one "
                "number for all of them, or a dict with these names."
            )
        self._odds = {name: _odds(rate) for name, rate in reference.items()}
        self._rates = reference

    def on_epoch_begin(self, epoch, logs=None):
        self.history.append(self.update())

    def update(self) -> dict[str, dict[str, float]]:
        """Sets the rates for the present activations; returns an entry of history."""
        moments = self._moments.read()
        # Check all before any is assigned.
        for name, read in moments.items():
            if not np.isfinite(read).all():
                raise ValueError(
                    "The inputs of each Sparseout layer must be finite. Received: "
                    f"{read} for layer {name!r}. Training has diverged: take a smaller "
                    "learning rate or rate."
                )
        return {name: self._set(name, read) for name, read in moments.items()}

    def _set(self, name, read):
        layer = self._moments.layers[name]
        wanted = self._odds[name] * read.square
        if self._match:
            layer.rate = self._rate(name, layer.q, wanted, read.own)
        return {
            "rate": layer.rate,
            "strength": _odds(layer.rate) * read.own,
            "reference": wanted,
        }

    def _rate(self, name, q, wanted, own):
        if q == 2 or own == 0:
            return self._rates[name]
        return wanted / (own + wanted)


def _odds(rate):
    return rate / (1 - rate) if rate < 1 else np.inf
