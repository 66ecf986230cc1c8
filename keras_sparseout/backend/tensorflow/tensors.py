"""Tells kinds of tensors apart."""

from typing import Any

import tensorflow as tf


def is_ragged(x: Any) -> bool:
    """Whether `x` is a ragged tensor."""
    return isinstance(x, tf.RaggedTensor)


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse tensor."""
    return isinstance(x, tf.SparseTensor)
