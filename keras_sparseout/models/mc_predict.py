"""mc_predict: the mean and spread of predictions with the noise of training."""

import secrets
from collections.abc import Sequence
from typing import Any, Literal, overload

import keras
import numpy as np

from keras_sparseout.backend import tracing, variables
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.probe_data import ProbeData, as_tensor
from keras_sparseout.models.sampling.noisy_step import NoisyStep
from keras_sparseout.models.sampling.own_seeds import seeds_of
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Data, Tensor

_PASSES_WITHOUT_BAR = 200


@overload
def mc_predict(
    model: keras.Model,
    x: Data,
    samples: int,
    seed: int | None = None,
    *,
    layers: LayerChoice | Sequence[LayerChoice] | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    return_samples: Literal[False] = False,
    verbose: int = 1,
) -> tuple[Any, Any]: ...
@overload
def mc_predict(
    model: keras.Model,
    x: Data,
    samples: int,
    seed: int | None = None,
    *,
    layers: LayerChoice | Sequence[LayerChoice] | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    return_samples: Literal[True],
    verbose: int = 1,
) -> tuple[Any, Any, Any]: ...
def mc_predict(
    model: keras.Model,
    x: Data,
    samples: int,
    seed: int | None = None,
    *,
    layers: LayerChoice | Sequence[LayerChoice] | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    return_samples: bool = False,
    verbose: int = 1,
) -> tuple[Any, ...]:
    """Predicts several times with the noise of training: Monte Carlo dropout.

    For sample k of the noise, let y_k be the prediction with the masks of k. With T
    samples it returns

        mean      = 1/T sum_k y_k
        deviation = sqrt(1/T sum_k (y_k - mean)^2)

    for each element of the outputs. So the deviation is that of the population, as
    `numpy.std` has it, and 0 for one sample. Both are summed up in float64, as Welford
    does.

    Only the noise layers are in training mode. All else is in inference: batch
    normalization uses its moving statistics, and no variable of the model changes, seed
    states and recurrent states included. Each batch starts from the recurrent states
    that a stateful model has.

    Noise layers are `Dropout`, `SpatialDropout1D` to `3D`, `AlphaDropout`,
    `GaussianDropout` and `GaussianNoise` of Keras, dropout in its recurrent layers,
    their cells and its attention layers, and Sparseout, its spatial forms, Bridgeout,
    Shakeout and SparseoutCellWrapper, in whatever layer or model they are. One that the
    model calls with `training=False` in a training step too stays without noise, and
    one with a rate of 0 adds none: with no other the deviation is 0. Noise that a layer
    of your own adds can't be known: name the layer in `layers`.

    The masks depend on the seed, the number of the sample, and the number and size of
    the batch; not on `samples`, and not on what was called before. With the same seed
    the i-th generator that a training step draws from starts sample k of batch b (all
    from 0) at the state

        sequence = np.random.SeedSequence(seed % 2**64, spawn_key=(b, k))
        state = sequence.generate_state(2 * n)[2 * i : 2 * i + 2]

    for n generators. A generator is a `keras.random.SeedGenerator`, the global one of
    Keras included. Noise from elsewhere, as from `tf.random.normal`, does not follow
    the seed.

    The model is traced twice in each call. Then one graph serves all samples, and
    batches of all sizes if the model takes them.

    Args:
        model: A Keras model.
        x: A NumPy array or tensor, a tuple or dict of them if the model has several
            inputs, or batches as for `predict`: a `tf.data.Dataset` or a
            `keras.utils.PyDataset`.
        samples: How many samples of the noise, T, an integer >= 1.
        seed: Integer of at most 64 bits, or None for a random one.
        layers: Which layers are to be noisy, as in `SparsityTracker`: layers, paths,
            regular expressions that match a whole path, types, or names of types. Noise
            layers inside them are noisy too, even where the model calls them with
            `training=False`; all other layers are not. None: all noise layers.
        batch_size: How many samples of an array run at once. If the model takes only
            one batch size, that one is used.
        steps: How many batches of a data set to take, None for all.
        return_samples: Whether to return all y_k too. They need T times the memory.
        verbose: 1 for a progress bar if there are more than 200 passes, 0 for none.

    Returns:
        `(mean, deviation)`, or `(mean, deviation, y)` with `return_samples`: NumPy
        arrays in the structure of the model's outputs, of float32, or float64 where an
        output is. `y` has the shape `(T, ...)` and the type of the output.

    Raises:
        ValueError: if the model has no noise layer, or none is called with
            `training=True` when it trains; if an output is not made of numbers; if
            `x` is empty, endless or does not fit the model; or if another argument has
            a value that is not allowed.
        RuntimeError: if the back end is not TensorFlow, or if TensorFlow is set to run
            functions eagerly.

    Source: Gal & Ghahramani (2016), "Dropout as a Bayesian Approximation: Representing
        Model Uncertainty in Deep Learning", https://arxiv.org/abs/1506.02142; Welford
        (1962), "Note on a Method for Calculating Corrected Sums of Squares and
        Products".

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((64,)),
    ...     keras_sparseout.Sparseout(0.5, q=1.0),
    ...     keras.layers.Dense(1, kernel_initializer="ones"),
    ... ])
    >>> x = np.full((1, 64), 4.0, "float32")
    >>> mean, deviation = mc_predict(model, x, samples=1000, seed=0, verbose=0)
    >>> bool(abs(mean - 256) < 3), bool(abs(deviation - 16) < 1)  # 16^2 = 64 * 4
    (True, True)
    """
    _check(model)
    samples = validation.check_count(
        "samples", samples, remedy="Give for example samples=50."
    )
    seed = validation.check_seed(seed)
    validation.check_bool("return_samples", return_samples)
    chosen = layer_selection.check_layers(layers)
    data = ProbeData(x, batch_size=batch_size, steps=steps)
    first = _tensors(data.first_for(model))
    tracing.build(model, first)
    step = NoisyStep(model, chosen)
    step.prepare(first)
    entropy = secrets.randbits(64) if seed is None else seed % 2**64
    progress = _Progress(verbose)
    moments = []
    for number, batch in enumerate(data):
        run = step.at(_tensors(batch))
        moments.append(_Moments(keep=return_samples))
        for k in range(samples):
            moments[-1].add(run(seeds_of(entropy, (number, k), step.number_of_seeds())))
            progress.advance()
    progress.finish()
    found = [
        _join([m.mean() for m in moments]),
        _join([m.deviation() for m in moments]),
    ]
    if return_samples:
        found.append(_join([m.samples() for m in moments], axis=1))
    return tuple(found)


