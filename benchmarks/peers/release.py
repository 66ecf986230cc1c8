"""The authors' release of 2019: a file for PyTorch, no part of this repository."""

import importlib.util
from collections.abc import Callable, Sequence

from benchmarks.peers.pytorch import forward_and_backward

QS = (1.5, 2, 1.3)


def candidates(
    shape: Sequence[int], dtype: str, file: str
) -> dict[str, Callable[[], float]]:
    spec = importlib.util.spec_from_file_location("release", file)
    release = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(release)

    def sparseout(q):
        return lambda x: release.sparseout(x, 0.5, q, training=True)

    return {
        f"the authors' release q={q:g}": forward_and_backward(
            sparseout(q), shape, dtype
        )
        for q in QS
    }
