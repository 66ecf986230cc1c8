"""Checks of arguments, so that one rule gives one message everywhere."""

import difflib
import inspect
import math
import numbers

import keras
import tensorflow as tf

# Below this a float32 intermediate is a denormal, which XLA and most GPUs flush to 0.
SMALLEST_EPSILON = 1e-30
# What layers of Keras 2 took, and those of Keras 3 don't.
_LEGACY = {
    *("batch_input_shape", "batch_shape", "batch_size"),
    *("input_dtype", "input_length", "input_tensor"),
}
# From here on a number is infinite in float32.
_INFINITE = (2 - 2**-24) * 2.0**127


def check_rate(rate):
    """Returns `rate` as a float; raises unless it is a number in [0, 1]."""
    meaning = ", the fraction of units to drop"
    return _check_drop_rate("rate", rate, meaning, "Give for example rate=0.5.")


def check_q(q):
    """Returns `q` as a float; raises unless it is a finite number >= 0."""
    if isinstance(q, (tuple, list)):
        raise ValueError(
            "`q` must be a finite number >= 0; it stands where keras.layers.Dropout "
            f"has `noise_shape`. Received: q={q!r}. Pass noise_shape={q!r} by name."
        )
    if is_real(q) and _INFINITE <= q < math.inf:
        raise ValueError(
            "`q` must be at most 3.4e38, the largest number of float32, in which it is "
            f"computed. Received: q={q!r}. Give a smaller one, such as q=4."
        )
    if not is_real(q) or not math.isfinite(q) or q < 0:
        raise ValueError(
            f"`q` must be a finite number >= 0. Received: q={q!r}. "
            + for_number(
                "q",
                q,
                "Give q=2 for Dropout, less for sparser activations, more for denser "
                "ones.",
            )
        )
    return float(q)


def check_weight(weight):
    """Returns `weight` as a float; raises unless it is a finite number >= 0."""
    meaning = "what the penalty is multiplied by"
    return _check_size("weight", weight, meaning, "Give for example weight=1e-3.")


def check_c(c):
    """Returns `c` of Shakeout as a float; raises unless it is a finite number >= 0."""
    otherwise = "Give c=0 for Dropout of the layer's inputs."
    return _check_size("c", c, "what a dropped weight is left with", otherwise)


def _check_size(name, value, meaning, otherwise):
    if not is_real(value) or not math.isfinite(value) or value < 0:
        raise ValueError(
            f"`{name}` must be a finite number >= 0, {meaning}. Received: "
            f"{name}={value!r}. {for_number(name, value, otherwise)}"
        )
    return float(value)


def check_recurrent_rate(rate):
    """Returns `rate` as a float; raises unless it is a number in [0, 1]."""
    otherwise = "Leave it out for the default."
    return _check_drop_rate("recurrent_rate", rate, "", otherwise)


def _check_drop_rate(name, rate, meaning, otherwise):
    if not is_real(rate) or not 0 <= rate <= 1:
        raise ValueError(
            f"`{name}` must be a number between 0 and 1{meaning}. Received: "
            f"{name}={rate!r}. {for_number(name, rate, otherwise)}"
        )
    return float(rate)


def for_number(name, value, otherwise):
    """Returns the remedy for a `value` that is not the number that it should be.

    Args:
        name: Name of the knob.
        value: What was given.
        otherwise: The remedy, unless it is a variable or tensor.
    """
    if isinstance(value, keras.KerasTensor) or keras.ops.is_tensor(value):
        return (
            "Give its value as a number. To change it while training, make the layer "
            f"with adjustable=True and assign numbers to layer.{name}."
        )
    return otherwise


