"""Sparseout as a function: the masks, and the algebra on them."""

from keras_sparseout.ops.noise import sparseout

__all__ = [
    "sparseout",
]
