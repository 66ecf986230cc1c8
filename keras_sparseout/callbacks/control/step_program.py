"""What a step of control computes, in one compiled program for all layers."""

import functools
from collections.abc import Callable

from keras import ops

from keras_sparseout.backend import compiling, tracing
from keras_sparseout.callbacks.control import push_weights, step_law
from keras_sparseout.callbacks.control.push_weights import dot
from keras_sparseout.callbacks.control.step_law import Law, Plan, State
from keras_sparseout.utils.types import Tensor

# Matrices in, matrices out.
Program = Callable[..., list[Tensor]]


@functools.lru_cache(maxsize=32)
def program(law: Law) -> Program:
    """Returns the function of a step.

    It takes the figures, which of them are in which group, the state of the law and
    the plan. It returns the next state. For penalties it also takes which layers are in
    which group, the moving norms, what the step measured, and the layers' shares, see
    `push_weights`. Then it also returns the next norms and weights.

    It is compiled where that can be. To start some 150 operations on a few numbers
    would take a good part of a millisecond each batch.
    """

    def step(figures, counted, state, plan, *pushed):
        numbers = State(*ops.unstack(state)), Plan(*ops.unstack(plan))
        new = step_law.step(law, *numbers, _means(figures, counted))
        if not pushed:
            return [ops.stack(new)]
        members, norms, measured, shares = pushed
        norms = push_weights.averaged(norms, measured)
        told = new.output, norms, shares[0], members
        weights = push_weights.weights(ops, *told)
        return [ops.stack(new), norms, weights[None]]

    compiled = compiling.compiled(step)

    def call(*matrices):
        is_traced = tracing.current_graph() is not None
        compiles = is_traced and not compiling.on_apple_gpu()
        return (compiled if compiles else step)(*matrices)

    return call


def _means(figures, counted):
    """Returns the figure of each group: the mean of those that are finite."""
    known = ops.isfinite(figures)
    number = dot(ops, counted, ops.cast(known, figures.dtype))
    mean = dot(ops, counted, ops.where(known, figures, 0.0)) / number
    return ops.where(number > 0, mean, float("nan"))
