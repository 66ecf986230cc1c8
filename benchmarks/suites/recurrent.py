"""Recurrent layers with Sparseout beside those of Keras, a training step of each.

Ratios of CPU times: an LSTM between two locked Sparseout layers to that LSTM alone, and
SparseoutCellWrapper to the dropout and recurrent_dropout of keras.layers.LSTM.
"""

from collections.abc import Callable, Iterable, Sequence

import keras
import tensorflow as tf

from benchmarks.processes import Turns
from benchmarks.ratios import table_of_times
from benchmarks.report import Table
from benchmarks.settings import Settings
from keras_sparseout import Sparseout, SparseoutCellWrapper

QS = (1.5, 2, 1.3)
TIMES = 5  # One training step is too short to be timed.
INPUTS, BOTH = "LSTM(dropout)", "LSTM(dropout, recurrent_dropout)"

Layers = Sequence[keras.layers.Layer]


def forward_and_backward(
    layers: Layers, x: tf.Tensor, jit_compile: bool = False
) -> Callable[[], float]:
    """A function that runs training steps, without an optimizer's update."""
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(model(x, training=True)))
        return tape.gradient(loss, [x, *model.trainable_variables])

    def run():
        for _ in range(TIMES):
            dx, *_ = step(x)
        # Reading an element waits for the step to end.
        return float(dx[0, 0, 0])

    return run


def lstm(units: int, **options) -> keras.layers.LSTM:
    return keras.layers.LSTM(units, return_sequences=True, **options)


def locked(q: float) -> Sparseout:
    return Sparseout(0.4, q, noise_shape=(None, 1, None))


def wrapped(units: int, recurrent_rate: float, q: float, **options) -> keras.layers.RNN:
    cell = keras.layers.LSTMCell(units)
    cell = SparseoutCellWrapper(cell, 0.4, recurrent_rate, q, **options)
    return keras.layers.RNN(cell, return_sequences=True)


def wrappers(units: int, recurrent_rate: float) -> dict[str, Layers]:
    return {
        f"SparseoutCellWrapper q={q:g}": [wrapped(units, recurrent_rate, q)] for q in QS
    }


def noise_between(units: int) -> dict[str, Layers]:
    return {
        "LSTM": [lstm(units)],
        **{
            f"in locked Sparseout q={q:g}": [locked(q), lstm(units), locked(q)]
            for q in QS
        },
    }


def noise_on_both(units: int) -> dict[str, Layers]:
    return {
        BOTH: [lstm(units, dropout=0.4, recurrent_dropout=0.3)],
        **wrappers(units, 0.3),
    }


def noise_on_both_and_more(units: int) -> dict[str, Layers]:
    plain = keras.layers.RNN(keras.layers.LSTMCell(units), return_sequences=True)
    return {
        **noise_on_both(units),
        "SparseoutCellWrapper q=1.5, adjustable": [
            wrapped(units, 0.3, 1.5, adjustable=True)
        ],
        "RNN(LSTMCell), no noise": [plain],
    }


def noise_on_inputs(units: int) -> dict[str, Layers]:
    return {INPUTS: [lstm(units, dropout=0.4)], **wrappers(units, 0.0)}


# By title: the baseline, what makes the candidates, whether the step is compiled.
COMPARISONS = {
    "noise between layers": ("LSTM", noise_between, False),
    "noise on inputs and states": (BOTH, noise_on_both_and_more, False),
    "noise on inputs alone": (INPUTS, noise_on_inputs, False),
    "noise on inputs and states, inside a function with jit_compile=True": (
        BOTH,
        noise_on_both,
        True,
    ),
}


def steps(
    comparison: str, batch: int, timesteps: int, units: int
) -> dict[str, Callable[[], float]]:
    """Training steps of one comparison."""
    _, layers, jit_compile = COMPARISONS[comparison]
    x = tf.random.normal((batch, timesteps, units))
    return {
        name: forward_and_backward(stack, x, jit_compile)
        for name, stack in layers(units).items()
    }


def run(settings: Settings) -> Iterable[Table]:
    """Yields the tables of this suite."""
    batch, timesteps, units = (8, 7, 32) if settings.quick else (32, 35, 256)
    sizes = f"Batch {batch}, {timesteps} timesteps, {units} units."
    with Turns(settings) as turns:
        for title, (baseline, _, _) in COMPARISONS.items():
            rounds_of = turns.measure(
                f"{__name__}:steps",
                settings.rounds_or(9),
                title=title,
                comparison=title,
                batch=batch,
                timesteps=timesteps,
                units=units,
            )
            yield table_of_times(title, rounds_of, (baseline,), per=TIMES, note=sizes)
