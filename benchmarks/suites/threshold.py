"""What `TargetSparsity` costs: in a training step, at inference, and in `predict`.

In a training step the time of the same model without it is subtracted round by round,
and what is left is compared with what keras.layers.Dropout adds. At inference a layer
alone is compared with a ReLU, and `predict` with that of the same model without it.
"""

import statistics
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from benchmarks.interleave import differences, fastest, spread
from benchmarks.models import EXAMPLE, SHAPE, example_cnn, random_images
from benchmarks.processes import Turns
from benchmarks.ratios import table_of_times
from benchmarks.report import Row, Table
from benchmarks.settings import Settings
from benchmarks.targets import check
from keras_sparseout import TargetSparsity

BATCH_SIZE = 64
NONE, DROPOUT = "none", "keras Dropout"
ONE, UNITS = "TargetSparsity", "TargetSparsity, axis=-1"
LAYERS = {
    NONE: lambda name: keras.layers.Identity(name=name),
    DROPOUT: lambda name: keras.layers.Dropout(0.3, name=name),
    ONE: lambda name: TargetSparsity(0.7, name=name),
    UNITS: lambda name: TargetSparsity(0.7, axis=-1, name=name),
}
SMALL = "MLP of 128 units"


def small_mlp(layer: Callable[[str], keras.layers.Layer]) -> keras.Model:
    """A model whose layers take so little time that each operation counts."""
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
    for number in range(3):
        model.add(keras.layers.Dense(128, activation="relu"))
        model.add(layer(f"after_{number}"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    return model


MODELS = {EXAMPLE: example_cnn, SMALL: small_mlp}
STEPS = {EXAMPLE: 20, SMALL: 200}


def _compiled(model, kind, jit_compile):
    keras.utils.set_random_seed(1)
    made = MODELS[model](LAYERS[kind])
    loss = "sparse_categorical_crossentropy"
    made.compile("adam", loss, jit_compile=jit_compile)
    return made


def training_steps(
    model: str, steps: int, jit_compile: bool
) -> dict[str, Callable[[], object]]:
    """Functions that train a model for a number of steps, by kind of layer."""
    x, y = random_images(BATCH_SIZE * steps)

    def training(kind):
        trained = _compiled(model, kind, jit_compile)
        return lambda: trained.fit(x, y, batch_size=BATCH_SIZE, verbose=0)

    return {kind: training(kind) for kind in LAYERS}


def predictions(
    model: str, size: int, jit_compile: bool
) -> dict[str, Callable[[], object]]:
    """Functions that predict, of a model with and without `TargetSparsity`."""
    x, _ = random_images(size)

    def prediction(kind):
        made = _compiled(model, kind, jit_compile)
        return lambda: made.predict(x, batch_size=256, verbose=0)

    return {"without": prediction(NONE), ONE: prediction(ONE)}


def layers_at_inference(elements: int) -> dict[str, Callable[[], object]]:
    """Functions that call a compiled layer 20 times."""
    x = tf.constant(np.random.default_rng(0).normal(size=(64, elements // 64)))
    x = tf.cast(x, "float32")
    thresholds = {ONE: TargetSparsity(0.7), UNITS: TargetSparsity(0.7, axis=-1)}
    for layer in thresholds.values():
        layer(x, training=True)
    layers = {"ReLU": keras.layers.ReLU(), **thresholds}

    def calls(layer):
        call = tf.function(lambda x: layer(x, training=False), jit_compile=True)

        def run():
            for _ in range(20):
                call(x)

        return run

    return {name: calls(layer) for name, layer in layers.items()}


def run(settings: Settings) -> Iterable[Table]:
    """Yields the tables of this suite."""
    for model in MODELS:
        for jit_compile in (False, True):
            yield _steps(settings, model, jit_compile)
    title = "A layer at inference, compiled, 2^20 elements"
    with Turns(settings) as turns:
        rounds_of = turns.measure(
            f"{__name__}:layers_at_inference",
            settings.rounds_or(25),
            title=title,
            elements=2**16 if settings.quick else 2**20,
        )
    yield _to_baseline(title, rounds_of, "ReLU", "threshold, inference", 20)
    for model in MODELS:
        # As Keras compiles models by default.
        title = f"{model}, predict"
        with Turns(settings) as turns:
            rounds_of = turns.measure(
                f"{__name__}:predictions",
                settings.rounds_or(15),
                title=title,
                model=model,
                size=512 if settings.quick else 4096,
                jit_compile=True,
            )
        yield _to_baseline(title, rounds_of, "without", f"threshold, predict, {model}")


def _steps(settings, model, jit_compile):
    steps = 5 if settings.quick else STEPS[model]
    # Dropout is slow in a compiled convolutional network.
    slow = jit_compile and model == EXAMPLE
    rounds = min(settings.rounds_or(5), 5) if slow else settings.rounds_or(15)
    title = f"{model}, a step of batch {BATCH_SIZE}, jit_compile={jit_compile}"
    with Turns(settings) as turns:
        rounds_of = turns.measure(
            f"{__name__}:training_steps",
            rounds,
            title=title,
            model=model,
            steps=steps,
            jit_compile=jit_compile,
        )
    added = {n: differences(rounds_of[n], rounds_of[NONE]) for n in rounds_of}
    median = {name: statistics.median(values) for name, values in added.items()}
    rows = []
    for name, rounds in rounds_of.items():
        cpu, wall = fastest(rounds)
        figures = {"CPU us": 1e6 * cpu / steps, "wall us": 1e6 * wall / steps}
        verdict = None
        if name != NONE:
            ratio = median[name] / median[DROPOUT]
            figures |= {
                "added CPU us": 1e6 * median[name] / steps,
                "its spread": 1e6 * spread(added[name]) / steps,
                "to what Dropout adds": ratio,
            }
            if name in (ONE, UNITS):
                target = f"threshold, step, {model}"
                verdict = check(target, f"{name}, jit_compile={jit_compile}", ratio)
        rows.append(Row(name, figures, verdict))
    note = (
        "Times of a step are of the fastest round. The added time is the median of the "
        "differences within the rounds, and the spread is the distance between their "
        "quartiles. Ratios are of added CPU time."
    )
    return Table(title, note, rows, rounds_of)


def _to_baseline(title, rounds_of, baseline, target, per=1):
    targets = {name: (target, baseline) for name in rounds_of if name != baseline}
    return table_of_times(title, rounds_of, (baseline,), targets=targets, per=per)
