"""A process that runs candidates when it is told to.

    python -m benchmarks.worker [FOLDER]

reads requests from stdin and answers on stdout, a line of JSON each. A function has the
address "module:name".

    {"do": "call", "function": ..., "arguments": {...}}
        returns what the function returns
    {"do": "make", "function": ..., "arguments": {...}}
        returns the names of the candidates that the function makes
    {"do": "run", "name": ...}
        runs one of them, and returns [CPU seconds, wall seconds]

The answer is {"result": ...} or {"error": ...}. With FOLDER the package comes from
there, another checkout of this repository.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from benchmarks.timing import timed


class Desk:
    """Answers requests. Holds the candidates that the last "make" made."""

    def __init__(self) -> None:
        self._candidates: dict[str, Callable[[], object]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"result": self._do(**request)}
        except Exception as error:  # It is told to the process that asked.
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}

    def _do(self, do, name=None, function=None, arguments=None):
        if do == "run":
            return timed(self._candidates[name])
        if do == "make":
            # The old ones go first, since both may not fit into memory.
            self._candidates = {}
            self._candidates = _at(function)(**arguments)
            return list(self._candidates)
        if do == "call":
            return _at(function)(**arguments)
        raise ValueError(f"A request is to call, make or run. Received: do={do!r}.")


def _at(address):
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.argv[1:]:
        # `benchmarks` is imported already, so this is for the package alone.
        sys.path.insert(0, sys.argv[1])
    desk = Desk()
    for line in sys.stdin:
        print(json.dumps(desk.answer(json.loads(line))), file=answers, flush=True)
    # Threads of `fit` may still wait for a turn.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
