"""Probe data: samples on which activations are measured."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops

from keras_sparseout.backend import datasets, tensors, tracing
from keras_sparseout.measure import call_arguments
from keras_sparseout.metrics.inputs import remedy_for_kind
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Data, Shape, Tensor


class ProbeData:
    """Batches of model inputs, from whatever `fit` takes.

    Args:
        x: A numpy array or tensor, a tuple or dict of them, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`.
        batch_size: How many samples of arrays make a batch, unless the model takes only
            batches of one size, which its inputs say.
        steps: How many batches of a data set to take; None for all.

    Raises:
        ValueError: if there is nothing in `x`, or no end to it.
    """

    def __init__(
        self, x: Data, *, batch_size: int = 256, steps: int | None = None
    ) -> None:
        self.batch_size = validation.check_count("batch_size", batch_size)
        self.steps = None if steps is None else validation.check_count("steps", steps)
        self.x = self._check(x)
        self._fixed: int | None = None

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self._batches(), self.steps)

    def first_for(self, model: keras.Model) -> Any:
        """Returns the first batch; raises if there is none, or `model` can't take it.

        From then on the batches have the size that this model takes.
        """
        _check_has_call(model)
        self._fixed = None
        first = next(iter(self), None)
        if first is None or _samples(first) == 0:
            raise _empty("a data set without samples")
        self._check_ragged(model, first)
        _check_fits(model, first)
        self._fixed = _fixed_size(model, first)
        if self._fixed and not self._is_dataset():
            self._check_cut(self._fixed)
        return next(iter(self))

    def describe(self) -> str:
        """Returns a few words about the number of samples."""
        if not self._is_dataset():
            return f"{_samples(self.x):,} samples"
        return "the given data set" + (f", {self.steps} batches" if self.steps else "")

    def _is_dataset(self) -> bool:
        return datasets.is_dataset(self.x) or isinstance(self.x, keras.utils.PyDataset)

    def _batches(self) -> Iterator[Any]:
        if self._is_dataset():
            return self._batches_of_dataset()
        size = self._fixed or self.batch_size
        starts = range(0, _samples(self.x), size)
        return (_part(self.x, start, start + size) for start in starts)

    def _batches_of_dataset(self) -> Iterator[Any]:
        batches: Iterable[Any] = self.x
        if isinstance(self.x, keras.utils.PyDataset):
            batches = (self.x[i] for i in _indices(self.x))
        for batch in batches:
            inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
            for part in keras.tree.flatten(inputs):
                if not tensors.is_ragged(part):
                    _check_kind(part, "x that yields parts")
            inputs = keras.tree.map_structure(as_tensor, inputs)
            if self._fixed and _samples(inputs) != self._fixed:
                raise ValueError(
                    f"`x` must yield batches of {self._fixed} samples, the fixed batch "
                    "size of the model's inputs. Received: x with a batch of "
                    f"{_samples(inputs)}. Give unbatched data with "
                    f".batch({self._fixed}, drop_remainder=True)."
                )
            yield inputs

    def _check_ragged(self, model: keras.Model, batch: Any) -> None:
        inputs = getattr(model, "inputs", None)
        if inputs is None or any(tensor.ragged for tensor in inputs):
            return  # A subclassed model raises by itself.
        received = "x that yields parts" if self._is_dataset() else "x"
        for part in filter(tensors.is_ragged, keras.tree.flatten(batch)):
            _check_kind(part, received)

    def _check_cut(self, size: int) -> None:
        """Raises unless the samples can be cut into batches of this size."""
        samples = _samples(self.x)
        whole = samples // size * size
        if whole == samples:
            return
        remedy = f"Give the first {whole}, as x[:{whole}]" if whole else "Give more"
        raise ValueError(
            f"`x` must hold a multiple of {size} samples, since the model's inputs "
            f"have a fixed batch size of {size}. Received: x with {samples} samples. "
            f"{remedy}, or make the model with inputs of any batch size."
        )

    def _check(self, x: Data) -> Data:
        endless = False
        if datasets.is_dataset(x):
            endless = datasets.is_endless(x)
        elif isinstance(x, keras.utils.PyDataset):
            endless = x.num_batches is None
        else:
            _check_arrays(x)
        if endless and self.steps is None:
            raise ValueError(
                "`x` must have an end, or `steps` say how many batches to take. "
                "Received: x of infinite cardinality. Give for example steps=10."
            )
        return x


def _check_has_call(model: keras.Model) -> None:
    if not call_arguments.has_call(model):
        raise ValueError(
            "`x` must be given to a model that can be called. Received: x for model "
            f"{model.name!r} of class {type(model).__name__}, which has no `call`. "
            "Define `call`, or measure the models in it. A callback without `x` reads "
            "the layers inside the training step."
        )


def as_tensor(x: Any) -> Tensor:
    """Returns an array as a tensor; leaves a ragged one ragged."""
    return x if tensors.is_ragged(x) else ops.convert_to_tensor(x)


def _fixed_size(model: keras.Model, batch: Any) -> int | None:
    """Returns the only batch size that `model` takes, None if it takes others."""
    sizes = {tensor.shape[0] for tensor in getattr(model, "inputs", None) or []}
    size = next(iter(sizes - {None}), None)
    if size is None:
        return None
    # A model made without keras.Input has the size of its first call there.
    try:
        with keras.StatelessScope():
            tracing.trace(model, batch, size + 1)
    except Exception:  # Whatever a layer raises that can't.
        return size
    return None


def _check_fits(model: keras.Model, batch: Any) -> None:
    """Raises unless `batch` fits the inputs that `model` was made with."""
    expected = getattr(model, "inputs", None)
    if not expected:
        return  # A subclassed model raises by itself.
    given = keras.tree.flatten(batch)
    if isinstance(batch, dict):
        named = getattr(model, "input", None)
        if not isinstance(named, dict):
            named = {tensor.name: tensor for tensor in expected}
        missing = [key for key in named if key not in batch]
        if missing:
            raise ValueError(
                f"`x` must have the names of the model's inputs: {', '.join(named)}. "
                f"Received: x with the keys {', '.join(map(str, batch))}. Give what is "
                f"missing: {', '.join(missing)}."
            )
        expected = keras.tree.flatten(list(named.values()))
        given = keras.tree.flatten([batch[key] for key in named])
    if len(expected) != len(given):
        names = ", ".join(tensor.name for tensor in expected)
        raise ValueError(
            f"`x` must have one array for each of the model's inputs: {names}. "
            f"Received: x with {len(given)} of them. Give "
            + ("a tuple or dict of them" if len(expected) > 1 else "one array")
            + ", without labels or sample weights."
        )
    for want, have in zip(expected, given, strict=True):
        name = f"input {want.name!r}" if len(expected) > 1 else "inputs"
        _check_shape(tuple(want.shape), tuple(have.shape), name)
        _check_dtype(want.dtype, as_tensor(have).dtype.name, name)


def _check_shape(want: Shape, have: Shape, name: str) -> None:
    fits = len(want) == len(have) and all(
        None in (a, b) or a == b for a, b in zip(want[1:], have[1:], strict=True)
    )
    # Keras adds a last dimension of 1, or takes it away, where the model needs that.
    if fits or want[1:] == (*have[1:], 1) or (*want[1:], 1) == have[1:]:
        return
    remedy = "Give samples as those that `fit` gets, without labels."
    if want[1:] == have:
        remedy = "Give x[None] for a single sample."
    elif None not in want[1:] and Counter(want[1:]) == Counter(have[1:]):
        remedy = "They differ in the order of their axes: see numpy.moveaxis."
    raise ValueError(
        f"`x` must have the shape of the model's inputs. Received: x with samples of "
        f"shape {have[1:]}, for {name} of shape {want[1:]}. {remedy}"
    )


def _check_dtype(want: str, have: str, name: str) -> None:
    if (want == "string") == (have == "string") and (
        "complex" in want or "complex" not in have
    ):
        return
    remedy = "numbers, as keras.layers.TextVectorization makes them of strings"
    if want == "string":
        remedy = "strings"
    elif "complex" in have:
        remedy = "real numbers, for example numpy.abs(x)"
    raise ValueError(
        f"`x` must be of a type that the model's inputs take. Received: x of {have}, "
        f"for {name} of {want}. Give {remedy}."
    )


def _indices(dataset: keras.utils.PyDataset) -> Iterable[int]:
    count = dataset.num_batches
    return itertools.count() if count is None else range(count)


def _samples(x: Any) -> int:
    return keras.tree.flatten(x)[0].shape[0]


def _part(x: Any, start: int, stop: int) -> Any:
    return keras.tree.map_structure(lambda array: array[start:stop], x)


def _check_kind(array: Any, received: str = "x") -> None:
    """Raises if `array` can't be made a dense tensor."""
    remedy = remedy_for_kind(array)
    if remedy is None:
        try:
            # One of many samples is enough to tell.
            few = array[:1] if len(getattr(array, "shape", ())) else array
            ops.convert_to_tensor(few)
            return
        except (TypeError, ValueError):
            # For objects that are neither numbers nor strings, such as dates.
            kind = f"dtype {getattr(array, 'dtype', 'object')}"
            remedy = (
                'Convert it, for example with numpy.asarray(x.tolist(), "float32").'
            )
    else:
        kind = f"type {type(array).__name__}"
    raise ValueError(
        "`x` must be made of arrays or tensors of numbers or strings, neither sparse "
        f"nor ragged. Received: {received} of {kind}. {remedy}"
    )


def _check_arrays(x: Any) -> None:
    arrays = keras.tree.flatten(x)
    for array in arrays:
        if hasattr(array, "shape") and not tensors.is_ragged(array):
            _check_kind(array)
    if not arrays or not all(
        len(getattr(a, "shape", ())) and hasattr(a, "__getitem__") for a in arrays
    ):
        raise ValueError(
            "`x` must be an array or tensor of samples, a tuple or dict of them, a "
            f"tf.data.Dataset or a keras.utils.PyDataset. Received: x={_brief(x)}. "
            "Convert it with numpy.asarray, a sparse one with tf.sparse.to_dense."
        )
    sizes = [a.shape[0] for a in arrays]
    if len(set(sizes)) > 1:
        raise ValueError(
            "`x` must have the same number of samples in all its arrays. Received: "
            f"x with {', '.join(map(str, sizes))} samples. Cut them to one length."
        )
    if 0 in sizes:
        raise _empty(_brief(x))


def _empty(received: str) -> ValueError:
    return ValueError(
        f"`x` must hold at least one sample. Received: x={received}. Give some, for "
        "example a thousand validation samples."
    )


def _brief(x: Any) -> str:
    return f"an array of shape {x.shape}" if hasattr(x, "shape") else repr(x)[:80]
