"""The figures that all pictures are drawn in; the module that needs Matplotlib."""

import io

from matplotlib import figure


class Figure(figure.Figure):
    """A figure of Matplotlib that a notebook shows as it is.

    Without pyplot nothing tells the notebook how. `%matplotlib inline` does, and then
    its way goes before this one, so that a figure is shown once.
    """

    def _repr_png_(self):
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