def check_epsilon(epsilon):
    """Returns `epsilon` as a float, `keras.config.epsilon()` for None."""
    if epsilon is None:
        epsilon = keras.config.epsilon()
    if not is_real(epsilon) or not math.isfinite(epsilon) or epsilon < SMALLEST_EPSILON:
        raise ValueError(
            f"`epsilon` must be a finite number >= {SMALLEST_EPSILON:g}: a smaller one "
            f"is flushed to 0 in float32. Received: epsilon={epsilon!r}. Leave it None "
            "for keras.config.epsilon(), or give 1e-12 as the authors' release does."
        )
    return float(epsilon)


def check_seed(seed):
    """Returns `seed` as an int, or None for a random one."""
    if seed is None:
        return None
    if (
        isinstance(seed, bool)
        or not isinstance(seed, numbers.Integral)
        or not -(2**63) <= seed < 2**63
    ):
        raise ValueError(
            "`seed` must be an integer of at most 64 bits, or None. Received: "
            f"seed={seed!r}. Give for example seed=42, or None for a random seed."
        )
    return int(seed)


def check_noise_shape(noise_shape):
    """Returns `noise_shape` as a tuple of positive ints and None, or None."""
    if noise_shape is None:
        return None
    if not isinstance(noise_shape, (tuple, list)) or not all(
        dim is None
        or (isinstance(dim, numbers.Integral) and not isinstance(dim, bool) and dim > 0)
        for dim in noise_shape
    ):
        raise ValueError(
            "`noise_shape` must be a tuple of positive integers and None, where None "
            "takes the dimension of the input. "
            f"Received: noise_shape={noise_shape!r}. Give for example "
            "noise_shape=(None, 1, None) for one draw a sequence and unit."
        )
    return tuple(None if dim is None else int(dim) for dim in noise_shape)


def check_noise_shape_fits(noise_shape, shape):
    """Raises unless a mask of `noise_shape` broadcasts to an input of `shape`."""
    if not noise_shape_fits(noise_shape, shape):
        raise ValueError(
            "`noise_shape` must have one entry for each dimension of the input, each "
            "of them None, 1 or the size of that dimension. "
            f"Received: noise_shape={noise_shape!r} for an input of shape "
            f"{tuple(shape)}. Give None where each element has its own draw and 1 "
            "where all share one."
        )


def noise_shape_fits(noise_shape, shape):
    """Whether a mask of `noise_shape`, or None, broadcasts to `shape`."""
    return noise_shape is None or (
        len(noise_shape) == len(shape)
        and all(
            noise in (None, 1) or dim is None or noise == dim
            for noise, dim in zip(noise_shape, shape, strict=True)
        )
    )


def check_floating(x_dtype, name="x"):
    """Raises unless `x_dtype` is a real floating-point type."""
    dtype = keras.backend.standardize_dtype(x_dtype)
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(
            f"`{name}` must be real floating-point numbers. Received: "
            f"{name}.dtype={dtype}. Convert it first, for example with "
            f'keras.ops.cast({name}, "float32").'
        )
    return dtype


def check_dense(x, name="inputs"):
    """Raises if `x` is a ragged or sparse tensor."""
    if isinstance(x, tf.RaggedTensor) or getattr(x, "ragged", False):
        remedy = f"{name}.to_tensor(), and keras.layers.Masking after it"
        kind = "ragged"
    elif isinstance(x, tf.SparseTensor) or getattr(x, "sparse", False):
        kind, remedy = "sparse", f"tf.sparse.to_dense({name})"
    else:
        return
    raise ValueError(
        f"`{name}` must be a dense tensor. Received: {name} of kind {kind}, of shape "
        f"{tuple(x.shape)}. Make it dense before, with {remedy}."
    )


def shape_of(tensor):
    """Returns the shape of a tensor as a tuple, None where its rank is not known."""
    unknown = getattr(tensor.shape, "rank", 0) is None
    return None if unknown else tuple(tensor.shape)


def check_threshold(threshold):
    """Returns `threshold` as a float; raises unless it is a number >= 0."""
    if not is_real(threshold) or not threshold >= 0:
        raise ValueError(
            "`threshold` must be a number >= 0, what |x| may be at most to count as "
            f"0. Received: threshold={threshold!r}. Leave it out for exact zeros."
        )
    return float(threshold)


