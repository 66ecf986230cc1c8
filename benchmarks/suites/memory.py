"""The memory that calls, models, readings, fits, batches and training steps take.

For each of the first five what it leaves behind: memory that the process uses after a
garbage collection, and graphs of TensorFlow; CPU time beside it. Each line is a process
of its own, which does the same a few times before anything is counted. Linux with glibc
only. Then what is kept from a forward pass for the backward pass, and the memory of a
whole step.
"""

import re
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from benchmarks.dumps import xla_dumps
from benchmarks.left_behind import GROUPS
from benchmarks.models import DROPOUT, EXAMPLE, compiled_model, random_images
from benchmarks.processes import Worker
from benchmarks.report import Row, Table
from benchmarks.settings import OTHER, Settings
from benchmarks.targets import check
from keras_sparseout import Sparseout

# The names are also those of the example's regularizers.
LAYERS = {
    DROPOUT: lambda: keras.layers.Dropout(0.5),
    "Sparseout q=2": lambda: Sparseout(0.5, 2),
    "Sparseout q=1.5": lambda: Sparseout(0.5, 1.5),
    "Sparseout q=1.3": lambda: Sparseout(0.5, 1.3),
}


def kept_for_backward(elements: int) -> dict[str, tuple[int, int]]:
    """Returns `bytes_kept` of each layer."""
    x = tf.random.normal((elements // 1024, 1024))
    return {name: bytes_kept(make(), x) for name, make in LAYERS.items()}


def bytes_kept(layer: Callable[..., tf.Tensor], x: tf.Tensor) -> tuple[int, int]:
    """Returns the bytes that a backward pass captures, and those that it reads.

    At the border of a function TensorFlow hands on more than is needed: for a custom
    gradient it captures x, to have its shape. Only what the compiled program reads has
    to be kept. Tensors that share their memory count once.
    """

    @tf.function(autograph=False)
    def forward(x):
        return layer(x, training=True)

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = forward(x)

    @tf.function(jit_compile=True, autograph=False)
    def backward(upstream):
        return tape.gradient(y, x, output_gradients=upstream)

    spec = tf.TensorSpec(x.shape, x.dtype)
    captured = backward.get_concrete_function(spec).captured_inputs
    program = backward.experimental_get_compiler_ir(spec)(stage="optimized_hlo")
    # The first one is the upstream gradient.
    _, *is_read = _parameters_read(program)
    memory = [np.asarray(memoryview(tensor)) for tensor in captured]
    read = [part for part, used in zip(memory, is_read, strict=True) if used]
    return tuple(
        sum({part.ctypes.data: part.nbytes for part in parts}.values())
        for parts in (memory, read)
    )


def _parameters_read(program):
    """Whether a program of XLA reads each of its parameters, in their order."""
    _, body = program.split("\nENTRY ")
    found = re.findall(r"(ROOT )?%(\S+) = \S+ parameter\((\d+)\)", body)
    read = {
        int(number): bool(root or re.search(rf"%{re.escape(name)}[,)]", body))
        for root, name, number in found
    }
    return [read[number] for number in range(len(read))]


def step_of_layer(layer: str, elements: int) -> None:
    """Forward and backward in one program of XLA."""
    made = LAYERS[layer]()

    @tf.function(jit_compile=True, autograph=False)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = made(x, training=True)
        return y, tape.gradient(y, x, output_gradients=upstream)

    step(*tf.random.normal((2, elements // 1024, 1024)))


def step_of_model(layer: str) -> None:
    """A training step of the example's CNN in one program of XLA."""
    x, y = random_images(64)
    compiled_model(EXAMPLE, layer, jit_compile=True).train_on_batch(x, y)


def _largest_program(folder, function, **arguments):
    """The bytes that XLA plans for the largest program, inputs and outputs included."""
    with xla_dumps(folder, f"{__name__}:{function}", **arguments) as dumps:
        reports = dumps.glob("*memory-usage-report.txt")
        return max(
            int(re.match(r"Total bytes used: (\d+)", report.read_text())[1])
            for report in reports
        )


def _group(group, settings, folders):
    """The table of a group of lines."""
    usual, few, units, lines = GROUPS[group]
    count = few if settings.quick else usual
    rows = []
    for name in tqdm(lines, desc=group, unit="line", leave=False, disable=None):
        for suffix, folder in folders.items():
            with Worker(folder) as worker:
                mb, graphs, cpu = worker.call(
                    "benchmarks.left_behind:line", group=group, name=name, count=count
                )
            figures = {
                "MB": mb,
                "KB each": mb * 1024 / count,
                "graphs each": graphs / count,
                "CPU s": cpu,
            }
            rows.append(Row(name + suffix, figures))
    return Table(f"{group}: {count:,} {units}", "What is left behind.", rows)


def _backward(elements, folders):
    """The table of what is kept for the backward pass."""
    rows = []
    for suffix, folder in folders.items():
        with Worker(folder) as worker:
            bytes_of = worker.call(f"{__name__}:kept_for_backward", elements=elements)
        _, by_dropout = bytes_of[DROPOUT]
        for name, (captured, read) in bytes_of.items():
            figures = {
                "captured, in sizes of x": captured / (4 * elements),
                "read, in sizes of x": read / (4 * elements),
                f"read, to {DROPOUT}": read / by_dropout,
            }
            verdict = None
            if name != DROPOUT and not suffix:
                target = "kept, q=2" if name.endswith("q=2") else "kept, other q"
                # Seeds are a few bytes.
                verdict = check(target, name, round(figures["read, in sizes of x"], 3))
            rows.append(Row(name + suffix, figures, verdict))
    title = f"kept for the backward pass, {elements:,} float32 elements"
    note = (
        "Bytes of the tensors from the forward pass that a function for the backward "
        "pass captures, and of those that its compiled program reads."
    )
    return Table(title, note, rows)


def _whole_steps(elements, folders):
    """The table of the memory of whole steps."""
    parts = {
        "forward and backward": ("step_of_layer", {"elements": elements}),
        "a step of the example's CNN": ("step_of_model", {}),
    }
    rows = []
    for part, (function, arguments) in parts.items():
        for suffix, folder in folders.items():
            planned = {
                name: _largest_program(folder, function, layer=name, **arguments)
                for name in LAYERS
            }
            for name, size in planned.items():
                figures = {"MB": size / 2**20, f"to {DROPOUT}": size / planned[DROPOUT]}
                rows.append(Row(f"{part}, {name}{suffix}", figures))
    title = f"whole steps with jit_compile=True, {elements:,} elements, batch 64"
    note = "Bytes that XLA plans for the program, its inputs and outputs included."
    return Table(title, note, rows)


def run(settings: Settings) -> Iterable[Table]:
    """Yields the tables of this suite."""
    folders = {"": None}
    if settings.against:
        folders[OTHER] = settings.against
    for group in GROUPS:
        yield _group(group, settings, folders)
    elements = 2**16 if settings.quick else 2**22
    yield _backward(elements, folders)
    yield _whole_steps(elements, folders)
