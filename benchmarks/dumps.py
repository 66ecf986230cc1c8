"""What XLA writes of the programs that it compiles."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.processes import Worker


@contextlib.contextmanager
def xla_dumps(checkout: Path | None, function: str, **arguments: Any) -> Iterator[Path]:
    """Calls a function in a fresh process; gives the folder that XLA wrote to there."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"
        with Worker(checkout, XLA_FLAGS=flags.strip()) as worker:
            worker.call(function, **arguments)
        yield Path(folder)
