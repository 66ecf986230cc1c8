"""Is Sparseout an L_q penalty on the features of a generalized linear model?

No sampling: a mean over masks is a sum over all 2^d of them, in float64. The models are
Gaussian, logistic and Poisson ones, with random weights, and random features of either
sign that keep away from 0. Each is measured at several q and drop rates:

- what noise adds to the mean loss, beside the penalty of the theorem, while the weights
  or the rate fall;
- what noise adds to the mean gradients with the multiplier held and differentiated, in
  multiples of the gradients of the penalty;
- whether the mean gradients belong to a loss: whether their Jacobian is symmetric;
- for the Gaussian model: ridge regression, the scale of features, and BatchNorm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from studies.parts.theory import picture as theory_picture
from studies.parts.theory import tables as theory_tables
from studies.parts.theory.mask_enumeration import (
    FAMILIES,
    Models,
    added_gradients,
    added_loss,
    formula,
    jacobian,
    pulls,
)

VERSION = 1

SEEDS = 3
INTERCEPT = 0.5
# Of the features: they keep away from 0, where |x|^q has no derivative or a steep one.
SMALLEST, LARGEST = 0.2, 2.0
# What the weights are multiplied by, so that the noise in theta falls.
SCALES = tuple(2.0**-k for k in range(10))
# The rates that fall, at whole weights.
FALLING_RATES = tuple(2.0**-k for k in range(1, 15))
# The same, where gradients are measured. In the end the second order is nearly all.
GRADIENT_SCALES = (1.0, 2.0**-3, 2.0**-6, 2.0**-10)
# An order is the slope over this many of the last.
_LAST = 3
# A Jacobian has (samples + 1) features rows.
_JACOBIAN_SAMPLES = 2
_BATCH = 64


@dataclass(frozen=True)
class Settings:
    """All that decides the figures of a run.

    Attributes:
        family: "Gaussian", "logistic" or "Poisson".
        qs: The exponents.
        rates: The drop rates.
        features: Number of features; a mean runs over 2^features masks.
        samples: Number of samples.
        seed: Of weights, features and targets.
        threads: Threads that TensorFlow has.
    """

    family: str
    qs: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    rates: tuple[float, ...] = (0.1, 0.3, 0.5)
    features: int = 8
    samples: int = 16
    seed: int = 0
    threads: int = 1


def runs(done: Mapping[Settings, dict]) -> list[Settings]:
    return [Settings(family, seed=seed) for seed in range(SEEDS) for family in FAMILIES]


def tiny() -> list[Settings]:
    few = {"qs": (1.0, 2.0, 3.0), "rates": (0.3, 0.5), "features": 3, "samples": 4}
    return [Settings(family, **few) for family in ("Gaussian", "Poisson")]


def kind(settings: Settings) -> str:
    return settings.family


def run(settings: Settings) -> dict[str, Any]:
    models = draw_models(settings)
    pairs = [(q, rate) for q in settings.qs for rate in settings.rates]
    figures = {
        "noise": [_at(models, rate, q) for q, rate in pairs],
        "falling_rate": [_falling_rate(models, q) for q in settings.qs],
    }
    if settings.family == "Gaussian":
        figures["features"] = [
            {
                "q": q,
                **ridge(models, settings.rates[-1], q),
                "doubled": _doubled(models, settings.rates[-1], q),
                "removed": removed_by_batch_norm(settings, q),
            }
            for q in settings.qs
        ]
    return figures


def tables(done: Mapping[Settings, dict]) -> str:
    return theory_tables.tables(done)


def draw(done: Mapping[Settings, dict], folder: Path) -> None:
    theory_picture.draw(done, folder / "theory.png")


def draw_models(settings: Settings) -> Models:
    """Returns one random model, with random samples."""
    rng = np.random.default_rng(settings.seed)
    shape = (1, settings.samples, settings.features)
    activations = _features(rng, shape)
    weights = rng.normal(size=shape[::2]) / np.sqrt(settings.features)
    family = FAMILIES[settings.family]
    models = Models(family, activations, weights, np.zeros(shape[:2]), INTERCEPT)
    return models._replace(targets=family.draw(rng, models.theta))


def _features(rng, shape):
    """Random numbers of either sign that keep away from 0."""
    return rng.uniform(SMALLEST, LARGEST, shape) * rng.choice((-1.0, 1.0), shape)


def _scaled(models, scale):
    return models._replace(weights=models.weights * scale)


def _at(models, rate, q):
    """All that is measured of every family at one rate and q."""
    falling = [_scaled(models, scale) for scale in SCALES]
    loss = [_loss(each, rate, q) for each in falling]
    errors = [abs(each["added"] - each["formula"]) for each in loss]
    return {
        "q": q,
        "rate": rate,
        "loss": loss,
        "order": order(SCALES, errors),
        "gradients": [
            coefficients(_scaled(models, scale), rate, q) for scale in GRADIENT_SCALES
        ],
        "turn": _turn(_scaled(models, GRADIENT_SCALES[-1]), rate, q),
        "asymmetry": _asymmetry(models, rate, q),
    }


def _falling_rate(models, q):
    loss = [_loss(models, rate, q) for rate in FALLING_RATES]
    errors = [abs(each["added"] - each["formula"]) for each in loss]
    return {"q": q, "loss": loss, "order": order(FALLING_RATES, errors)}


def _loss(models, rate, q):
    [added], [penalty] = added_loss(models, rate, q), formula(models, rate, q)
    return {"added": float(added), "formula": float(penalty)}


def order(sizes: tuple[float, ...], errors: list[float]) -> float | None:
    """Returns k where errors fall as size^k, or None where all are rounding."""
    if max(errors) < 1e-10:
        return None
    x, y = np.log(sizes[-_LAST:]), np.log(errors[-_LAST:])
    return float(np.polyfit(x, y, 1)[0])


def fit(measured: np.ndarray, direction: np.ndarray) -> float:
    """Returns c of the c `direction` that is nearest to `measured`."""
    return float(np.sum(measured * direction) / np.sum(direction**2))


def coefficients(models: Models, rate: float, q: float) -> dict[str, float]:
    """Returns what noise adds to the gradients, in multiples of the penalty's parts.

    The unit for the activations is p / (1 - p) A'' w^2 |a|^(q - 1) sign(a), of which
    the penalty's gradient has q / 2. The rest of that gradient is taken off first. The
    unit for the weights is the penalty's gradient. `misfit` is what the unit does not
    explain, as a part of the norm.
    """
    parts = pulls(models, rate, q)
    found = {}
    for name, held in (("held", True), ("through", False)):
        to_a, to_w = added_gradients(models, rate, q, held=held)
        pull = to_a - parts.tilting
        found[name] = fit(pull, parts.shrinking)
        found[f"{name}_weights"] = fit(to_w, parts.weights)
        rest = np.linalg.norm(pull - found[name] * parts.shrinking)
        found[f"{name}_misfit"] = float(rest / np.linalg.norm(pull))
    return found


def _few(models):
    few = slice(_JACOBIAN_SAMPLES)
    return models._replace(
        activations=models.activations[:, few], targets=models.targets[:, few]
    )


def _asymmetry(models, rate, q):
    """The norm of J - J^T as a part of the norm of J, for both gradients."""
    found = {}
    for name, held in (("held", True), ("through", False)):
        j = jacobian(_few(models), rate, q, held=held)
        found[name] = float(np.linalg.norm(j - j.T) / np.linalg.norm(j))
    return found


def _turn(models, rate, q):
    """How the gradients of activation and weight change with each other.

    The derivative of the gradient of a_i by w_i, less that of w_i by a_i, in multiples
    of p / (1 - p) A'' w_i |a_i|^(q - 1) sign(a_i). For the gradients of a loss it is 0.
    """
    models = _few(models)
    features = models.weights.shape[1]
    unit = pulls(models, rate, q).shrinking[0] / models.weights[0]
    direction = np.concatenate([np.diag(each) for each in unit])
    found = {}
    for name, held in (("held", True), ("through", False)):
        j = jacobian(models, rate, q, held=held)
        by_weights, by_activations = (
            j[:-features, -features:],
            j[-features:, :-features],
        )
        found[name] = fit(by_weights - by_activations.T, direction)
    return found


def ridge(models: Models, rate: float, q: float) -> dict[str, float]:
    """Compares ridge regression with the Gaussian model's mean loss, features fixed.

    The penalty on weight i is p / (2 (1 - p)) sum over samples of |a_i|^q.
    """
    a = models.activations[0]
    residual = models.targets[0] - models.intercept
    penalty = rate / (1 - rate) * np.diag(np.sum(np.abs(a) ** q, axis=0))
    w = np.linalg.solve(a.T @ a + penalty, a.T @ residual)
    _, noise = added_gradients(models._replace(weights=w[None]), rate, q, held=True)
    slope = a.T @ (a @ w - residual) + noise[0]
    return {
        "ridge_gradient": float(np.abs(slope).max() / np.abs(a.T @ residual).max()),
        "smallest_weight": float(np.abs(w).min() / np.abs(w).max()),
    }


def _doubled(models, rate, q):
    """What noise adds with features twice as large and weights half, to what it adds.

    Without noise the two models give the same.
    """
    other = models._replace(
        activations=2 * models.activations, weights=models.weights / 2
    )
    return float(added_loss(other, rate, q)[0] / added_loss(models, rate, q)[0])


def removed_by_batch_norm(settings: Settings, q: float) -> float:
    """Returns the part of the pull on the features that BatchNorm takes away.

    The pull is the gradient that noise adds, in squared norm. BatchNorm passes on no
    gradient along the features of a batch, and none that is constant in it.
    """
    rng = np.random.default_rng(settings.seed)
    shape = (1, _BATCH, settings.features)
    raw = _features(rng, shape)
    # With mean 0 and variance 1, so that BatchNorm changes gradients alone.
    raw = (raw - raw.mean(axis=1, keepdims=True)) / raw.std(axis=1, keepdims=True)
    weights = rng.normal(size=shape[::2]) / np.sqrt(settings.features)
    models = Models(FAMILIES["Gaussian"], raw, weights, np.zeros(shape[:2]), INTERCEPT)
    pull, _ = added_gradients(models, settings.rates[-1], q, held=True)
    layer = keras.layers.BatchNormalization(
        epsilon=1e-12, center=False, scale=False, dtype="float64"
    )
    passed = _gradient_before(layer, raw[0], pull[0])
    return float(1 - np.sum(passed**2) / np.sum(pull**2))


def _gradient_before(layer, inputs, upstream):
    """Returns the gradient at a layer's inputs, of that at its outputs."""
    x = ops.convert_to_tensor(inputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = ops.sum(layer(x, training=True) * upstream)
    return np.asarray(tape.gradient(outputs, x))
