"""Means over all masks of Sparseout before a generalized linear model.

With d features there are 2^d masks. Each has a probability, so that a mean over all of
them has no sampling error. All is float64. `EPSILON` is so small that |x| + EPSILON is
|x| for the activations that are used here.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras import ops

from keras_sparseout.ops import sparseout

# The smallest that Sparseout takes.
EPSILON = 1e-30
# Of central differences in float64.
_STEP = 1e-5


class Family(NamedTuple):
    """A kind of generalized linear model, with the log-partition A.

    Attributes:
        partition: A, for tensors.
        curvature: The second derivative of A, for arrays.
        tilt: The third derivative of A, for arrays.
        draw: Draws targets from a generator and the natural parameters.
    """

    partition: Callable[[Any], Any]
    curvature: Callable[[np.ndarray], np.ndarray]
    tilt: Callable[[np.ndarray], np.ndarray]
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray]


def sigmoid(theta: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-theta))


def bell(theta: np.ndarray) -> np.ndarray:
    """The derivative of `sigmoid`."""
    return sigmoid(theta) * sigmoid(-theta)


FAMILIES = {
    "Gaussian": Family(
        lambda theta: theta**2 / 2,
        np.ones_like,
        np.zeros_like,
        lambda rng, theta: rng.normal(theta),
    ),
    "logistic": Family(
        ops.softplus,
        bell,
        lambda theta: bell(theta) * (1 - 2 * sigmoid(theta)),
        lambda rng, theta: rng.binomial(1, sigmoid(theta)).astype(float),
    ),
    "Poisson": Family(
        ops.exp,
        np.exp,
        np.exp,
        lambda rng, theta: rng.poisson(np.exp(theta)).astype(float),
    ),
}


class Models(NamedTuple):
    """Models of one family, each with samples of its own.

    Attributes:
        family: Their family.
        activations: (models, samples, features), what gets the noise.
        weights: (models, features).
        targets: (models, samples).
        intercept: What is added to weights times activations, without noise.
    """

    family: Family
    activations: np.ndarray
    weights: np.ndarray
    targets: np.ndarray
    intercept: float

    @property
    def theta(self) -> np.ndarray:
        """The natural parameters without noise, (models, samples)."""
        product = np.einsum("mnd,md->mn", self.activations, self.weights)
        return product + self.intercept


def masks_and_probabilities(features: int, rate: float) -> tuple[np.ndarray, Any]:
    """Returns all masks, (2^features, features), and how likely each is."""
    masks = np.array(list(itertools.product((False, True), repeat=features)))
    return masks, np.where(masks, 1 - rate, rate).prod(axis=1)


def _mean_added(models, a, w, rate, q, *, held):
    """Returns the mean loss less the loss without noise, a tensor (models,)."""
    masks, probabilities = masks_and_probabilities(a.shape[-1], rate)
    tiled = ops.broadcast_to(a, (len(masks), *a.shape))
    noisy = sparseout(
        *(tiled, rate, q),
        mask=masks[:, None, None, :],
        epsilon=EPSILON,
        stop_gradient=held,
    )
    theta = ops.sum(noisy * w[:, None, :], axis=-1) + models.intercept
    clean = ops.sum(a * w[:, None, :], axis=-1) + models.intercept
    partition = models.family.partition
    # One by one, since sums of losses would round away what noise adds.
    added = partition(theta) - partition(clean) - models.targets * (theta - clean)
    return ops.sum(ops.sum(added, axis=-1) * probabilities[:, None], axis=0)


def added_loss(models: Models, rate: float, q: float) -> np.ndarray:
    """Returns what noise adds to the loss of each model, in the mean over all masks.

    The loss is the sum over samples of A(theta) - target theta, which is the negative
    log-likelihood up to what does not depend on the model.
    """
    a, w = ops.convert_to_tensor(models.activations), models.weights
    return np.asarray(_mean_added(models, a, w, rate, q, held=True))


def added_gradients(
    models: Models, rate: float, q: float, *, held: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what noise adds to the gradients, in the mean over all masks.

    Args:
        models: The models.
        rate: Drop rate.
        q: Exponent of Sparseout.
        held: Whether Sparseout holds the multiplier constant in the gradient.

    Returns:
        The part with respect to the activations, (models, samples, features), and to
        the weights, (models, features).
    """
    a = tf.Variable(models.activations)
    w = tf.Variable(models.weights)
    with tf.GradientTape() as tape:
        added = _mean_added(models, a, w, rate, q, held=held)
    return tuple(np.asarray(g) for g in tape.gradient(added, [a, w]))


