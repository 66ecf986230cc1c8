"""The functions of `metrics`, and what their tests share."""

import functools

import numpy as np
import pytest

from keras_sparseout import metrics

VECTOR_FUNCTIONS = (
    metrics.hoyer,
    metrics.gini,
    metrics.zero_fraction,
    metrics.population_sparseness,
    metrics.pq_index,
    metrics.kurtosis,
)
DATASET_FUNCTIONS = (
    metrics.firing_rate,
    metrics.dead_units,
    metrics.lifetime_sparseness,
    metrics.rms,
)
RELATIVE = functools.partial(metrics.zero_fraction, threshold=0.1, relative=True)
NAN = float("nan")
HALF = functools.partial(metrics.pq_index, p=0.5, q=1)

each_vector_function = pytest.mark.parametrize("function", VECTOR_FUNCTIONS)
each_function = pytest.mark.parametrize(
    "function", [*VECTOR_FUNCTIONS, *DATASET_FUNCTIONS]
)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)
