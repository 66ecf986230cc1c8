"""Sparseout on one large tensor, forward and backward, beside Dropout and a copy.

keras.layers.Dropout is fastest without XLA on CPU. The copy is `x * 0.5`, one XLA
program for forward and backward: it reads x and the upstream gradient once, and writes
y and dx once. The multiplication in two calls does the same in the way that Sparseout
is made: `custom_gradient` outside, a compiled call forward and one backward.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import keras
import tensorflow as tf

from benchmarks.interleave import fastest
from benchmarks.picture import draw_sizes
from benchmarks.processes import Turns
from benchmarks.ratios import NAMES, table_of_times
from benchmarks.report import Row, Table
from benchmarks.settings import OTHER, Settings
from benchmarks.targets import check
from keras_sparseout import Sparseout

RATE = 0.5
DROPOUT, COPY, TWO_CALLS = "keras Dropout", "copy", "multiplication in two calls"
PHILOX, THREEFRY = "stateless_dropout, philox", "stateless_dropout, threefry, XLA"
PLAIN, UNKNOWN = "jit_compile=False", "unknown sizes"
# By target.
QS = {"op, special q": (1, 1.5, 2, 2.5, 3), "op, other q": (0.5, 1.3, 4, 5)}
DTYPES = ("float32", "float16", "bfloat16")
# One of each kind: q = 2, another one without a power, a general one.
KINDS = {"q=2": 2, "special q": 1.5, "other q": 1.3}
SIZES = [2**power for power in range(12, 27, 2)]
BASE_SIZE = 2**20

Step = Callable[[], float]
# Takes (x, training=True).
Layer = Callable[..., tf.Tensor]


def forward_and_backward(
    layer: Layer,
    shape: Sequence[int],
    dtype: str,
    jit_compile: bool = False,
    known: bool = True,
    repeats: int = 1,
) -> Step:
    """A function that runs steps: forward, and backward to the input."""
    x, upstream = _data(tuple(shape), dtype)
    spec = tf.TensorSpec([None] * len(shape), dtype)

    @tf.function(
        jit_compile=jit_compile,
        autograph=False,
        input_signature=None if known else [spec, spec],
    )
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x, output_gradients=upstream)

    def run():
        for _ in range(repeats):
            y, dx = step(x, upstream)
        # Reading an element waits for the step to end.
        return float(y[0, 0]) + float(dx[0, 0])

    return run


@functools.lru_cache(maxsize=1)  # All candidates share it.
def _data(shape, dtype):
    return tuple(
        tf.cast(tf.random.stateless_normal(shape, (seed, 0)), dtype) for seed in (1, 2)
    )


def sparseout(q: float, dtype: str = "float32", **options) -> Sparseout:
    return Sparseout(RATE, q=q, seed=1, dtype=dtype, **options)


def dropout(dtype: str = "float32") -> keras.layers.Dropout:
    return keras.layers.Dropout(RATE, seed=1, dtype=dtype)


def stateless_dropout(rng_alg: str) -> Layer:
    """TensorFlow's function with a generator that is named."""
    seeds = keras.random.SeedGenerator(1)

    def apply(x, training):
        seed = tf.cast(seeds.next(), tf.int32)
        return tf.nn.experimental.stateless_dropout(x, RATE, seed, rng_alg=rng_alg)

    return apply


def halve(x: tf.Tensor, training: bool = True) -> tf.Tensor:
    return x * tf.cast(0.5, x.dtype)


_halve = tf.function(halve, jit_compile=True, autograph=False)


@tf.custom_gradient
def _halve_twice(x):
    return _halve(x), _halve


def halve_in_two_calls(x: tf.Tensor, training: bool) -> tf.Tensor:
    return _halve_twice(x)


