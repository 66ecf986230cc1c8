"""What one training run is asked for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What a controller moves, by the name that its argument `actuator` takes; and a
# threshold layer without a controller.
LAYER = "layer"
THRESHOLDS = ("threshold", LAYER)
ACTUATORS = ("penalty", "threshold", "q", "weight", LAYER)
# What comes before: the model as it is, and settings that are held.
PLAIN, FIXED, HELD = "plain", "fixed weight", "q held"
# What else people do who have a target.
STAGED, SQUARED = "staged weight", "squared loss"


@dataclass(frozen=True)
class Request:
    """A training run.

    Attributes:
        job: Name of the job.
        way: One of the names above.
        seed: Of the initial weights and of the order of samples.
        asked: Pairs of a layer and what it is asked for. Empty if nothing is.
        setting: What is held: the weight, or q. In stages, the last weight.
        epochs: Number of epochs; None for the job's own.
    """

    job: str
    way: str
    seed: int
    asked: tuple[tuple[str, float], ...] = ()
    setting: float | None = None
    epochs: int | None = None

    @property
    def target(self) -> dict[str, float]:
        """What each layer is asked for, by name."""
        return dict(self.asked)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What came of it, on data that were not seen.

    Attributes:
        metric: What `figures` are.
        figures: By layer, measured at inference.
        score: Accuracy; of a regression, R squared.
        by_epoch: The mean over the layers of what a controller had at each epoch's end.
        setting: The mean of what it moved, at the end.
        said: Its warnings.
        cpu: Seconds of CPU.
        error: What went wrong. Then there are no figures.
    """

    metric: str = ""
    figures: Mapping[str, float] | None = None
    score: float | None = None
    by_epoch: tuple[float, ...] = ()
    setting: float | None = None
    said: tuple[str, ...] = ()
    cpu: float = 0.0
    error: str = ""