def check_powers(p, q):
    """Raises unless `p` and `q` are finite numbers, 0 < p < q."""
    if not is_real(p) or not is_real(q) or not 0 < p < q < math.inf:
        raise ValueError(
            "`p` and `q` must be finite numbers with 0 < p < q. Received: "
            f"p={p!r}, q={q!r}. Leave them out for p=1 and q=2."
        )


def check_bool(name, value):
    """Returns `value`; raises unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be True or False. Received: {name}={value!r}. "
            f"Give {name}=True or {name}=False."
        )
    return value


def check_positive(name, value):
    """Returns `value` as a float; raises unless it is a finite number > 0."""
    if not is_real(value) or not math.isfinite(value) or value <= 0:
        raise ValueError(
            f"`{name}` must be a finite number > 0. Received: {name}={value!r}. Leave "
            "it out for the default."
        )
    return float(value)


def check_share(name, value):
    """Returns `value` as a float; raises unless it is a number in [0, 1]."""
    if not is_real(value) or not 0 <= value <= 1:
        raise ValueError(
            f"`{name}` must be a number between 0 and 1. Received: {name}={value!r}. "
            "Leave it out for the default."
        )
    return float(value)


def check_where(where):
    """Returns `where`; raises unless it is a side of a layer, or None."""
    if where not in (None, "input", "output"):
        raise ValueError(
            '`where` must be "input", "output" or None. Received: '
            f"where={where!r}. Leave it out for the input of Sparseout layers and the "
            "output of all others."
        )
    return where


def check_axis(axis):
    """Returns `axis`; raises unless it is -1 or None."""
    if axis is not None and axis != -1:
        raise ValueError(
            "`axis` must be -1, for vectors of the units at each position, or None, "
            f"for the whole map of a sample. Received: axis={axis!r}. Leave it out for "
            "-1."
        )
    return axis


def check_keywords(name, kwargs, layer):
    """Raises unless `kwargs` are arguments of the layer class `layer`, or of any layer.

    Args:
        name: Name of the class that was called.
        kwargs: Its keyword arguments, a dict.
        layer: The class whose `__init__` takes them.
    """
    known = {
        *inspect.signature(layer.__init__).parameters,
        *inspect.signature(keras.layers.Layer.__init__).parameters,
        # Keras takes them, with a warning that says to use keras.Input.
        "input_shape",
        "input_dim",
    } - {"self", "kwargs"}
    for keyword, value in kwargs.items():
        if keyword in _LEGACY - known:
            raise ValueError(
                f"`{keyword}` is no argument of {name}: it was one in Keras 2. "
                f"Received: {keyword}={value!r}. Leave it out, and begin the model "
                "with keras.Input(shape, batch_size, dtype)."
            )
        if keyword not in known:
            near = difflib.get_close_matches(keyword, known, n=1)
            remedy = f"Did you mean `{near[0]}`?" if near else "Leave it out."
            raise ValueError(
                f"`{keyword}` is no argument of {name}. Received: "
                f"{keyword}={value!r}. {remedy}"
            )


def did_you_mean(value, known, otherwise):
    """Returns the remedy for a name that is not `known`: nearest or `otherwise`."""
    near = difflib.get_close_matches(str(value), known, n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def some_of(names, near="", most=8):
    """Returns up to `most` of `names` as text, those like `near` first."""
    first = difflib.get_close_matches(str(near), names, n=most, cutoff=0.3)
    shown = list(dict.fromkeys([*first, *names]))
    rest = len(shown) - most
    text = ", ".join(shown[:most]) or "(none)"
    return f"{text} and {rest} more" if rest > 0 else text


def is_real(value):
    """Whether `value` is a real number, which a bool is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_count(name, value):
    """Returns `value`; raises unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"`{name}` must be an integer >= 1. Received: {name}={value!r}. Leave it "
            "out for the default."
        )
    return int(value)
