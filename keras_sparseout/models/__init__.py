"""What is done to a whole model: layers put in, replaced, and taken out again."""

from keras_sparseout.models.insert import insert
from keras_sparseout.models.sparsify import sparsify

__all__ = [
    "insert",
    "sparsify",
]