def formula(models: Models, rate: float, q: float) -> np.ndarray:
    """Returns the penalty of the theorem for each model.

    p / (2 (1 - p)) sum over samples of A''(theta) sum_i w_i^2 |a_i|^q
    """
    curvature = models.family.curvature(models.theta)
    variances = np.einsum(
        "md,mnd->mn", models.weights**2, np.abs(models.activations) ** q
    )
    return rate / (2 * (1 - rate)) * np.sum(curvature * variances, axis=1)


class Pulls(NamedTuple):
    """The parts of which the gradients of the formula are made.

    Attributes:
        shrinking: p / (1 - p) A'' w_i^2 |a_i|^(q - 1) sign(a_i). The gradient of the
            formula with respect to a_i has q / 2 of it.
        tilting: What else this gradient has, through A''(theta).
        weights: The gradient of the formula with respect to the weights.
    """

    shrinking: np.ndarray
    tilting: np.ndarray
    weights: np.ndarray


def pulls(models: Models, rate: float, q: float) -> Pulls:
    """Returns the gradients of `formula` in parts."""
    a, w = models.activations, models.weights[:, None, :]
    odds = rate / (1 - rate)
    curvature = models.family.curvature(models.theta)[..., None]
    power = np.abs(a) ** q
    through_theta = odds / 2 * models.family.tilt(models.theta)[..., None]
    through_theta = through_theta * np.sum(w**2 * power, axis=-1, keepdims=True)
    return Pulls(
        odds * curvature * w**2 * power / a,
        through_theta * w,
        np.sum(odds * curvature * w * power + through_theta * a, axis=1),
    )


def gradients(
    models: Models, rate: float, q: float, *, held: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean gradients under noise, in the form of `added_gradients`."""
    theta = ops.convert_to_tensor(models.theta)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        clean = ops.sum(models.family.partition(theta) - models.targets * theta)
    slope = np.asarray(tape.gradient(clean, theta))[..., None]
    to_a, to_w = added_gradients(models, rate, q, held=held)
    to_a = to_a + slope * models.weights[:, None, :]
    return to_a, to_w + np.sum(slope * models.activations, axis=1)


def jacobian(models: Models, rate: float, q: float, *, held: bool) -> np.ndarray:
    """Returns the derivatives of the mean gradients of the first model.

    Rows and columns are the activations of all samples, then the weights. Where the
    gradients belong to a loss it is symmetric. They are central differences: automatic
    differentiation would hold the multiplier constant once more.
    """
    shape = models.activations.shape[1:]
    point = np.concatenate([models.activations[0].ravel(), models.weights[0]])
    steps = _STEP * np.eye(len(point))
    points = np.concatenate([point + steps, point - steps])
    moved = models._replace(
        activations=points[:, : -shape[1]].reshape(-1, *shape),
        weights=points[:, -shape[1] :],
        targets=np.repeat(models.targets[:1], len(points), axis=0),
    )
    to_a, to_w = gradients(moved, rate, q, held=held)
    field = np.concatenate([to_a.reshape(len(points), -1), to_w], axis=1)
    ahead, behind = np.split(field, 2)
    return (ahead - behind).T / (2 * _STEP)
