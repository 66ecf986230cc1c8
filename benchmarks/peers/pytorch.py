"""PyTorch's dropout, and the step that PyTorch functions are timed in."""

from collections.abc import Callable, Sequence

import torch


def forward_and_backward(
    function: Callable[[torch.Tensor], torch.Tensor], shape: Sequence[int], dtype: str
) -> Callable[[], float]:
    """A function that runs one step: forward, and backward to the input."""
    dtype = getattr(torch, dtype)
    x = torch.randn(*shape, dtype=dtype, requires_grad=True)
    upstream = torch.randn(*shape, dtype=dtype)

    def run():
        y = function(x)
        (dx,) = torch.autograd.grad(y, x, upstream)
        return float(y[0, 0]) + float(dx[0, 0])

    return run


def candidates(shape: Sequence[int], dtype: str) -> dict[str, Callable[[], float]]:
    def dropout(x):
        return torch.nn.functional.dropout(x, 0.5, training=True)

    return {"PyTorch dropout": forward_and_backward(dropout, shape, dtype)}
