"""The message of a check: the argument, the rule, the value and the remedy."""

import difflib
from collections.abc import Iterable


def value_error(name: str, value: object, rule: str, remedy: str) -> ValueError:
    """Makes the error for an argument that is not what it must be.

    Args:
        name: Name of the argument.
        value: What was given.
        rule: What it must be, such as "a finite number >= 0".
        remedy: What to do instead, a sentence.

    Example:

    >>> print(value_error("steps", 0, "an integer >= 1", "Give for example steps=9."))
    `steps` must be an integer >= 1. Received: steps=0. Give for example steps=9.
    """
    return ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}. {remedy}")


def did_you_mean(
    value: object,
    known: Iterable[str],
    otherwise: str,
    *,
    cutoff: float = 0.6,
    written: str = "{!r}",
) -> str:
    """Returns the remedy for a name that is not known.

    Args:
        value: What was given.
        known: The names that would have been right.
        otherwise: The remedy if none of them is near.
        cutoff: How alike the nearest must be, from 0 to 1.
        written: How a name is written, as a format string.

    Example:

    >>> did_you_mean("hoyr", ["gini", "hoyer"], "Give one of these.")
    "Did you mean 'hoyer'?"
    """
    near = difflib.get_close_matches(str(value), list(known), n=1, cutoff=cutoff)
    return f"Did you mean {written.format(near[0])}?" if near else otherwise


def some_of(names: Iterable[str], near: object = "", most: int = 8) -> str:
    """Lists up to `most` of `names` in a sentence, those like `near` first.

    Example:

    >>> some_of(["conv", "pool", "dense"], near="dens", most=2)
    'dense, conv and 1 more'
    """
    names = list(names)
    first = difflib.get_close_matches(str(near), names, n=most, cutoff=0.3)
    shown = list(dict.fromkeys([*first, *names]))
    rest = len(shown) - most
    text = ", ".join(shown[:most]) or "(none)"
    return f"{text} and {rest} more" if rest > 0 else text