def _shape(elements):
    return (max(elements // 4096, 1), min(elements, 4096))


def steps_of_dtype(elements: int, dtype: str) -> dict[str, Step]:
    def step(layer, **options):
        return forward_and_backward(layer, _shape(elements), dtype, **options)

    return {
        COPY: step(halve, jit_compile=True),
        TWO_CALLS: step(halve_in_two_calls),
        DROPOUT: step(dropout(dtype)),
        PHILOX: step(stateless_dropout("philox")),
        THREEFRY: step(stateless_dropout("threefry"), jit_compile=True),
        **{
            f"Sparseout q={q:g}": step(sparseout(q, dtype))
            for qs in QS.values()
            for q in qs
        },
    }


def plain_steps(elements: int, dtype: str) -> dict[str, Step]:
    def step(layer, **options):
        return forward_and_backward(layer, _shape(elements), dtype, **options)

    return {
        COPY: step(halve, jit_compile=True),
        DROPOUT: step(dropout(dtype)),
        f"{DROPOUT}, {UNKNOWN}": step(dropout(dtype), known=False),
        **{
            f"Sparseout q={q:g}, {PLAIN}": step(sparseout(q, dtype, jit_compile=False))
            for q in KINDS.values()
        },
        **{
            f"Sparseout q={q:g}, {UNKNOWN}": step(sparseout(q, dtype), known=False)
            for q in KINDS.values()
        },
    }


def option_steps(elements: int, q: float) -> dict[str, Step]:
    def step(layer):
        return forward_and_backward(layer, _shape(elements), "float32")

    return {
        COPY: forward_and_backward(halve, _shape(elements), "float32", True),
        DROPOUT: step(dropout()),
        "fixed": step(sparseout(q)),
        "adjustable": step(sparseout(q, adjustable=True)),
        "stop_gradient=False": step(sparseout(q, stop_gradient=False)),
    }


def compiled_steps(elements: int) -> dict[str, Step]:
    layers = {
        COPY: halve,
        DROPOUT: dropout(),
        THREEFRY: stateless_dropout("threefry"),
        **{f"Sparseout q={q:g}": sparseout(q) for q in KINDS.values()},
    }
    return {
        name: forward_and_backward(layer, _shape(elements), "float32", True)
        for name, layer in layers.items()
    }


def steps_of_size(elements: int, repeats: int) -> dict[str, Step]:
    def step(layer, jit_compile=False):
        shape = (elements // 1024, 1024)
        return forward_and_backward(
            layer, shape, "float32", jit_compile, repeats=repeats
        )

    return {
        COPY: step(halve, jit_compile=True),
        DROPOUT: step(dropout()),
        **{f"Sparseout q={q:g}": step(sparseout(q)) for q in KINDS.values()},
    }


def run(settings: Settings) -> Iterable[Table]:
    """Yields the tables of this suite."""
    elements = 2**18 if settings.quick else settings.elements
    rounds = settings.rounds_or(15)
    with Turns(settings, peers=True) as turns:
        for dtype in DTYPES:
            yield _dtype_table(turns, rounds, elements, dtype)
    # From here on peers sit out.
    with Turns(settings) as turns:
        for dtype in ("float32", "bfloat16"):
            yield _plain_table(turns, rounds, elements, dtype)
        for q in KINDS.values():
            yield _option_table(turns, rounds, elements, q)
        # Dropout takes seconds in this one.
        yield _compiled_table(turns, min(rounds, 5), elements)
        sizes = SIZES[: 5 if settings.quick else None]
        yield _size_table(turns, settings.rounds_or(7), sizes)


def _dtype_table(turns, rounds, elements, dtype):
    title = f"{dtype}, {elements:,} elements, rate {RATE}"
    rounds_of = turns.measure(
        f"{__name__}:steps_of_dtype",
        rounds,
        title=title,
        peers={"shape": _shape(elements), "dtype": dtype},
        only_here=(TWO_CALLS, PHILOX, THREEFRY),
        elements=elements,
        dtype=dtype,
    )
    return table_of_times(
        title,
        rounds_of,
        (DROPOUT, COPY),
        targets={
            f"Sparseout q={q:g}": (target, DROPOUT)
            for target, qs in QS.items()
            for q in qs
        },
        label=dtype,
        clock=turns.settings.clock,
        missing=dict(turns.missing),
    )


def _plain_table(turns, rounds, elements, dtype):
    title = f"without XLA, {dtype}, {elements:,} elements, rate {RATE}"
    rounds_of = turns.measure(
        f"{__name__}:plain_steps", rounds, title=title, elements=elements, dtype=dtype
    )
    return table_of_times(
        title,
        rounds_of,
        (DROPOUT, COPY),
        targets={
            f"Sparseout q={q:g}, {how}": (f"plain, {dtype}, {kind}", DROPOUT)
            for kind, q in KINDS.items()
            for how in (PLAIN, UNKNOWN)
        },
        label=dtype,
        clock=turns.settings.clock,
    )


def _option_table(turns, rounds, elements, q):
    title = f"options at q={q:g}, float32, {elements:,} elements, rate {RATE}"
    rounds_of = turns.measure(
        f"{__name__}:option_steps", rounds, title=title, elements=elements, q=q
    )
    return table_of_times(
        title,
        rounds_of,
        (DROPOUT, COPY, "fixed"),
        targets={"adjustable": ("adjustable", "fixed")},
        label=f"q={q:g},",
        clock=turns.settings.clock,
    )


def _compiled_table(turns, rounds, elements):
    title = (
        "inside a function with jit_compile=True, float32, "
        f"{elements:,} elements, rate {RATE}"
    )
    rounds_of = turns.measure(
        f"{__name__}:compiled_steps",
        rounds,
        title=title,
        only_here=(THREEFRY,),
        elements=elements,
    )
    return table_of_times(
        title,
        rounds_of,
        (DROPOUT, COPY),
        targets={
            f"Sparseout q={q:g}": ("op, jit_compile=True", DROPOUT)
            for q in KINDS.values()
        },
        clock=turns.settings.clock,
    )


def _size_table(turns, rounds, sizes):
    """The table and the picture of the time an element takes."""
    clock = turns.settings.clock
    per_element: dict[str, dict[int, float]] = {}
    all_rounds = {}
    for size in sizes:
        # A call on a small tensor is too short to be timed.
        repeats = min(max(4 * BASE_SIZE // size, 1), 64)
        rounds_of = turns.measure(
            f"{__name__}:steps_of_size",
            rounds,
            title=f"{size:,} elements",
            elements=size,
            repeats=repeats,
        )
        for name, spent in rounds_of.items():
            all_rounds[f"{name}, {size} elements, {repeats} times"] = spent
            seconds = getattr(fastest(spent), clock) / repeats
            per_element.setdefault(name, {})[size] = 1e9 * seconds / size
    return Table(
        f"{NAMES[clock]} ns an element by number of elements, float32",
        "Of the fastest round of each.",
        [_size_row(name, times) for name, times in per_element.items()],
        all_rounds,
        picture=draw_sizes(per_element, NAMES[clock]),
    )


def _size_row(name, times):
    figures = {f"2^{size.bit_length() - 1}": time for size, time in times.items()}
    verdict = None
    if SIZES[-1] in times:
        figures["2^26 to 2^20"] = grows = times[SIZES[-1]] / times[BASE_SIZE]
        if name.startswith("Sparseout") and not name.endswith(OTHER):
            verdict = check("sizes", name, grows)
    return Row(name, figures, verdict)
