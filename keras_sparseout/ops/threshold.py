"""What a threshold makes of activations: zeros where they are small."""

from keras import ops

from keras_sparseout.utils.types import Tensor


def threshold(
    x: Tensor,
    t: Tensor,
    centre: Tensor | None = None,
    *,
    add_back: bool = True,
    soft: bool = False,
    straight_through: bool = False,
) -> Tensor:
    """Cuts what is within `t` of 0, or of `centre`.

        y = x     where |x| > t    (soft: x - t sign(x))
        y = 0     where |x| <= t

    With a centre c it stands for x - c, and c is added back afterwards, unless
    `add_back` is False. A NaN passes on: as a zero it would hide that a model diverges.

    Args:
        x: Floating-point tensor.
        t: Thresholds >= 0, which broadcast to `x`.
        centre: Values that broadcast to `x`, or None for 0.
        add_back: Whether what is cut becomes c, not 0, and what is kept is x, not
            x - c.
        soft: Whether what is kept shrinks by t, so that y is continuous in x.
        straight_through: Whether the gradient passes where x is cut, too.

    Returns:
        Tensor like `x`.

    Example:

    >>> x = np.array([-3.0, -1.0, 0.5, 2.0], "float32")
    >>> threshold(x, 1.0).numpy().tolist()
    [-3.0, 0.0, 0.0, 2.0]
    >>> threshold(x, 1.0, soft=True).numpy().tolist()
    [-2.0, 0.0, 0.0, 1.0]
    """
    x = ops.convert_to_tensor(x)
    # In the precision of x, so that what is cut is what is counted.
    t = ops.cast(t, x.dtype)
    if centre is not None:
        centre = ops.cast(centre, x.dtype)
    distance = x if centre is None else x - centre
    is_cut = ops.abs(distance) <= t
    kept = x if add_back else distance
    if soft:
        kept = kept - ops.sign(distance) * t
    cut = ops.zeros((), x.dtype) if centre is None or not add_back else centre
    if straight_through:
        # Exact, and its derivative is 1.
        cut = cut + (x - ops.stop_gradient(x))
    return ops.where(is_cut, cut, kept)
