"""`activation_sparsity`: one call, and a table of a model's activations."""

from keras_sparseout.summary.activation_sparsity import activation_sparsity

__all__ = [
    "activation_sparsity",
]
