"""The tables of the study `images`."""

from collections.abc import Iterable, Sequence

import numpy as np

from studies import images_arms as arms_of
from studies import images_plan as plan
from studies.images_arms import ACCURACY, Arm, Contrast, Done, Row, distinct_rows, mean
from studies.statistics import Difference, interval
from studies.tables import MISSING, cell, markdown

POINTS = 100  # Accuracies and their differences are shown in percent.


def tables(done: Done) -> str:
    """Returns the report, the primary contrast first."""
    base = arms_of.base_of_contrast(done)
    main, others = arms_of.main_arms(done, base), arms_of.other_arms(done, base)
    listed = arms_of.contrasts(done, [*main, *others])
    parts = [
        "### The fixed contrast\n",
        _fixed(listed[0]),
        "### Test accuracy\n",
        "Percent, mean ± half of the 95 % interval over seeds. Differences to q = 2 "
        "are in points, paired by seed, with their 95 % interval. `d` is the "
        "difference in standard deviations of the paired differences. p is corrected "
        "by Holm over all contrasts but the fixed one, which is the first.\n",
        _outcomes(done, main, listed),
        _observed(listed),
    ]
    if others:
        parts += [
            "### Other models\n",
            "At equal rate, as above.\n",
            _outcomes(done, others, listed),
        ]
    every = [*main, *others]
    parts += [
        "### How training went\n",
        "What arms share is listed once, from here on. Losses are cross-entropies at "
        "the chosen epoch, in nats: of test and validation images, of training images "
        "while training, and of some of them without noise.\n",
        _training(done, every),
        "### Sparsity and noise\n",
        "Of activations on test images, without noise, as means over the places. "
        "`needless` is the share of the model's multiply-accumulates with a zero. The "
        "variance is what the noise adds, as a mean over the activations of training "
        "images; `to q = 2` is its ratio to what q = 2 at the rate of the settings "
        "would add to the same activations.\n",
        _sparsity(done, every),
        "### Each place\n",
        _places(done, main),
        "### The rates of the arm `best`\n",
        "Validation accuracy in percent, mean over two seeds of their own.\n",
        _rates(done, base),
    ]
    return "\n".join(parts)


def _fixed(contrast: Contrast) -> str:
    d = contrast.difference
    what = "Test accuracy of q = 3 against q = 2, noise of matched strength"
    if d is None:
        return f"{what}: {contrast.verdict}.\n"
    verdict = f"{contrast.verdict[:1].upper()}{contrast.verdict[1:]}"
    text = (
        f"{what}: {_signed(d)} points, p = {_p(d.p)}, {_standardized(d)} standard "
        f"deviations, {d.n} pairs. **{verdict}.**\n\n"
    )
    spread = _spread(contrast.differences)
    return (
        f"{text}Ten pairs see an effect of about one standard deviation of the paired "
        f"differences (power 0.8, two-sided at 0.05){spread}. An interval covers "
        "seeds, not data sets or models: others may give another difference.\n"
    )


def _spread(differences: Sequence[float]) -> str:
    if len(differences) < 2:
        return ""
    return f", which is {POINTS * np.std(differences, ddof=1):.2f} points here"


def _observed(listed: Sequence[Contrast]) -> str:
    seen = [c for c in listed[1:] if c.verdict.startswith("observed")]
    tested = [c for c in listed[1:] if not np.isnan(c.p)]
    names = "; ".join(f"{c.arm.name}, {c.row.label} ({c.verdict})" for c in seen)
    return (
        f"Of {len(tested)} other contrasts with more than one pair, {len(seen)} are "
        f"observed after the correction{': ' + names if names else ''}.\n"
    )


def _signed(d: Difference) -> str:
    if np.isnan(d.low):
        return f"{POINTS * d.mean:+.2f}"
    low, high = POINTS * d.low, POINTS * d.high
    return f"{POINTS * d.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _p(p: float) -> str:
    if np.isnan(p):
        return MISSING
    return f"{p:.4f}" if p >= 1e-4 else "below 0.0001"


def _standardized(d: Difference) -> str:
    return f"{d.standardized:+.2f}" if np.isfinite(d.standardized) else MISSING


