"""The tables of the study `theory`."""

from collections.abc import Iterable, Mapping
from typing import Any

from studies.parts.theory.mask_enumeration import FAMILIES
from studies.tables import MISSING, markdown

# What is asked of the study.
LARGEST_ERROR = 1e-6
LARGEST_DEVIATION = 0.01
_COEFFICIENTS = ("through", "held", "through_weights", "held_weights")


def tables(done: Mapping[Any, dict]) -> str:
    """Returns all tables, with a sentence or two before each."""
    parts = [
        _verdicts(done),
        "### The loss\n",
        "What noise adds to the mean loss, divided by the penalty of the formula: the "
        "smallest and the largest at any q and seed. The largest difference of the two "
        "is that at whole weights. Its order says how it falls with the weights: with "
        "order 3 half the weights have an eighth of it. The penalty has order 2.\n",
        _loss(done),
        "The same while the rate p falls, at whole weights. The penalty has order 1 in "
        "p.\n",
        _falling_rates(done),
        "### The gradients\n",
        "What noise adds to the mean gradients, in multiples of p / (1 - p) A'' w² "
        "|a|^(q - 1) sign(a) for the activations, and of the penalty's gradient for "
        "the weights: the smallest and the largest of all models, rates and seeds, at "
        "weights of 1/1024 of the whole ones.\n",
        _gradients(done),
        "The largest deviation from q / 2, 1, 1 and 1, as a part of them, at any q, "
        "rate and seed, for several sizes of the weights:\n",
        _deviations(done),
        "### Whether there is a loss\n",
        "How the mean gradients of an activation and its weight change with each "
        "other, as a difference, in multiples of p / (1 - p) A'' w |a|^(q - 1) "
        "sign(a), at 1/1024 of the weights. For the gradients of a loss it is 0. "
        "Beside it the largest norm of J - J^T divided by that of J, the Jacobian of "
        "the mean gradients in activations and weights together, at whole weights.\n",
        _symmetry(done),
        "### What the penalty does to features, in the Gaussian model\n",
        "The largest mean gradient at the weights of the ridge regression, as a part "
        "of that at weights of 0. The smallest of these weights, as a part of the "
        "largest. What noise adds when all features are doubled and all weights "
        "halved, divided by what it adds without. The part of the pull on the features "
        "that BatchNorm takes away, in squared norm. Where two numbers stand, they are "
        "the smallest and the largest of the seeds.\n",
        _features(done),
    ]
    return "\n".join(parts)


def records(done: Mapping[Any, dict], part: str, **wanted: Any) -> list[dict]:
    """Returns the records of a part of the figures that have the wanted values."""
    family = wanted.pop("family", None)
    return [
        record
        for settings, figures in done.items()
        if family in (None, settings.family)
        for record in figures.get(part, ())
        if all(record[key] == value for key, value in wanted.items())
    ]


def all_of(done: Mapping[Any, dict], part: str, key: str) -> list[float]:
    """Returns the values of a key that the records of a part have, in order."""
    return sorted({record[key] for record in records(done, part)})


