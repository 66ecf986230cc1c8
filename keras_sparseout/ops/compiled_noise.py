"""Drawn noise as programs compiled with XLA, also in models that are not compiled.

A program reads its input once and writes its result once: it computes the mask, the
multiplier and the product element by element. The gradient's program computes the mask
again, so nothing is kept for it but x, and for q = 2 not even that.

One program serves all rates, and all exponents but those that come down to roots: a
power takes longer. Each shape has programs of its own. If layers of several ranks
shared one, TensorFlow would trace it for an unknown rank.

The programs are kept at module level. If a layer kept them, tf.saved_model.save would
export them with it. A program that the cache drops lives on in the graphs that call it.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_sparseout.backend import compiling, powers
from keras_sparseout.ops import masks, noise, targeting
from keras_sparseout.ops.multiplier import is_cheap, multiplier, times_n
from keras_sparseout.utils.types import Shape, Tensor


def draw_and_perturb(
    x: Tensor,
    rate: float | Tensor,
    q: float | Tensor,
    seed: Tensor,
    shape: Shape,
    usual_q: float | None = None,
    rows: masks.Rows | None = None,
    target_fraction: float = 1.0,
    **settings: Any,
) -> Tensor:
    """`noise.draw_and_perturb` as one compiled call, with the same masks.

    Args:
        x: Floating-point tensor.
        rate: A float in [0, 1], or a scalar float32 tensor.
        q: A float >= 0, or a scalar float32 tensor.
        seed: Integer tensor of shape (2,), from `masks.seed_pair`.
        shape: The shape of `x`, with None for a size that changes.
        usual_q: A value that a `q` in a tensor has most of the time, if there is one.
        rows: As in `noise.draw_and_perturb`.
        target_fraction: As in `noise.draw_and_perturb`.
        **settings: `noise_shape`, `epsilon` and `stop_gradient`.
    """
    if target_fraction == 0 or masks.drops_nothing(rate):
        return x
    usual = None
    # On a GPU a power takes no longer, and a branch has to wait for its condition.
    if not isinstance(q, float) and is_cheap(usual_q) and not compiling.on_gpu():
        usual = usual_q
    table, others = _table_and_numbers(rows)
    is_targeted = target_fraction < 1
    if is_targeted:
        noise_shape = settings["noise_shape"]
        program = _limiting_program(shape, target_fraction, noise_shape)
        # Without a gradient that TensorFlow would trace.
        others = (program(ops.stop_gradient(x)),)
    program = _perturbing_program(
        *(shape, _constant(q), usual), table=table, is_targeted=is_targeted, **settings
    )
    return program(x, *noise.threshold_and_q(rate, q), seed, *others)


def draw_multiplier(
    x: Tensor,
    rate: float | Tensor,
    q: float | Tensor,
    seed: Tensor,
    shape: Shape,
    rows: masks.Rows | None = None,
    **settings: Any,
) -> Tensor:
    """The n of `draw_and_perturb` as one compiled call, a constant for gradients.

    The caller multiplies `x` by it. Neither this product nor its gradient is saturated.

    Args:
        **settings: `noise_shape` and `epsilon`. The other arguments are as in
            `draw_and_perturb`.

    Returns:
        Tensor of a shape that broadcasts to `x`.
    """
    table, numbers = _table_and_numbers(rows)
    program = _multiplying_program(shape, _constant(q), table=table, **settings)
    return program(x, *noise.threshold_and_q(rate, q), seed, *numbers)


def _table_and_numbers(rows):
    return (None, ()) if rows is None else (rows.shape, (rows.numbers,))


def _constant(q: float | Tensor) -> float | None:
    """Returns `q` if its program has it as a constant, None if as an argument."""
    return q if is_cheap(q) else None


@compiling.cached
def _limiting_program(
    shape: Shape, target_fraction: float, noise_shape: Shape | None
) -> Callable[[Tensor], Tensor]:
    """Returns the program for `targeting.limits`, which the gradient uses again."""

    def limits(x):
        return targeting.limits(x, target_fraction, noise_shape)

    return compiling.constant_program(limits)


@compiling.cached
def _multiplying_program(
    shape: Shape,
    constant: float | None,
    *,
    epsilon: float,
    **where: Any,
) -> Callable[..., Tensor]:
    draw = masks.drawing(**where, at_once=True)

    def draw_multiplier(x, threshold, q, *seeds):
        q = q if constant is None else constant
        x, keep, keep_prob = draw(ops.stop_gradient(x), threshold, *seeds)
        power = powers.fused_power
        return multiplier(x, keep, keep_prob, q, epsilon, power=power)

    return compiling.constant_program(draw_multiplier)


@compiling.cached
def _perturbing_program(
    shape: Shape,
    constant: float | None,
    usual: float | None,
    *,
    stop_gradient: bool,
    is_targeted: bool = False,
    **settings: Any,
) -> Callable[..., Tensor]:
    """Returns the program for the exponent `constant`, or if None, for all of them.

    With `usual` it has a faster way for this exponent. If it is targeted, its last
    argument is a limit as in `multiplier.times_n`.
    """

    def program(slope):
        general = _product_program(shape, constant, slope, is_targeted, **settings)
        if usual is None:
            return general
        fast = _product_program(shape, usual, slope, is_targeted, **settings)
        return compiling.either(
            lambda v, x, t, q, *_: q == usual, fast, general, with_gradients=2
        )

    # With the multiplier held, both are products with it: of x, and of a gradient.
    value, slope = program(False), program(not stop_gradient)

    def gradient(upstream, x, *others):
        x = ops.stop_gradient(x) if stop_gradient else x
        return slope(upstream, x, *others)

    return compiling.with_gradient(
        lambda x, *others: value(x, x, *others),
        gradient,
        keeps_x=constant != 2 or is_targeted,
    )


@compiling.cached
def _product_program(
    shape: Shape,
    constant: float | None,
    slope: bool,
    is_targeted: bool,
    *,
    epsilon: float,
    **where: Any,
) -> Callable[..., Tensor]:
    """Returns the program for v n of v and x, or with `slope` for v times d(x n)/dx."""
    draw = masks.drawing(**where, at_once=True)

    def product(v, x, threshold, q, *others):
        q = q if constant is None else constant
        seeds, limit = (others[:-1], others[-1]) if is_targeted else (others, None)
        v, keep, keep_prob = draw(v, threshold, *seeds)
        return times_n(
            *(v, x, keep, keep_prob, q),
            limit=limit,
            epsilon=epsilon,
            slope=slope,
            power=powers.fused_power,
        )

    return compiling.compiled(product)
