"""What a process keeps in memory. Linux with glibc only."""

import ctypes
import gc
import re
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

# MB of memory, number of graphs and CPU seconds.
Kept = tuple[float, float, float]


def resident() -> float:
    """Returns the MB of memory that this process uses."""
    for _ in range(3):
        gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def in_use() -> tuple[float, int]:
    """Returns (MB of memory, number of graphs) that this process uses."""
    memory = resident()
    # By type(): isinstance would ask weak references what they refer to.
    graphs = sum(issubclass(type(thing), tf.Graph) for thing in gc.get_objects())
    return memory, graphs


def added(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(before, after, strict=True)]


def kept(unit: Callable, arguments: Iterable, burn_in: Iterable) -> Kept:
    """Returns what calls of `unit` keep, after calls with `burn_in`."""
    for argument in burn_in:
        unit(*argument)
    before, start = in_use(), time.process_time()
    for argument in arguments:
        unit(*argument)
    cpu = time.process_time() - start
    return *added(before, in_use()), cpu


def peak(unit: Callable[[], object]) -> float:
    """Returns the MB that this process uses at the worst moment of `unit`."""
    # From here on the kernel notes the largest size anew.
    Path("/proc/self/clear_refs").write_text("5")
    unit()
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


class Snapshots(keras.callbacks.Callback):
    """Measures what is in use after two of the batches or epochs of a fit."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.at = {first: None, last: None}

    def _take(self, number):
        if number in self.at:
            # Measuring takes time that does not count.
            start = time.process_time()
            use = in_use()
            self.at[number] = (*use, time.process_time()), start

    def kept(self) -> Kept:
        (first, _), (last, end) = self.at.values()
        return *added(first[:2], last[:2]), end - first[2]


class AfterBatches(Snapshots):
    """Counts batches."""

    def on_train_batch_end(self, batch, logs=None):
        self._take(batch + 1)


class AfterEpochs(Snapshots):
    """Counts epochs."""

    def on_epoch_end(self, epoch, logs=None):
        self._take(epoch + 1)
