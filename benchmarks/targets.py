"""The bounds that measured figures are held against."""

from typing import NamedTuple


class Target(NamedTuple):
    """What is bounded, and the largest value that meets it."""

    what: str
    at_most: float


_PLAIN = "without XLA, to keras Dropout"
TARGETS = {
    "op, special q": Target(
        "forward + backward, q in {1, 1.5, 2, 2.5, 3}, to keras Dropout", 0.4
    ),
    "op, other q": Target("forward + backward, any other q, to keras Dropout", 0.75),
    "plain, float32, q=2": Target(f"{_PLAIN}, float32, q = 2", 1.0),
    "plain, float32, special q": Target(f"{_PLAIN}, float32, special q", 1.25),
    "plain, float32, other q": Target(f"{_PLAIN}, float32, any other q", 1.5),
    "plain, bfloat16, q=2": Target(f"{_PLAIN}, bfloat16, q = 2", 1.25),
    "plain, bfloat16, special q": Target(f"{_PLAIN}, bfloat16, special q", 1.55),
    "plain, bfloat16, other q": Target(f"{_PLAIN}, bfloat16, any other q", 1.75),
    "adjustable": Target("adjustable, to the fixed one", 1.1),
    "step, example's CNN": Target(
        "added to a step of the example's CNN, to what Dropout adds", 0.4
    ),
    "step, depthwise CNN": Target(
        "added to a step of the depthwise CNN, to what Dropout adds", 0.5
    ),
    "op, jit_compile=True": Target(
        "under jit_compile=True, to keras Dropout there", 0.012
    ),
    "Bridgeout(Dense)": Target(
        "Bridgeout(Dense), 1024 to 1024, batch 128, to Dense", 1.25
    ),
    "Bridgeout(Embedding)": Target("Bridgeout(Embedding), to Embedding", 1.3),
    "threshold, step, example's CNN": Target(
        "TargetSparsity added to a step of the example's CNN, to what Dropout adds", 1.0
    ),
    "threshold, step, MLP of 128 units": Target(
        "TargetSparsity added to a step of a small MLP, to what Dropout adds", 1.0
    ),
    "threshold, inference": Target("TargetSparsity at inference, to a ReLU", 1.2),
    "threshold, predict, example's CNN": Target(
        "predict of the example's CNN with TargetSparsity, to without", 1.05
    ),
    "threshold, predict, MLP of 128 units": Target(
        "predict of a small MLP with TargetSparsity, to without", 1.05
    ),
    "control": Target(
        "an epoch with SparsityController moving a penalty, to the same fixed one", 1.03
    ),
    "kept, q=2": Target("bytes kept for the backward pass, q = 2, in sizes of x", 0.0),
    "kept, other q": Target(
        "bytes kept for the backward pass, q other than 2, in sizes of x", 1.0
    ),
    "first step": Target("first step of the example's CNN, to Dropout's", 2.0),
    "sizes": Target("ns an element at 2^26 elements, to that at 2^20", 1.5),
}


class Check(NamedTuple):
    """A measured figure beside its target."""

    target: Target
    row: str
    measured: float

    @property
    def met(self) -> bool:
        return self.measured <= self.target.at_most


def check(target: str, row: str, measured: float) -> Check:
    """Holds a figure against one of `TARGETS`."""
    return Check(TARGETS[target], row, measured)
