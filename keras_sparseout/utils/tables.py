"""Turns rows into columns, and columns into a table of pandas, which is optional."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turns rows into a list for each key, with NaN where a row lacks the key.

    Example:

    >>> columns([{"epoch": 0}, {"epoch": 1, "rate": 0.5}])
    {'epoch': [0, 1], 'rate': [nan, 0.5]}
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key, math.nan) for row in rows] for key in keys}


def dataframe(
    columns: Mapping[str, Sequence[Any]], index: Sequence[Any] | None = None
) -> "pd.DataFrame":
    """Turns columns into a pandas.DataFrame."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "to_dataframe() needs pandas, which is not installed. Install it: "
            "pip install pandas"
        ) from error
    return pd.DataFrame(columns, index=index)
