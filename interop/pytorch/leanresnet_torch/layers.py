"""The convolutions of a block. All keep the number of channels and the size of the image; inputs are [images, channels, height, width].

Weights start as leanresnet's do: normal, with variance 2 / fan-in; the two parts of a lean convolution bring half of the output's
variance each, and the depth-wise part of a separable one, which no ReLU follows, has variance 1 / fan-in.
"""

import torch
from torch import nn
from torch.nn import functional

from .checks import invalid
from .stencils import STENCILS, stencil_mask


def init_normal_(weight: torch.Tensor, variance: float):
    nn.init.normal_(weight, std=variance**0.5)


class StencilConv2d(nn.Conv2d):
    """A grouped convolution that reads the taps of a stencil: `weight` is [channels, group_size, side, side], and its values outside
    of the stencil are 0, whatever an optimiser makes of them."""

    def __init__(self, channels: int, stencil: str, group_size: int = 1, device=None, dtype=None):
        mask = stencil_mask(stencil)
        side = len(mask)
        groups = channels // group_size
        super().__init__(channels, channels, side, padding=side // 2, groups=groups, bias=False, device=device, dtype=dtype)
        self.stencil, self.group_size = stencil, group_size
        self.taps = int(mask.sum())
        outside = None if mask.all() else ~mask.to(self.weight.device)
        self.register_buffer("outside", outside, persistent=False)
        self.zero_outside_()

    @torch.no_grad()
    def zero_outside_(self):
        """Sets the values outside of the stencil to 0."""
        self.weight.copy_(self.stencil_weight())

    def stencil_weight(self) -> torch.Tensor:
        """The weight that the convolution computes with."""
        return self.weight if self.outside is None else self.weight.masked_fill(self.outside, 0.0)

    def forward(self, x):
        return functional.conv2d(x, self.stencil_weight(), padding=self.padding, groups=self.groups)

    def transpose(self, x):
        return functional.conv_transpose2d(x, self.stencil_weight(), padding=self.padding, groups=self.groups)

    def extra_repr(self):
        return f"{self.in_channels}, {self.stencil}, group_size={self.group_size}"

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        weight = state_dict.get(f"{prefix}weight")
        mask = stencil_mask(self.stencil)
        if weight is not None and weight.shape[2:] == mask.shape and (weight[..., ~mask.to(weight.device)] != 0).any():
            used = (weight != 0).any(0).any(0).cpu()
            expected = f"zeros outside of {self.stencil} (the smallest stencil that fits is {_smallest_stencil(used)})"
            error_msgs.append(str(invalid(f"{prefix}weight outside of its stencil", expected, "other values")))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


def _smallest_stencil(used: torch.Tensor) -> str:
    """The stencil with the fewest taps that has all that are used."""
    masks = {name: stencil_mask(name) for name in STENCILS}
    fitting = [name for name, mask in masks.items() if mask.shape == used.shape and not (used & ~mask).any()]
    return min(fitting, key=lambda name: int(masks[name].sum()))


class Shift2d(nn.Module):
    """Moves each channel by at most one pixel: `weight`, a buffer [channels, 1, 3, 3], holds a single 1 per channel, at the neighbour that
    the channel comes from. A new one takes channel c from neighbour c mod 9, row by row from the north-west."""

    def __init__(self, channels: int, device=None, dtype=None):
        super().__init__()
        self.register_buffer("weight", torch.empty(channels, 1, 3, 3, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self):
        squares = self.weight.view(-1, 9).zero_()
        channels = torch.arange(len(squares), device=squares.device)
        squares[channels, channels % 9] = 1.0

    def forward(self, x):
        return functional.conv2d(x, self.weight, padding=1, groups=len(self.weight))

    def extra_repr(self):
        return str(len(self.weight))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and weight.shape == self.weight.shape:
            squares = weight.flatten(1)
            is_shift = ((squares == 1).sum(1) == 1) & ((squares != 0).sum(1) == 1)
            if not is_shift.all():
                got = f"others in {int((~is_shift).sum())} channels"
                error_msgs.append(str(invalid(f"{prefix}weight is no shift", "a single 1 and zeros in every channel", got)))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


class _StencilAndMatrix(nn.Module):
    """A stencil, `spatial`, and a 1x1 convolution, `pointwise`, whose bias `bias` is."""

    # What the variance of the 1x1 convolution's weights is by their fan-in.
    pointwise_gain: float

    def __init__(self, channels: int, stencil: str = "cross5", group_size: int = 1, bias: bool = False, device=None, dtype=None):
        super().__init__()
        if channels % group_size:
            raise invalid("group_size", f"a divisor of {channels} channels", group_size)
        self.spatial = StencilConv2d(channels, stencil, group_size, device, dtype)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self):
        init_normal_(self.spatial.weight, 1 / (self.spatial.group_size * self.spatial.taps))
        init_normal_(self.pointwise.weight, self.pointwise_gain / self.pointwise.in_channels)
        self.spatial.zero_outside_()
        _zero_bias_(self.pointwise)


class LeanConv2d(_StencilAndMatrix):
    """A lean convolution: a stencil of every channel for itself (or of groups of `group_size` channels) and a 1x1 convolution of
    the same input, summed. `bias` is the 1x1 convolution's.

    `stencil` is `cross4`, `cross5`, `box9`, `row3`, `col3` or `box25`.
    """

    pointwise_gain = 1

    def forward(self, x):
        return self.spatial(x) + self.pointwise(x)

    def transpose(self, x):
        """The transpose of the convolution without its bias, as a linear map: of the symmetric block."""
        return self.spatial.transpose(x) + functional.conv_transpose2d(x, self.pointwise.weight)


class SeparableConv2d(_StencilAndMatrix):
    """A stencil and then a 1x1 convolution, without norm and ReLU between them. The arguments are those of `LeanConv2d`."""

    pointwise_gain = 2

    def forward(self, x):
        return self.pointwise(self.spatial(x))


class DenseConv2d(nn.Conv2d):
    """A full 3x3 convolution."""

    def __init__(self, channels: int, bias: bool = False, device=None, dtype=None):
        super().__init__(channels, channels, 3, padding=1, bias=bias, device=device, dtype=dtype)

    def reset_parameters(self):
        init_normal_(self.weight, 2 / (9 * self.in_channels))
        _zero_bias_(self)

    def transpose(self, x):
        """The transpose of the convolution without its bias, as a linear map: of the symmetric block."""
        return functional.conv_transpose2d(x, self.weight, padding=1)


class ShiftConv2d(nn.Module):
    """A fixed shift of each channel by at most one pixel, and then a 1x1 convolution."""

    def __init__(self, channels: int, bias: bool = False, device=None, dtype=None):
        super().__init__()
        self.spatial = Shift2d(channels, device, dtype)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self):
        self.spatial.reset_parameters()
        init_normal_(self.pointwise.weight, 2 / self.pointwise.in_channels)
        _zero_bias_(self.pointwise)

    def forward(self, x):
        return self.pointwise(self.spatial(x))


def _zero_bias_(conv: nn.Conv2d):
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
