"""Pictures of sparsity: how it changes while a model trains, and what it becomes.

Each function takes plain data and returns a `matplotlib.figure.Figure`. With `path` it
also writes the figure into a file, which must end in .png, .svg or .pdf, otherwise it
raises a ValueError. No function uses pyplot, so there is nothing to close: a notebook
shows the figure that a cell ends with. All need Matplotlib and raise an ImportError
without it: `pip install "keras_sparseout[plots]"`.
"""

from keras_sparseout.plots.control_plot import control
from keras_sparseout.plots.frontier_plot import frontier
from keras_sparseout.plots.heat_map_plot import heat_map
from keras_sparseout.plots.histograms_plot import histograms
from keras_sparseout.plots.sparsity_plot import sparsity

__all__ = ["control", "frontier", "heat_map", "histograms", "sparsity"]
