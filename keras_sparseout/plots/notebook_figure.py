"""The figure that all pictures are drawn in. This module alone needs Matplotlib."""

import io

from matplotlib import figure


# Matplotlib prints a figure by the name of its class.
class Figure(figure.Figure):
    """A Matplotlib figure that a notebook shows without pyplot.

    With `%matplotlib inline` Matplotlib shows figures in a notebook by itself. The
    notebook then prefers that to the method below, so it shows a figure once.
    """

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
