"""Convolutions and products as a textbook has them: one product after the other is rounded and added. The error of these sums is what a
faster order of summation is measured by; it does not depend on the machine."""

from torch.nn import functional
from torch.overrides import TorchFunctionMode


class NaiveSums(TorchFunctionMode):
    """Inside of this context, PyTorch's convolutions and linear layers are naive."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        naive = {functional.conv2d: conv2d, functional.conv_transpose2d: conv_transpose2d, functional.linear: linear}
        return naive.get(function, function)(*args, **(kwargs or {}))


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    (rows, columns), (down, right) = _pair(stride), _pair(padding)
    assert _pair(dilation) == (1, 1)
    x = functional.pad(x, (right, right, down, down))
    outputs, inputs, high, wide = weight.shape
    height, width = (x.shape[2] - high) // rows + 1, (x.shape[3] - wide) // columns + 1
    y = x.new_zeros(len(x), outputs, height, width) if bias is None else bias.view(1, -1, 1, 1).repeat(len(x), 1, height, width)
    members = x.view(len(x), groups, inputs, *x.shape[2:])
    for member in range(inputs):
        channels = members[:, :, member].repeat_interleave(outputs // groups, dim=1)
        for dy in range(high):
            for dx in range(wide):
                read = channels[:, :, dy : dy + rows * height : rows, dx : dx + columns * width : columns]
                y += weight[:, member, dy, dx].view(1, -1, 1, 1) * read[:, :, :height, :width]
    return y


def conv_transpose2d(x, weight, padding=0, groups=1):
    """With stride 1, the convolution with the transposed and turned weight."""
    inputs, outputs, high, wide = weight.shape
    turned = weight.view(groups, inputs // groups, outputs, high, wide).transpose(1, 2).flip(3, 4)
    return conv2d(x, turned.reshape(groups * outputs, inputs // groups, high, wide), padding=padding, groups=groups)


def linear(x, weight, bias):
    y = bias.repeat(len(x), 1)
    for member in range(weight.shape[1]):
        y += x[:, member, None] * weight[:, member]
    return y


def _pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))
