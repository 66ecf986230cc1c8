"""What is done to a whole model: layers put in, replaced, and taken out again."""

from keras_sparseout.models.insert import insert
from keras_sparseout.models.mc_predict import mc_predict
from keras_sparseout.models.replace_dropout import find_dropout, replace_dropout
from keras_sparseout.models.sparsify import sparsify
from keras_sparseout.models.strip import strip

__all__ = [
    "find_dropout",
    "insert",
    "mc_predict",
    "replace_dropout",
    "sparsify",
    "strip",
]
