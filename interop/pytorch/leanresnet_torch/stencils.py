"""The stencils: which neighbours of a pixel the spatial part of a lean convolution reads."""

import torch

from .checks import one_of

# Rows of the square that weights are stored in, 1 for each tap.
STENCILS = {
    "cross4": ("010", "101", "010"),
    "cross5": ("010", "111", "010"),
    "box9": ("111", "111", "111"),
    "row3": ("000", "111", "000"),
    "col3": ("010", "010", "010"),
    "box25": ("11111",) * 5,
}


def stencil_mask(stencil: str) -> torch.Tensor:
    """The taps of a stencil: a square of booleans, 3x3 or 5x5."""
    rows = STENCILS[one_of("stencil", stencil, STENCILS)]
    return torch.tensor([[tap == "1" for tap in row] for row in rows], device="cpu")