def _outcomes(done: Done, arms: Iterable[Arm], listed: Sequence[Contrast]) -> str:
    header = ["arm", "runs", "finished", "test accuracy", "difference to q = 2"]
    rows = []
    for arm in arms:
        rows.append([*_accuracy(done, arm, arm.baseline), *[MISSING] * 3, ""])
        for contrast in (c for c in listed if c.arm is arm):
            d = contrast.difference
            compared = [_signed(d), _standardized(d)] if d else [MISSING] * 2
            start = _accuracy(done, arm, contrast.row)
            rows.append([*start, *compared, _p(contrast.p), contrast.verdict])
    return markdown([*header, "d", "p", ""], rows)


def _accuracy(done: Done, arm: Arm, row: Row) -> list[str]:
    values = row.values(done, ACCURACY)
    finished = f"{len(values)} of {len(row.seeds)}"
    return [arm.name, row.label, finished, _cell(values, 2, POINTS)]


def _cell(values: Sequence[float], digits: int, factor: float = 1) -> str:
    if not values:
        return MISSING
    found = interval(factor * np.array(values))
    return cell(found.mean, found.half, digits)


def _training(done: Done, arms: Iterable[Arm]) -> str:
    header = ["arm", "runs", "validation accuracy", "epoch", "test loss"]
    header += ["validation loss", "training loss", "without noise"]
    losses = ("test_loss", "valid_loss", "train_loss", "train_loss_without_noise")
    rows = []
    for arm, row in distinct_rows(arms):
        accuracy = _cell(row.values(done, "valid_accuracy"), 2, POINTS)
        epoch = cell(mean(row.values(done, "epoch")), digits=1)
        means = [_cell(row.values(done, loss), 3) for loss in losses]
        rows.append([arm, row.label, accuracy, epoch, *means])
    return markdown(header, rows)


def _sparsity(done: Done, arms: Iterable[Arm]) -> str:
    columns = ("hoyer", "zeros", "dead", "rms", "needless")
    header = ["arm", "runs", "Hoyer", "zeros", "dead", "RMS", "needless"]
    rows = [
        [
            arm,
            row.label,
            *(_cell(row.values(done, column), 3) for column in columns),
            *_noise([*row.figures(done).values()]),
        ]
        for arm, row in distinct_rows(arms)
    ]
    return markdown([*header, "rate", "variance", "to q = 2"], rows)


def _noise(figures: Sequence) -> list[str]:
    """Returns the cells of the rate, the added variance and its ratio to q = 2's."""
    if not figures:
        return [MISSING] * 3
    ratio = [
        each["strength"] / each["strength_at_2"] if each["strength_at_2"] else None
        for each in figures
    ]
    strength = f"{mean(each['strength'] for each in figures):.3g}"
    rate = cell(mean(each["rate"] for each in figures))
    return [rate, strength, cell(mean(ratio), digits=2)]


def _places(done: Done, arms: Iterable[Arm]) -> str:
    columns = ("hoyer", "zeros", "dead", "rms", "needless_macs")
    header = ["arm", "runs", "place", "Hoyer", "zeros", "dead", "RMS", "needless"]
    rows = []
    for arm, row in distinct_rows(arms):
        runs = [*row.figures(done).values()]
        for place in runs[0]["places"] if runs else ():
            each = [figures["places"][place] for figures in runs]
            means = [cell(mean(p[column] for p in each)) for column in columns]
            rows.append([arm, row.label, place, *means, *_noise(each)])
    return markdown([*header, "rate", "variance", "to q = 2"], rows)


def _rates(done: Done, base: plan.Settings) -> str:
    chosen = plan.best_rates(done)
    searches = plan.searches(base)
    rows = []
    for q in (plan.DROPOUT, plan.CONTRAST):
        cells = []
        for rate in plan.RATES:
            wanted = [s for s in searches if (s.q, s.rate) == (q, rate)]
            found = [done[s]["valid_accuracy"] for s in wanted if s in done]
            cells.append(cell(POINTS * mean(found), digits=2))
        edges = (min(plan.RATES), max(plan.RATES))
        best = MISSING
        if chosen:
            edge = ", at the edge" if chosen[q] in edges else ""
            best = f"{chosen[q]:g}{edge}"
        rows.append([f"{q:g}", *cells, best])
    return markdown(["q", *(f"rate {rate:g}" for rate in plan.RATES), "chosen"], rows)
