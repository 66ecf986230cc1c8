"""The tables of the study `images`."""

from collections.abc import Iterable, Sequence

from studies.contrasts import (
    CELLS,
    Arm,
    Contrast,
    Done,
    Row,
    contrasts,
    distinct_rows,
    fixed_sentences,
    mean_cell,
    observed_sentence,
)
from studies.parts.images import arms as arms_of
from studies.parts.images import plan
from studies.parts.images.arms import ACCURACY, mean
from studies.tables import MISSING, cell, markdown

POINTS = ACCURACY.factor


def tables(done: Done) -> str:
    """Returns the report, the primary contrast first."""
    base = arms_of.base_of_contrast(done)
    main, others = arms_of.main_arms(done, base), arms_of.other_arms(done, base)
    listed = contrasts(done, [*main, *others], ACCURACY)
    what = "Test accuracy of q = 3 against q = 2, noise of matched strength, points"
    parts = [
        "### The fixed contrast\n",
        fixed_sentences(listed[0], what),
        "### Test accuracy\n",
        "Percent, mean ± half of the 95 % interval over seeds. Differences to q = 2 "
        "are in points, paired by seed, with their 95 % interval. `d` is the "
        "difference in standard deviations of the paired differences. p is corrected "
        "by Holm over all contrasts but the fixed one, which is the first.\n",
        _outcomes(done, main, listed),
        observed_sentence(listed),
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
        "The same, but `needless` is the share of the products of the next layer.\n",
        _places(done, main),
        "### The rates of the arm `best`\n",
        "Validation accuracy in percent, mean over two seeds of their own.\n",
        _rates(done, base),
    ]
    return "\n".join(parts)


def _outcomes(done: Done, arms: Iterable[Arm], listed: Sequence[Contrast]) -> str:
    rows = []
    for arm in arms:
        rows.append([*_accuracy(done, arm, arm.baseline), *[MISSING] * 3, ""])
        for contrast in (c for c in listed if c.arm is arm):
            rows.append([*_accuracy(done, arm, contrast.row), *contrast.cells])
    return markdown(["arm", "runs", "finished", "test accuracy", *CELLS], rows)


def _accuracy(done: Done, arm: Arm, row: Row) -> list[str]:
    values = row.values(done, ACCURACY.name)
    finished = f"{len(values)} of {len(row.seeds)}"
    return [arm.name, row.label, finished, mean_cell(values, ACCURACY.digits, POINTS)]


def _training(done: Done, arms: Iterable[Arm]) -> str:
    header = ["arm", "runs", "validation accuracy", "epoch", "test loss"]
    header += ["validation loss", "training loss", "without noise"]
    losses = ("test_loss", "valid_loss", "train_loss", "train_loss_without_noise")
    rows = []
    for arm, row in distinct_rows(arms):
        accuracy = mean_cell(row.values(done, "valid_accuracy"), 2, POINTS)
        epoch = cell(mean(row.values(done, "epoch")), digits=1)
        means = [mean_cell(row.values(done, loss), 3) for loss in losses]
        rows.append([arm, row.label, accuracy, epoch, *means])
    return markdown(header, rows)


def _sparsity(done: Done, arms: Iterable[Arm]) -> str:
    columns = ("hoyer", "zeros", "dead", "rms", "needless")
    header = ["arm", "runs", "Hoyer", "zeros", "dead", "RMS", "needless"]
    rows = [
        [
            arm,
            row.label,
            *(mean_cell(row.values(done, column), 3) for column in columns),
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
