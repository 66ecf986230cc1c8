"""What regularizers add to a training step of a CNN.

The time of the same model without a regularizer is subtracted round by round. What is
left is compared with what keras.layers.Dropout adds. Then the whole step is compiled,
`jit_compile=True`, and compared with the step with Dropout.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.interleave import differences, fastest, spread
from benchmarks.models import (
    DROPOUT,
    EXAMPLE,
    MODELS,
    NONE,
    REGULARIZERS,
    compiled_model,
    random_images,
)
from benchmarks.processes import Turns
from benchmarks.ratios import own, table_of_times
from benchmarks.report import Row, Table
from benchmarks.settings import OTHER, Settings
from benchmarks.targets import check

BATCH_SIZE, STEPS = 64, 20
COMPILED = [NONE, DROPOUT, "Sparseout q=1.5", "Sparseout q=2", "Sparseout q=1.3"]


def training_steps(
    model: str, kinds: Sequence[str], steps: int, jit_compile: bool = False
) -> dict[str, Callable[[], object]]:
    """Functions that train a model for a number of steps, by kind of regularizer."""
    x, y = random_images(BATCH_SIZE * steps)

    def training(kind):
        trained = compiled_model(model, kind, jit_compile)
        return lambda: trained.fit(x, y, batch_size=BATCH_SIZE, verbose=0)

    return {kind: training(kind) for kind in kinds}


def run(settings: Settings) -> Iterable[Table]:
    """Yields the tables of this suite."""
    steps = 5 if settings.quick else STEPS
    for model in MODELS:
        title = f"{model}, a step of batch {BATCH_SIZE}"
        with Turns(settings) as turns:
            rounds_of = turns.measure(
                f"{__name__}:training_steps",
                settings.rounds_or(25),
                title=title,
                model=model,
                kinds=list(REGULARIZERS),
                steps=steps,
            )
        yield _added(title, rounds_of, steps, f"step, {model}")
    # Dropout is slow there, so this has fewer rounds.
    title = f"{EXAMPLE}, a step of batch {BATCH_SIZE} with jit_compile=True"
    with Turns(settings) as turns:
        rounds_of = turns.measure(
            f"{__name__}:training_steps",
            min(settings.rounds_or(5), 5),
            title=title,
            model=EXAMPLE,
            kinds=COMPILED,
            steps=steps,
            jit_compile=True,
        )
    yield table_of_times(title, rounds_of, (DROPOUT,), per=steps)


def _added(title, rounds_of, steps, target):
    """The table of what each regularizer adds."""
    added = {
        name: differences(rounds, rounds_of[own(rounds_of, name, NONE)])
        for name, rounds in rounds_of.items()
    }
    median = {name: statistics.median(values) for name, values in added.items()}
    rows = []
    for name, rounds in rounds_of.items():
        cpu, wall = fastest(rounds)
        figures = {"CPU ms": 1e3 * cpu / steps, "wall ms": 1e3 * wall / steps}
        verdict = None
        if name not in (NONE, NONE + OTHER):
            to_dropout = median[name] / median[own(rounds_of, name, DROPOUT)]
            figures |= {
                "added CPU ms": 1e3 * median[name] / steps,
                "its spread": 1e3 * spread(added[name]) / steps,
                "to what Dropout adds": to_dropout,
            }
            if name.startswith("Sparseout") and not name.endswith(OTHER):
                verdict = check(target, name, to_dropout)
        rows.append(Row(name, figures, verdict))
    note = (
        "Times of a step are of the fastest round. The added time is the median of the "
        "differences within the rounds, and the spread is the distance between their "
        "quartiles. Ratios are of added CPU time."
    )
    return Table(title, note, rows, rounds_of)
