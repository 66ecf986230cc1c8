"""All streaming metrics, each with its figure in one go, and activations to try."""

import keras
import numpy as np
import pytest

from keras_sparseout import metrics

UNITS = 9


def mean_over_samples(function):
    """The mean over samples of the mean over positions, where it is defined."""

    def figure(x):
        defined = np.ma.masked_invalid(function(x).reshape(len(x), -1))
        return np.asarray(defined.mean(axis=1).mean())

    return figure


@keras.saving.register_keras_serializable("tests")
def largest(x):
    return keras.ops.max(x, axis=-1)


def gini_of_all(x):
    return metrics.gini(x.ravel())


# Each metric, and its figure on all data in one go, in float64.
METRICS = {
    "Hoyer": (metrics.Hoyer, mean_over_samples(metrics.hoyer)),
    "Gini": (metrics.Gini, mean_over_samples(metrics.gini)),
    "ZeroFraction": (
        lambda **k: metrics.ZeroFraction(threshold=0.5, relative=True, **k),
        mean_over_samples(
            lambda x: metrics.zero_fraction(x, threshold=0.5, relative=True)
        ),
    ),
    "PopulationSparseness": (
        metrics.PopulationSparseness,
        mean_over_samples(metrics.population_sparseness),
    ),
    "PQIndex": (
        lambda **k: metrics.PQIndex(p=0.5, q=1, **k),
        mean_over_samples(lambda x: metrics.pq_index(x, p=0.5, q=1)),
    ),
    "Kurtosis": (metrics.Kurtosis, mean_over_samples(metrics.kurtosis)),
    "SampleMean": (
        lambda **k: metrics.SampleMean(largest, **k),
        mean_over_samples(lambda x: x.max(-1)),
    ),
    "whole map": (
        lambda **k: metrics.Gini(axis=None, **k),
        mean_over_samples(lambda x: metrics.gini(x, axis=None)),
    ),
    "over time": (
        lambda **k: metrics.Hoyer(axis=1, **k),
        mean_over_samples(lambda x: metrics.hoyer(x, axis=1)),
    ),
    "FiringRate": (
        lambda **k: metrics.FiringRate(threshold=0.5, **k),
        lambda x: metrics.firing_rate(x, threshold=0.5),
    ),
    "DeadUnits": (
        lambda **k: metrics.DeadUnits(threshold=2.4, **k),
        lambda x: metrics.dead_units(x, threshold=2.4),
    ),
    "LifetimeSparseness": (metrics.LifetimeSparseness, metrics.lifetime_sparseness),
    "RMS": (metrics.RMS, metrics.rms),
    "ActivationHistogram": (metrics.ActivationHistogram, gini_of_all),
}
PER_UNIT = ("FiringRate", "DeadUnits", "LifetimeSparseness")
TOLERANCES = {"ActivationHistogram": 0.002}

every_metric = pytest.mark.parametrize("name", METRICS)
# One of each class that makes sums.
CLASSES = ("Hoyer", "FiringRate", "LifetimeSparseness", "RMS", "ActivationHistogram")
every_class = pytest.mark.parametrize("name", CLASSES)
every_metric_of_positions = pytest.mark.parametrize(
    "name", [name for name in METRICS if name not in ("whole map", "over time")]
)


def activations(samples=30):
    """Half-rectified, with a silent sample, silent positions and a dead unit."""
    x = np.random.default_rng(0).normal(size=(samples, 4, UNITS)).astype("float32")
    x = np.maximum(x, 0)
    x[1] = 0
    x[2::5, 1] = 0
    x[..., 3] = 0
    return x


def one_shot(name, x):
    return METRICS[name][1](np.asarray(x, "float64"))


def assert_figure(name, figure, x):
    tolerance = TOLERANCES.get(name, 1e-5)
    np.testing.assert_allclose(figure, one_shot(name, x), atol=tolerance, rtol=1e-5)
