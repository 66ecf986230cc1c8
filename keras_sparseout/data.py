"""Probe data: samples that activations are measured on."""

import itertools
import numbers

import keras
import tensorflow as tf


class ProbeData:
    """Batches of model inputs, from whatever `fit` takes.

    Args:
        x: A numpy array or tensor, a tuple or dict of them, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`.
        batch_size: How many samples of arrays make a batch.
        steps: How many batches of a data set to take; None for all.

    Raises:
        ValueError: if there is nothing in `x`, or no end to it.
    """

    def __init__(self, x, *, batch_size=256, steps=None):
        self.batch_size = check_count("batch_size", batch_size)
        self.steps = None if steps is None else check_count("steps", steps)
        self.x = self._check(x)

    def __iter__(self):
        return itertools.islice(self._batches(), self.steps)

    def first(self):
        """Returns the first batch; raises if there is none."""
        first = next(iter(self), None)
        if first is None or _samples(first) == 0:
            raise _empty("a data set without samples")
        return first

    def describe(self):
        """Returns a few words for the number of samples."""
        if not self._is_dataset():
            return f"{_samples(self.x):,} samples"
        return "the given data set" + (f", {self.steps} batches" if self.steps else "")

    def _is_dataset(self):
        return isinstance(self.x, (tf.data.Dataset, keras.utils.PyDataset))

    def _batches(self):
        if isinstance(self.x, keras.utils.PyDataset):
            batches = (self.x[i] for i in _indices(self.x))
        elif isinstance(self.x, tf.data.Dataset):
            batches = self.x
        else:
            for start in range(0, _samples(self.x), self.batch_size):
                part = slice(start, start + self.batch_size)
                yield keras.tree.map_structure(lambda a: a[part], self.x)  # noqa: B023
            return
        for batch in batches:
            inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
            yield keras.tree.map_structure(tf.convert_to_tensor, inputs)

    def _check(self, x):
        endless = False
        if isinstance(x, tf.data.Dataset):
            endless = x.cardinality() == tf.data.INFINITE_CARDINALITY
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


def check_fits(model, batch):
    """Raises unless `batch` has the shapes of the inputs that `model` was made with."""
    expected = getattr(model, "inputs", None)
    given = keras.tree.flatten(batch)
    if not expected or len(expected) != len(given):
        return  # A subclassed model, or one that picks inputs by name: it will tell.
    if isinstance(batch, dict):
        by_name = {tensor.name.split(":")[0]: tensor for tensor in expected}
        if set(by_name) != set(batch):
            return
        given = [batch[name] for name in by_name]
        expected = list(by_name.values())
    for want, have in zip(expected, given, strict=True):
        fits = len(want.shape) == len(have.shape) and all(
            None in (a, b) or a == b
            for a, b in zip(want.shape, have.shape, strict=True)
        )
        # Keras lets a last dimension of 1 be left out.
        if not fits and tuple(want.shape[1:]) != (*have.shape[1:], 1):
            raise ValueError(
                "`x` must have the shape of the model's inputs. Received: x with "
                f"samples of shape {tuple(have.shape[1:])}, for inputs of shape "
                f"{tuple(want.shape[1:])}. Give samples as those that `fit` gets, "
                "without labels."
            )


def check_count(name, value):
    """Returns `value`; raises unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"`{name}` must be an integer >= 1. Received: {name}={value!r}. Leave it "
            "out for the default."
        )
    return int(value)


def _indices(dataset):
    count = dataset.num_batches
    return itertools.count() if count is None else range(count)


def _samples(x):
    return keras.tree.flatten(x)[0].shape[0]


def _check_arrays(x):
    arrays = keras.tree.flatten(x)
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


def _empty(received):
    return ValueError(
        f"`x` must hold at least one sample. Received: x={received}. Give probe data, "
        "for example a thousand validation samples."
    )


def _brief(x):
    return f"an array of shape {x.shape}" if hasattr(x, "shape") else repr(x)[:80]
