"""Pictures of sparsity: while a model trained, and of what it became.

Each function takes plain data and returns a `matplotlib.figure.Figure`, which with
`path` it also writes as .png, .svg or .pdf. None of them uses pyplot, so there is
nothing to close; a notebook shows the figure that a cell ends with.
Matplotlib comes with `pip install "keras_sparseout[plots]"`.
"""

from keras_sparseout.plots.control_plot import control
from keras_sparseout.plots.frontier_plot import frontier
from keras_sparseout.plots.histograms_plot import histograms
from keras_sparseout.plots.sparsity_plot import heat_map, sparsity

__all__ = ["control", "frontier", "heat_map", "histograms", "sparsity"]
