"""`ops.masks` under its import path of version 0.1.0."""

from keras_sparseout.ops.masks import bernoulli, seed_pair

__all__ = ["bernoulli", "seed_pair"]
