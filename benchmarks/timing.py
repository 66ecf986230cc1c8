"""What a call takes. Nothing heavy is imported here: workers start with it."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Spent(NamedTuple):
    """Seconds that a call took."""

    cpu: float  # Of all threads of its process.
    wall: float


def timed(function: Callable[[], object]) -> Spent:
    """Calls `function` and returns what that took."""
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)