class _Moments:
    """The mean and deviation of the samples of one batch, by Welford's method."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._kept: list[Any] = []
        self._count = 0
        self._first: Any = None
        self._means: list[np.ndarray] = []
        self._squares: list[np.ndarray] = []

    def add(self, outputs: Any) -> None:
        """Adds the outputs of one pass, a structure of tensors."""
        outputs = keras.tree.map_structure(_as_array, outputs)
        if self._keep:
            self._kept.append(outputs)
        values = [a.astype("float64") for a in keras.tree.flatten(outputs)]
        self._count += 1
        if self._count == 1:
            self._first, self._means = outputs, values
            self._squares = [np.zeros(value.shape) for value in values]
            return
        for mean, square, value in zip(self._means, self._squares, values, strict=True):
            with np.errstate(invalid="ignore"):
                # Two infinities may be equal too.
                delta = np.where(value == mean, 0.0, value - mean)
                mean += delta / self._count
                square += delta * np.where(value == mean, 0.0, value - mean)

    def mean(self) -> Any:
        """Returns the means, in the structure of the outputs."""
        return self._packed(self._means)

    def deviation(self) -> Any:
        """Returns the deviations, in the structure of the outputs."""
        return self._packed([np.sqrt(s / self._count) for s in self._squares])

    def samples(self) -> Any:
        """Returns all samples, stacked, in the structure of the outputs."""
        return keras.tree.map_structure(lambda *arrays: np.stack(arrays), *self._kept)

    def _packed(self, arrays: list[np.ndarray]) -> Any:
        typed = [
            array.astype("float64" if first.dtype == "float64" else "float32")
            for array, first in zip(
                arrays, keras.tree.flatten(self._first), strict=True
            )
        ]
        return keras.tree.pack_sequence_as(self._first, typed)


class _Progress:
    """A progress bar, which shows only if there is much to do."""

    def __init__(self, verbose: int) -> None:
        self._verbose = verbose
        self._passes = 0
        self._bar: keras.utils.Progbar | None = None

    def advance(self) -> None:
        """Counts one pass."""
        self._passes += 1
        if self._verbose and self._passes > _PASSES_WITHOUT_BAR:
            self._bar = self._bar or keras.utils.Progbar(None)
            self._bar.update(self._passes)

    def finish(self) -> None:
        """Ends the line of the bar."""
        if self._bar is not None:
            self._bar.update(self._passes, finalize=True)


def _check(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model. Received: model={model!r}. Wrap a layer: "
            "keras.Sequential([layer])."
        )
    tracing.check_can_trace("mc_predict")


def _tensors(batch: Any) -> Any:
    return keras.tree.map_structure(as_tensor, batch)


def _join(batches: list[Any], axis: int = 0) -> Any:
    """Joins the arrays of all batches along the axis of the samples."""

    def join(*arrays):
        shapes = {a.shape[:axis] + a.shape[axis + 1 :] for a in arrays}
        if len(shapes) > 1:
            raise ValueError(
                "`x` must be made of batches for which the model's outputs have one "
                f"shape. Received: x with outputs of shapes {sorted(shapes)} a sample. "
                "Pad the samples to one length."
            )
        return np.concatenate(arrays, axis=axis)

    return keras.tree.map_structure(join, *batches)


def _as_array(output: Tensor) -> np.ndarray:
    # NumPy warns of what Keras does with bfloat16.
    dense = keras.ops.convert_to_tensor(output, sparse=False, ragged=False)
    return np.asarray(variables.to_numpy(dense))