def span(values: Iterable[float | None], digits: int) -> str:
    """Returns the smallest and the largest value, or one where they look alike."""
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    # Adding 0 turns -0 into 0.
    low, high = (f"{round(v, digits) + 0:.{digits}f}" for v in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"


def at_most(values: Iterable[float]) -> str:
    """Returns the largest value, as a power of ten where it is small."""
    known = list(values)
    if not known:
        return MISSING
    return f"{max(known):.0e}" if max(known) < 1e-3 else f"{max(known):.3f}"


def _error(loss):
    return abs(loss["added"] - loss["formula"])


def _ratio(loss):
    return loss["added"] / loss["formula"]


def deviations(done: Mapping[Any, dict], size: int, **wanted: Any) -> list[float]:
    """Returns how far each coefficient is from theory, as a part of it.

    Args:
        done: Figures of the runs.
        size: Number of the size of the weights.
        **wanted: As in `records`.
    """
    found = []
    for record in records(done, "noise", **wanted):
        measured = record["gradients"][size]
        theory = {"through": record["q"] / 2}
        found += [abs(measured[key] / theory.get(key, 1) - 1) for key in _COEFFICIENTS]
    return found


def _met(values, limit):
    if not values:
        return MISSING
    return "met" if max(values) <= limit else "**not met**"


def _verdicts(done):
    gaussian = records(done, "noise", family="Gaussian")
    errors = [_error(loss) for record in gaussian for loss in record["loss"]]
    off = deviations(done, -1)
    rows = [
        (
            "Gaussian model: mean loss and formula differ",
            at_most(errors),
            f"{LARGEST_ERROR:.0e}",
            _met(errors, LARGEST_ERROR),
        ),
        (
            "gradients: coefficients differ from q / 2, 1, 1 and 1, as a part of them",
            at_most(off),
            f"{LARGEST_DEVIATION:g}",
            _met(off, LARGEST_DEVIATION),
        ),
    ]
    return markdown(("", "at most", "wanted", ""), rows)


def _loss(done):
    rows = []
    for family in FAMILIES:
        for rate in all_of(done, "noise", "rate"):
            found = records(done, "noise", family=family, rate=rate)
            whole, quarter = ([r["loss"][k] for r in found] for k in (0, 2))
            rows.append(
                (
                    *(family, f"{rate:g}"),
                    span(map(_ratio, whole), 2),
                    span(map(_ratio, quarter), 3),
                    at_most(map(_error, whole)),
                    _order(found),
                )
            )
    header = ("model", "p", "whole weights", "1/4", "difference", "order")
    return markdown(header, rows)


def _order(found):
    """The orders of errors, or that there is no error to have one."""
    if found and all(record["order"] is None for record in found):
        return "exact"
    return span((record["order"] for record in found), 2)


def _falling_rates(done):
    rows = []
    for family in FAMILIES:
        found = records(done, "falling_rate", family=family)
        at = [span((_ratio(r["loss"][k]) for r in found), 2) for k in (0, 3, 6, -1)]
        rows.append((family, *at, _order(found)))
    header = ("model", "p = 1/2", "1/16", "1/128", "1/16384", "order")
    return markdown(header, rows)


def _gradients(done):
    rows = []
    for q in all_of(done, "noise", "q"):
        small = [record["gradients"][-1] for record in records(done, "noise", q=q)]
        spans = (span((each[key] for each in small), 3) for key in _COEFFICIENTS)
        rows.append((f"{q:g}", f"{q / 2:g}", *spans))
    header = ("q", "q / 2", "through", "held", "through, weights", "held, weights")
    return markdown(header, rows)


def _deviations(done):
    rows = [
        (family, *(at_most(deviations(done, k, family=family)) for k in range(4)))
        for family in FAMILIES
    ]
    return markdown(("model", "whole weights", "1/8", "1/64", "1/1024"), rows)


def _symmetry(done):
    rows = []
    for q in all_of(done, "noise", "q"):
        found = records(done, "noise", q=q)
        turns = [[r["turn"][k] for r in found] for k in ("held", "through")]
        norms = [[r["asymmetry"][k] for r in found] for k in ("held", "through")]
        cells = [*(span(turn, 3) for turn in turns), *map(at_most, norms)]
        rows.append((f"{q:g}", f"{2 - q:g}", *cells))
    header = ("q", "2 - q", "held", "through", "norm, held", "norm, through")
    return markdown(header, rows)


def _features(done):
    rows = []
    for q in all_of(done, "features", "q"):
        found = records(done, "features", q=q)
        rows.append(
            (
                f"{q:g}",
                at_most(record["ridge_gradient"] for record in found),
                span((record["smallest_weight"] for record in found), 3),
                f"{2 ** (q - 2):.3f}",
                span((record["doubled"] for record in found), 3),
                span((record["removed"] for record in found), 2),
            )
        )
    header = ("q", "gradient", "smallest weight", "2^(q - 2)", "doubled", "BatchNorm")
    return markdown(header, rows)
