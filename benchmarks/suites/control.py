"""Cost of control: an epoch of the example's CNN with a penalty that is moved or fixed.

SparsityController puts penalties on the layers for the time of `fit`, and moves their
weights in each step. A model with the same penalties as layers, with fixed weights, has
all of the cost but that. Epochs take turns.
"""

import statistics
from collections.abc import Iterable

import keras

from benchmarks.interleave import fastest
from benchmarks.models import SHAPE, example_cnn, fashion_cnn
from benchmarks.processes import Turns
from benchmarks.ratios import own
from benchmarks.report import Row, Table
from benchmarks.settings import Settings
from benchmarks.suites.tracker import BATCH_SIZE, BURN_IN, Epochs
from benchmarks.targets import check
from keras_sparseout import ActivationPenalty, SparsityController

NONE = "no penalty"
PLACES = ["block1", "block2", "hidden"]
KINDS = ("l1", "hoyer_square")


def fixed(kind: str) -> str:
    """The name of a candidate with a fixed penalty."""
    return f"ActivationPenalty, {kind}"


def controlled(kind: str) -> str:
    """The name of a candidate whose penalty is moved."""
    return f"SparsityController, {kind}"


def _identity(name):
    return keras.layers.Identity(name=name)


def training(data, regularizer, callbacks, epochs, jit_compile):
    """Training of the example's CNN, an epoch a call."""
    x, y = data

    def fit(turns):
        keras.utils.set_random_seed(1)
        model = example_cnn(regularizer)
        loss = "sparse_categorical_crossentropy"
        model.compile("adam", loss, metrics=["accuracy"], jit_compile=jit_compile)
        options = {"batch_size": BATCH_SIZE, "epochs": epochs, "verbose": 0}
        model.fit(x, y, **options, callbacks=[*callbacks, turns])

    return Epochs(fit)


def epochs_of_fit(images: int, epochs: int, jit_compile: bool) -> dict[str, Epochs]:
    """Epochs over the first of the example's images, by what is in the training."""
    ((x, y), _, _), _ = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    trainings = {NONE: (_identity, [])}
    for kind in KINDS:
        # Too weak to kill units, which would make other work for the processor.
        trainings[fixed(kind)] = (
            lambda name, kind=kind: ActivationPenalty(1e-6, kind, name=name),
            [],
        )
        controller = SparsityController(0.5, layers=PLACES, kind=kind, verbose=0)
        trainings[controlled(kind)] = (_identity, [controller])
    data = x[:images], y[:images]
    return {
        name: training(data, *made, epochs, jit_compile)
        for name, made in trainings.items()
    }


def run(settings: Settings) -> Iterable[Table]:
    """Yields the tables of this suite."""
    images = 640 if settings.quick else 9000
    rounds = settings.rounds_or(9)
    for jit_compile in (False, True):
        title = (
            f"an epoch of {images:,} images of {SHAPE} in batches of {BATCH_SIZE}, "
            f"jit_compile={jit_compile}"
        )
        with Turns(settings) as turns:
            rounds_of = turns.measure(
                f"{__name__}:epochs_of_fit",
                rounds,
                title=title,
                burn_in=BURN_IN,  # For tracing and compiling.
                images=images,
                epochs=BURN_IN + rounds,
                jit_compile=jit_compile,
            )
        yield _table(title, rounds_of)


def _table(title, rounds_of):
    beside = {controlled(kind): fixed(kind) for kind in KINDS}
    rows = []
    for name, epochs in rounds_of.items():
        cpu, wall = fastest(epochs)
        figures, verdict = {"CPU s": cpu, "wall s": wall}, None
        if name in beside:
            without = rounds_of[own(rounds_of, name, beside[name])]
            pairs = zip(epochs, without, strict=True)
            added = [100 * (a.cpu / b.cpu - 1) for a, b in pairs]
            ratio = cpu / fastest(without).cpu
            figures |= {
                "added CPU %": 100 * (ratio - 1),
                "median": statistics.median(added),
                "at least": min(added),
                "at most": max(added),
            }
            verdict = check("control", title.split(", ")[-1] + f", {name}", ratio)
        rows.append(Row(name, figures, verdict))
    note = (
        "Times are of the fastest round. What is added to the same fixed penalty is of "
        "the fastest rounds, beside the median, the smallest and the largest of the "
        "differences within the rounds."
    )
    return Table(title, note, rows, rounds_of)
