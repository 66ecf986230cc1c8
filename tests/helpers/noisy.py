"""Layers of every kind to put noise on, and a NumPy reference of the noise."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout
from keras_sparseout.ops import masks

L = keras.layers
RATE, Q, C = 0.3, 1.5, 0.1
# The rate after rounding, at which masks are drawn.
DROPPED = round(RATE * 2**32) / 2**32


class Kind(NamedTuple):
    """A layer to wrap: what makes it, its input shape, the masks of its weights.

    `masks` has the shapes of the mask with Bridgeout (None: the shape of the weight)
    and with Shakeout, by name of the perturbed weight.
    """

    make: callable
    shape: tuple
    masks: dict
    weights: tuple = None
    vocabulary: int = 0

    def inputs(self):
        rng = np.random.default_rng(0)
        if self.vocabulary:
            return rng.integers(0, self.vocabulary, self.shape)
        return rng.normal(size=self.shape).astype("float32")

    def layer(self):
        # All weights, biases too, are far from 0, and the same at each call.
        layer = self.make()
        layer.build(self.shape)
        rng = np.random.default_rng(1)
        for weight in layer.weights:
            signs = rng.choice([-1, 1], weight.shape)
            weight.assign(rng.uniform(0.2, 1, weight.shape) * signs)
        return layer


def _recurrent(layer, names, **masks):
    return Kind(lambda: layer(4), (2, 5, 3), masks, names)


KINDS = {
    "Dense": Kind(lambda: L.Dense(4), (5, 6), {"kernel": (None, (6, 1))}),
    "Conv1D": Kind(lambda: L.Conv1D(4, 2), (2, 5, 3), {"kernel": (None, (1, 3, 1))}),
    "Conv2D": Kind(
        lambda: L.Conv2D(4, 2), (2, 5, 5, 3), {"kernel": (None, (1, 1, 3, 1))}
    ),
    "Conv2D, groups": Kind(
        lambda: L.Conv2D(4, 2, groups=2), (2, 5, 5, 6), {"kernel": (None, (1, 1, 3, 2))}
    ),
    "Conv3D": Kind(
        lambda: L.Conv3D(2, 2), (2, 3, 3, 3, 3), {"kernel": (None, (1, 1, 1, 3, 1))}
    ),
    "Conv2DTranspose": Kind(
        lambda: L.Conv2DTranspose(4, 2), (2, 3, 3, 5), {"kernel": (None, (1, 1, 1, 5))}
    ),
    "DepthwiseConv1D": Kind(
        lambda: L.DepthwiseConv1D(2, depth_multiplier=2),
        (2, 5, 3),
        {"kernel": (None, (1, 3, 1))},
    ),
    "DepthwiseConv2D": Kind(
        lambda: L.DepthwiseConv2D(2), (2, 5, 5, 3), {"kernel": (None, (1, 1, 3, 1))}
    ),
    "SeparableConv1D": Kind(
        lambda: L.SeparableConv1D(4, 2),
        (2, 5, 3),
        {
            "depthwise_kernel": (None, (1, 3, 1)),
            "pointwise_kernel": (None, (1, 3, 1)),
        },
    ),
    "SeparableConv2D": Kind(
        lambda: L.SeparableConv2D(4, 2, depth_multiplier=2),
        (2, 5, 5, 3),
        {"pointwise_kernel": (None, (1, 1, 6, 1))},
        ("pointwise_kernel",),
    ),
    "EinsumDense": Kind(
        lambda: L.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="e"),
        (2, 5, 3),
        {"kernel": (None, (3, 1, 1))},
    ),
    "EinsumDense, two axes": Kind(
        lambda: L.EinsumDense("abc,dbc->ad", 4),
        (2, 5, 3),
        {"kernel": (None, (1, 5, 3))},
    ),
    "Embedding": Kind(
        lambda: L.Embedding(9, 4),
        (2, 5),
        {"embeddings": ((9, 1), (9, 1))},
        vocabulary=9,
    ),
    "LSTM": _recurrent(L.LSTM, "recurrent_kernel", recurrent_kernel=(None, (4, 1))),
    "LSTM, both": _recurrent(
        L.LSTM,
        ("cell/kernel", "recurrent_kernel"),
        kernel=(None, (3, 1)),
        recurrent_kernel=(None, (4, 1)),
    ),
    "GRU": _recurrent(L.GRU, ("recurrent_kernel",), recurrent_kernel=(None, (4, 1))),
    "SimpleRNN": _recurrent(L.SimpleRNN, None, kernel=(None, (3, 1))),
}
WRAPPERS = {
    "Bridgeout": lambda layer, **kwargs: Bridgeout(layer, RATE, Q, **kwargs),
    "Bridgeout, exact": lambda layer, **kwargs: Bridgeout(
        layer, RATE, Q, stop_gradient=False, **kwargs
    ),
    "Shakeout": lambda layer, **kwargs: Shakeout(layer, RATE, C, **kwargs),
}


def keeps(kind, layer, wrapper, seed):
    """Returns the masks of the perturbed weights, by name, in the order of drawing."""
    generator = keras.random.SeedGenerator(seed)
    side = 0 if wrapper.startswith("Bridgeout") else 1
    drawn = {}
    for weight in layer.weights:
        if weight.name in kind.masks:
            shape = kind.masks[weight.name][side] or tuple(weight.shape)
            keep, _ = masks.bernoulli(shape, RATE, masks.seed_pair(generator))
            keep = keep.numpy()
            if keep.shape[-1] > 1 and keep.shape[-1] != weight.shape[-1]:
                keep = np.repeat(keep, weight.shape[-1] // keep.shape[-1], -1)
            drawn[weight.name] = np.broadcast_to(keep, weight.shape)
    return drawn


def perturbed(w, keep, wrapper, q=Q, c=C, p=DROPPED, epsilon=1e-7):
    """Returns W~ and dW~/dW in NumPy, from the formulas of the papers."""
    w = np.asarray(w, "float64")
    if wrapper == "Shakeout":
        noisy = np.where(keep, (w + c * p * np.sign(w)) / (1 - p), -c * np.sign(w))
        return noisy, keep / (1 - p)
    xi = keep / (1 - p) - 1
    size = np.abs(w) + epsilon
    n = 1 + size ** ((q - 2) / 2) * xi
    slope = 1 + size ** ((q - 2) / 2) * xi * (1 + (q - 2) / 2 * np.abs(w) / size)
    return w * n, slope if wrapper == "Bridgeout, exact" else n


def gradients(layer, x, **kwargs):
    """Returns the output, and the gradients of its squares' sum by weight name."""
    with tf.GradientTape() as tape:
        y = layer(x, **kwargs)
        loss = tf.reduce_sum(tf.square(tf.cast(y, "float32")))
    variables = layer.trainable_variables
    found = tape.gradient(loss, [v.value for v in variables])
    dense = [tf.convert_to_tensor(g).numpy() for g in found]
    return y.numpy(), dict(zip([v.name for v in variables], dense, strict=True))


def assert_two_points(drawn, mean, variance):
    """Checks draws of a variable with two values, dropped at the probability `DROPPED`.

    Its mean and variance may be off by five standard deviations.
    """
    n, p = len(drawn), DROPPED
    assert abs(drawn.mean() - mean) < 5 * np.sqrt(variance / n)
    spread = variance * np.sqrt((1 / (p * (1 - p)) - 4) / n)
    assert abs(drawn.var() - variance) < 5 * spread
    assert len(np.unique(drawn)) == 2
