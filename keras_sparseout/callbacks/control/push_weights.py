"""The weights of the layers' penalties, from what their pushes measured.

All is algebra on matrices with a column for each layer, so that one compiled program
does it for all of them.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sparseout.utils.types import Tensor

# What a push measures in a step: 1, the norms of the gradients of the loss and of the
# penalty, and the number of units.
PARTS = 4
# How much of the measured norms stays from one batch to the next.
_MEMORY = 0.98
# The push of a penalty, in parts of the push of the loss, is linear in the output up to
# about here, and exponential above.
_SMALL_PUSH = 0.01


def to_output(push: float) -> float:
    """Returns the output of the law for a push, in parts of the loss's own."""
    return float(np.arcsinh(push / _SMALL_PUSH))


def to_push(outputs: np.ndarray) -> np.ndarray:
    """Returns the pushes for outputs of the law."""
    return _SMALL_PUSH * np.sinh(outputs)


def averaged(norms: Tensor, measured: Tensor) -> Tensor:
    """Returns the moving sums after a step.

    Args:
        norms: The moving sums before, of shape (PARTS, layers). The first part divides
            the others.
        measured: The sums over the calls of each layer in the step.
    """
    calls = measured[:1]
    kept = ops.power(_MEMORY, calls)
    moved = kept * norms + (1 - kept) * measured / ops.maximum(calls, 1.0)
    # A step whose scaled loss overflows is skipped by the optimizer too.
    finite = ops.all(ops.isfinite(measured), axis=0, keepdims=True)
    return ops.where(finite, moved, norms)


def weights(xp: Any, outputs: Any, norms: Any, shares: Any, members: Any) -> Any:
    """Returns the weights of the layers' penalties, so that they push as asked.

    In a group the penalties of the layers have fixed proportions. Together they push so
    many times as hard as the loss does.

    Args:
        xp: What computes it, keras.ops or numpy.
        outputs: The output of each group.
        norms: The moving sums, of shape (PARTS, layers).
        shares: What each layer's zeros save, 0 for layers that are not to be pushed.
        members: 1 where a layer is in a group, of shape (groups, layers).
    """
    count, loss, pushing, units = (norms[part] for part in range(PARTS))
    # A penalty of n units is up to n.
    units = units / xp.maximum(count, keras.config.epsilon())
    proportions = shares / xp.maximum(units, 1.0)
    pushing = dot(xp, members, proportions * pushing)
    ratios = dot(xp, members, loss) / (pushing + 1e-30)
    of_groups = _SMALL_PUSH * xp.sinh(outputs) * ratios
    return proportions * dot(xp, xp.transpose(members), of_groups)


def dot(xp: Any, matrix: Any, vector: Any) -> Any:
    """Returns the product of a matrix and a vector."""
    return xp.matmul(matrix, vector[:, None])[:, 0]
