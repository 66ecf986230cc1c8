"""Tables for pandas, which is optional."""


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
