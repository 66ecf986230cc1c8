"""Tables: rows as columns, and for pandas, which is optional."""

import math


def columns(rows):
    """Returns a dict of lists by key from dicts, NaN where a row lacks a key."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key, math.nan) for row in rows] for key in keys}


def dataframe(columns, index=None):
    """Returns a pandas.DataFrame of a dict of columns."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "to_dataframe() needs pandas, which is not installed. Install it: "
            "pip install pandas"
        ) from error
    return pd.DataFrame(columns, index=index)
