"""Measures of activation sparsity: functions of arrays, and streaming metrics."""

from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.metrics.dataset import (
    dead_units,
    firing_rate,
    lifetime_sparseness,
    rms,
)
from keras_sparseout.metrics.functions import (
    gini,
    hoyer,
    kurtosis,
    population_sparseness,
    pq_index,
    zero_fraction,
)
from keras_sparseout.metrics.histogram import ActivationHistogram
from keras_sparseout.metrics.per_unit import (
    RMS,
    DeadUnits,
    FiringRate,
    LifetimeSparseness,
)
from keras_sparseout.metrics.streaming import (
    Gini,
    Hoyer,
    Kurtosis,
    PopulationSparseness,
    PQIndex,
    SampleMean,
    ZeroFraction,
)

__all__ = [
    "RMS",
    "ActivationHistogram",
    "DeadUnits",
    "FiringRate",
    "Gini",
    "Hoyer",
    "Kurtosis",
    "LifetimeSparseness",
    "PQIndex",
    "PopulationSparseness",
    "SampleMean",
    "StreamingMetric",
    "ZeroFraction",
    "dead_units",
    "firing_rate",
    "gini",
    "hoyer",
    "kurtosis",
    "lifetime_sparseness",
    "population_sparseness",
    "pq_index",
    "rms",
    "zero_fraction",
]
