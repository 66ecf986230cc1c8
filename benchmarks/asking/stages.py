"""A penalty whose weight rises in stages.

Song et al. (2024), "ProSparse: Introducing and Enhancing Intrinsic Activation Sparsity
within Large Language Models", https://arxiv.org/abs/2402.13516: a small weight first,
then stages, in each of which the weight rises along half a period of a sine.
"""

import math

# Ends of the stages as parts of the run, and the weights there as parts of the last.
ENDS = (0.25, 0.5, 0.75)
WEIGHTS = (0.05, 0.3, 1.0)


def staged(done: float) -> float:
    """Returns which part of the last weight to apply when a part of the run is done."""
    stages = zip(ENDS, ENDS[1:], WEIGHTS, WEIGHTS[1:], strict=False)
    for begin, end, low, high in stages:
        if begin < done <= end:
            share = (done - begin) / (end - begin)
            return low + (high - low) * (1 - math.cos(math.pi * share)) / 2
    return WEIGHTS[0] if done <= ENDS[0] else WEIGHTS[-1]
