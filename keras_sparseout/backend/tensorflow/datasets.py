"""Tells what kind of data set a `tf.data.Dataset` is."""

from typing import Any

import tensorflow as tf


def is_dataset(x: Any) -> bool:
    """Whether `x` is a `tf.data.Dataset`."""
    return isinstance(x, tf.data.Dataset)


def is_endless(dataset: Any) -> bool:
    """Whether a `tf.data.Dataset` is known to have no end."""
    return bool(dataset.cardinality() == tf.data.INFINITE_CARDINALITY)


def yields_labels(dataset: Any) -> bool:
    """Whether the elements of a `tf.data.Dataset` are inputs and labels."""
    spec = dataset.element_spec
    return isinstance(spec, tuple) and len(spec) > 1
