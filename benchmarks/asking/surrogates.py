"""The loss with which sparse autoencoders are trained to a target.

    coef (s / target - 1)^2

s is the number of active units, whose step function has a stand-in for its gradient
(Rajamanoharan et al. 2024, "Jumping Ahead: Improving Reconstruction Fidelity with
JumpReLU Sparse Autoencoders", https://arxiv.org/abs/2407.14435). Where no unit is 0,
s is Hoyer's sparsity, which has a gradient of its own.
"""

import keras
import tensorflow as tf
from keras import ops

# As public code for sparse autoencoders has them.
COEF, BANDWIDTH, FIRST_THRESHOLD = 1.0, 0.05, 0.01


@tf.custom_gradient
def _active(x, threshold):
    """1 where x > threshold, with the gradient of a ramp that is BANDWIDTH wide."""

    def backward(upstream):
        near = tf.cast(tf.abs(x - threshold) < BANDWIDTH / 2, x.dtype)
        of_x = upstream * near / BANDWIDTH
        others = range(len(x.shape) - 1)
        return of_x, -tf.reduce_sum(of_x, [*others])

    return tf.cast(x > threshold, x.dtype), backward


class JumpReLU(keras.layers.Layer):
    """Passes what is above a threshold that each unit learns, and asks for zeros.

    The gradient of the loss passes to the threshold, and to the activations too.

    Args:
        target: Share of zeros.
        **kwargs: As for every Keras layer.
    """

    def __init__(self, target: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.target = target

    def build(self, input_shape):
        self.log_threshold = self.add_weight(
            shape=input_shape[-1:],
            initializer=keras.initializers.Constant(ops.log(FIRST_THRESHOLD)),
            name="log_threshold",
        )

    def call(self, x):
        active = _active(x, ops.cast(ops.exp(self.log_threshold), x.dtype))
        share = ops.mean(ops.cast(active, "float32"))
        self.add_loss(COEF * (share / (1 - self.target) - 1) ** 2)
        return x * active


class HoyerLoss(keras.layers.Layer):
    """Asks for Hoyer's sparsity, and passes its input on.

    Args:
        target: Mean of Hoyer's sparsity.
        **kwargs: As for every Keras layer.
    """

    def __init__(self, target: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.target = target
        self.supports_masking = True

    def call(self, x, mask=None):
        root = ops.sqrt(ops.cast(ops.shape(x)[-1], "float32"))
        total = ops.sum(ops.abs(x), -1)
        length = ops.sqrt(ops.sum(x**2, -1) + 1e-12)
        hoyer = (root - total / length) / (root - 1)
        counted = ops.ones_like(hoyer) if mask is None else ops.cast(mask, hoyer.dtype)
        mean = ops.sum(hoyer * counted) / ops.maximum(ops.sum(counted), 1.0)
        self.add_loss(COEF * (mean / self.target - 1) ** 2)
        return x
