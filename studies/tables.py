"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

import numpy as np

MISSING = "-"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def cell(mean: float | None, half: float | None = None, digits: int = 3) -> str:
    """Returns a mean, with half of its interval if that is known."""
    if mean is None or np.isnan(mean):
        return MISSING
    text = f"{mean:.{digits}f}"
    if half is None or np.isnan(half):
        return text
    return f"{text} ± {half:.{digits}f}"
