"""Sparseout as a function, on a mask that is given or drawn."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_sparseout.backend import compiling, numerics, tensors, unknown_rank
from keras_sparseout.ops import masks, noise_arguments, targeting
from keras_sparseout.ops.multiplier import is_cheap, saturate, times_n
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor


def sparseout(
    x: Tensor,
    rate: float | Tensor,
    q: float | Tensor = 2.0,
    *,
    mask: Tensor | None = None,
    noise_shape: Sequence[int | None] | None = None,
    seed: int | keras.random.SeedGenerator | Tensor | None = None,
    epsilon: float | None = None,
    stop_gradient: bool = True,
    target_fraction: float = 1.0,
) -> Tensor:
    """Sparseout: Dropout with an exponent q that sets the sparsity of activations.

        xi = keep / (1 - rate) - 1
        n  = 1 + (|x| + epsilon)^((q - 2) / 2) xi
        y  = x n

    so that E[y] = x and Var[y] = |x|^q rate / (1 - rate) (to epsilon). q = 2 is
    Dropout; in training q < 2 makes activations sparser and q > 2 denser. For q != 2 a
    dropped unit is not 0: it becomes x (1 - |x|^((q - 2) / 2)).

    The gradient of y with respect to x is n: the multiplier is held constant, as in the
    authors' release. With q != 2 no loss has this gradient: on the activations it acts
    like an L_q penalty whose coefficient is 2/q times the one that the weights see.
    With `stop_gradient=False` it is the derivative of the formula.

    Products are taken in float32 (float64 for float64 inputs), and both y and the
    gradient saturate at the largest finite number of the dtype. Infinite and NaN inputs
    or upstream gradients pass through unchanged.

    Args:
        x: Tensor of real floating-point numbers, of any shape, even of unknown rank.
        rate: Drop rate in [0, 1], a number or a scalar float32 tensor. Without `mask`
            it is rounded to a multiple of 2^-32.
        q: Exponent of the noise's variance, a number >= 0 that is finite in float32, or
            a scalar float32 tensor.
        mask: Boolean, True where a unit is kept; its shape broadcasts to the shape of
            `x`. Drawn if None.
        noise_shape: Shape of the mask to draw, a tuple with one entry for each
            dimension of `x`: None for its size, or 1 for one draw along it. None: the
            shape of `x`.
        seed: An integer, a `keras.random.SeedGenerator`, an integer tensor of shape
            (2,), or None for Keras' global generator.
        epsilon: Added to |x|, >= 1e-30. It bounds the multiplier where x is near 0: at
            x = 0, n = 1 + epsilon^((q - 2) / 2) xi, for q = 1 up to 3e3 with the
            default, and 1e6 with 1e-12, the value of the authors' release. For q <= 1
            and activations with density at 0 (tanh, LSTM) the variance of n grows
            without bound as epsilon falls. None: `keras.config.epsilon()`.
        stop_gradient: Whether the multiplier is held constant in the gradient.
        target_fraction: Share of the units of each sample that is perturbed, those with
            the smallest |x|, in [0, 1]; see `keras_sparseout.Sparseout`. If `mask` is
            given, 1 in its shape says which elements are one unit. Below 1, `x` has at
            least 2 dimensions, the samples first.

    Returns:
        Tensor of the shape and dtype of `x`.

    Raises:
        ValueError: if an argument is out of range, `noise_shape` or `mask` does not
            broadcast to `x`, `x` is not real floating-point or not dense, or `mask`
            comes together with `noise_shape` or `seed`.
        RuntimeError: if a mask is to be drawn on another backend than TensorFlow.

    Source: Khan & Stavness (2019), "Sparseout: Controlling Sparsity in Deep Networks",
        https://arxiv.org/abs/1904.08050.

    Example:

    >>> x = np.array([4.0, 4.0, 0.25, 0.25], "float32")
    >>> mask = np.array([True, False, True, False])
    >>> np.round(sparseout(x, 0.5, q=1.0, mask=mask), 3).tolist()
    [6.0, 2.0, 0.75, -0.25]
    >>> np.round(sparseout(x, 0.5, q=2.0, mask=mask), 3).tolist()
    [8.0, 0.0, 0.5, 0.0]
    """
    validation.check_dense(x, "x")
    noise_arguments.check_not_symbolic("x", x)
    x = ops.convert_to_tensor(x)
    validation.check_floating(x.dtype)
    x = tensors.value_of(x)
    rate = noise_arguments.check_number("rate", rate, validation.check_rate)
    if ops.is_tensor(rate):
        rate = ops.cast(rate, "float32")
    q = noise_arguments.check_number("q", q, validation.check_q)
    if ops.is_tensor(q):
        q = tensors.value_of(q)
    settings: dict[str, Any] = {
        "epsilon": validation.check_epsilon(epsilon),
        "stop_gradient": validation.check_bool("stop_gradient", stop_gradient),
    }
    target_fraction = validation.check_target_fraction(target_fraction)
    noise_shape = validation.check_noise_shape(noise_shape)
    if mask is not None:
        if noise_shape is not None or seed is not None:
            raise ValueError(
                "`mask` must come without `noise_shape` and `seed`, which are for "
                f"drawing one. Received: noise_shape={noise_shape!r}, seed={seed!r}. "
                "Leave out either `mask` or both of them."
            )
        noise_arguments.check_not_symbolic("mask", mask)
        mask = ops.convert_to_tensor(mask)
        return _on_mask(x, mask, 1 - rate, q, target_fraction, settings)
    if noise_shape is not None and validation.shape_of(x) is None:
        x = tensors.ensure_shape(x, [None] * len(noise_shape))
    shape = validation.shape_of(x)
    validation.check_has_units(target_fraction, shape, "x")
    settings.update(noise_shape=noise_shape, target_fraction=target_fraction)
    pair = masks.seed_pair(noise_arguments.check_seed(seed))
    if shape is None:
        return unknown_rank.call_flat(
            lambda x: draw_and_perturb(x, rate, q, pair, **settings), x
        )
    validation.check_noise_shape_fits(noise_shape, shape)
    return draw_and_perturb(x, rate, q, pair, **settings)


def _on_mask(x, mask, keep_prob, q, target_fraction, settings):
    """Computes `sparseout` on a mask that is given."""
    noise_arguments.check_boolean(mask)
    mask = tensors.value_of(mask)
    validation.check_has_units(target_fraction, validation.shape_of(x), "x")
    if validation.shape_of(mask) is None:
        validation.check_has_units(target_fraction, None, "mask")
    elif validation.shape_of(x) is not None:
        mask_shape = noise_arguments.shape_of_mask(mask, x)
        _, x = masks.resolve(mask_shape, x)
        limit = None
        if target_fraction < 1:
            with numerics.unchecked():
                limit = targeting.limits(x, target_fraction, mask_shape)
        return perturb(x, mask, keep_prob, q, limit=limit, **settings)
    return unknown_rank.call_flat(
        lambda x, mask: perturb(x, mask, keep_prob, q, **settings), x, mask
    )


def draw_and_perturb(
    x: Tensor,
    rate: float | Tensor,
    q: float | Tensor,
    seed: Tensor,
    *,
    noise_shape: Shape | None,
    epsilon: float,
    stop_gradient: bool,
    rows: masks.Rows | None = None,
    target_fraction: float = 1.0,
) -> Tensor:
    """`sparseout` on a drawn mask, with arguments that are checked.

    Args:
        seed: Integer tensor of shape (2,), from `masks.seed_pair`.
        rows: If `x` was looked up in a table: which rows, so that their mask is a part
            of the table's. Then `noise_shape` does not count. The other arguments are
            as in `sparseout`.
    """
    if target_fraction == 0 or masks.drops_nothing(rate):
        return x
    x = ops.convert_to_tensor(x)
    is_large, is_small = compiling.is_large(x.shape), compiling.is_small(x.shape)
    # As a constant it saves passes over a large tensor.
    is_constant = isinstance(q, float) and (is_large or is_cheap(q))
    function = _perturbing_function(
        (len(x.shape), keras.backend.standardize_dtype(x.dtype)),
        q if is_constant else None,
        is_large=is_large,
        is_small=is_small,
        is_one_block=is_small and None not in x.shape,
        table=None if rows is None else rows.shape,
        rank_of_numbers=None if rows is None else len(rows.numbers.shape),
        noise_shape=noise_shape,
        target_fraction=target_fraction,
        epsilon=epsilon,
        stop_gradient=stop_gradient,
    )
    threshold, q = threshold_and_q(rate, q)
    numbers = () if rows is None else (ops.cast(rows.numbers, "int64"),)
    y = function(x, threshold, ops.cast(q, "float64"), seed, *numbers)
    return tensors.with_static_shape(y, x.shape)


@compiling.cached
def _perturbing_function(
    kind: tuple[int, str],
    constant: float | None,
    *,
    is_large: bool,
    is_small: bool,
    is_one_block: bool,
    table: tuple[int, int] | None,
    rank_of_numbers: int | None,
    noise_shape: Shape | None,
    target_fraction: float,
    **settings: Any,
) -> Callable[..., Tensor]:
    """Returns the function for tensors of a rank and dtype, and of all shapes.

    TensorFlow keeps each graph in which a gradient is defined until the process ends.
    Without this function that would be the graph of each model.

    Args:
        kind: Rank and dtype of x.
        constant: The exponent, or None for a function of it.
        is_large: As in `perturb`.
        is_small: Whether branches take longer than passes over the elements.
        is_one_block: As in `backend.random.bits_at_least`.
        table: Shape of the table in which x was looked up, if it was.
        rank_of_numbers: Rank of the numbers of the rows, if there are.
        noise_shape: As in `sparseout`.
        target_fraction: As in `sparseout`.
        **settings: `epsilon` and `stop_gradient`.
    """
    draw = masks.drawing(
        noise_shape, table, at_once=is_small, is_one_block=is_one_block
    )

    def draw_and_perturb(x, threshold, q, *seeds):
        q = q if constant is None else constant
        limit = None
        if target_fraction < 1:
            limit = targeting.limits(x, target_fraction, noise_shape)
        noise = draw(x, threshold, *seeds)
        return perturb(*noise, q, limit=limit, is_large=is_large, **settings)

    rank, dtype = kind
    kinds = [([None] * rank, dtype), ((), "int64"), ((), "float64"), ((2,), "int64")]
    if rank_of_numbers is not None:
        kinds.append(([None] * rank_of_numbers, "int64"))
    return compiling.traced_once(draw_and_perturb, kinds)


def threshold_and_q(rate: float | Tensor, q: float | Tensor) -> tuple[Tensor, Tensor]:
    """Returns the threshold of the masks in int64, and `q`, as tensors."""
    threshold, _ = masks.quantise(rate)
    if isinstance(threshold, int):
        threshold = tensors.scalar(threshold, "int64")
    if isinstance(q, float):
        # In float64, so that the exponent is rounded as a constant exponent is.
        q = tensors.scalar(q, "float64")
    return threshold, q


def perturb(
    x: Tensor,
    keep: Tensor,
    keep_prob: float | Tensor,
    q: float | Tensor,
    *,
    epsilon: float,
    stop_gradient: bool,
    limit: Tensor | None = None,
    is_large: bool | None = None,
) -> Tensor:
    """Computes x n on the mask `keep`.

    Args:
        x: Floating-point tensor.
        keep: Boolean tensor that broadcasts to `x`.
        keep_prob: The probability of True in `keep`, a float in [0, 1], or a scalar
            float32 tensor.
        q: A float >= 0, or a scalar tensor of float32 or float64.
        epsilon: As in `sparseout`.
        stop_gradient: As in `sparseout`.
        limit: As in `times_n`.
        is_large: Whether passes over the elements take longer than a branch does. None:
            by the shape of `x`.

    Returns:
        Tensor of the shape and dtype of `x`, with the gradient that `sparseout`
        documents.
    """
    noise = (keep, keep_prob, q)
    if is_large is None:
        is_large = compiling.is_large(x.shape)
    # A GPU would wait for the condition.
    branches = is_large and compiling.has_branches()
    finish = _saturate_if_needed if branches else saturate
    settings: dict[str, Any] = {"epsilon": epsilon, "limit": limit, "finish": finish}
    slope = not stop_gradient

    # Spelled out, since the gradient's product has to be taken, and saturated, in a
    # wide dtype; an automatic gradient would multiply in float16. It keeps x and a mask
    # of one byte an element, not n: less memory, and no slower.
    @ops.custom_gradient
    def apply(x):
        # Held in the value too, for forward-mode derivatives.
        held = ops.stop_gradient(x) if stop_gradient else x

        def grad(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            with numerics.unchecked():
                return times_n(upstream, held, *noise, slope=slope, **settings)

        return times_n(x, held, *noise, **settings), grad

    with numerics.unchecked():
        return apply(x)


def _saturate_if_needed(product, v, dtype):
    """`saturate` that reads its arguments once where all of the product is finite."""
    call = compiling.either(
        lambda product, v: ops.all(ops.isfinite(ops.cast(product, dtype))),
        lambda product, v: ops.cast(product, dtype),
        lambda product, v: saturate(product, v, dtype),
        with_gradients=2,
    )
    return call(product, v)
