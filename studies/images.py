"""Are dense activations good for image classification, as the paper says?

It trains the example's CNN on Fashion-MNIST with Sparseout at several q, in three arms:
at equal rate; at matched strength, where each layer's rate is set so that its noise is
as strong as it would be at q = 2; and at each q's own best rate. It asks the same
without Sparseout: thresholds and penalties make activations sparse at equal noise. It
trains LeNet-5 and wide residual networks beside it.

The contrast that was fixed before any run is the test accuracy of q = 3 against q = 2,
at matched strength, in 10 pairs of runs that share their seeds.
"""

from studies.parts.images.pictures import draw
from studies.parts.images.plan import Settings, kind, runs, tiny
from studies.parts.images.run import run
from studies.parts.images.tables import tables

__all__ = ["VERSION", "Settings", "draw", "kind", "run", "runs", "tables", "tiny"]

VERSION = 1
