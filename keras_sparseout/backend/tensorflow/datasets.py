"""Tells what kind of data set a `tf.data.Dataset` is."""

from typing import Any

import tensorflow as tf


def is_dataset(x: Any) -> bool:
    """Whether `x` is a `tf.data.Dataset`."""
    return isinstance(x, tf.data.Dataset)


def is_endless(dataset: Any) -> bool:
    """Whether a `tf.data.Dataset` is known to have no end."""
    return bool(dataset.cardinality() == tf.data.INFINITE_CARDINALITY)
