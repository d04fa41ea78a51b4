"""The presets small, base and imagenet of leanresnet as PyTorch modules, with the same names of parameters: a state dict of one is
that of the other.

    network = LeanResNet("small")
    torch_state = network.state_dict()      # what `leanresnet import` reads, saved as safetensors
"""

import torch
from torch import nn

# Per preset: the stem's kernel and stride, width and blocks of every stage, classes, height and width of the images.
PRESETS = {
    "small": dict(stem=(3, 1), widths=(32, 64, 128), blocks=(3, 3, 3), classes=10, side=32),
    "base": dict(stem=(3, 1), widths=(64, 128, 256), blocks=(5, 5, 5), classes=10, side=32),
    "imagenet": dict(stem=(7, 4), widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), classes=1000, side=224),
}


class LeanConv(nn.Module):
    """A depth-wise stencil of five points and a 1x1 convolution of the same input, added."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        cross = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
        self.register_buffer("cross", cross, persistent=False)
        with torch.no_grad():
            self.spatial.weight.mul_(cross)

    def forward(self, x):
        # The product keeps the corners at zero in training.
        stencil = self.spatial.weight * self.cross
        return nn.functional.conv2d(x, stencil, padding=1, groups=x.shape[1]) + self.pointwise(x)


class Block(nn.Module):
    """x + L2 relu(norm(L1 x))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.norm1, self.conv2 = LeanConv(channels), nn.BatchNorm2d(channels), LeanConv(channels)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.norm1(self.conv1(x))))


class Widen(nn.Module):
    """Convolution, norm and ReLU: the stem, or after a pool a connection between stages."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class LeanResNet(nn.Module):
    """Images, batch x 3 x height x width, to logits."""

    def __init__(self, preset: str):
        super().__init__()
        config = PRESETS[preset]
        widths = config["widths"]
        self.stem = Widen(3, widths[0], *config["stem"])
        self.connections = nn.ModuleList(Widen(a, b, 1) for a, b in zip(widths, widths[1:]))
        stages = zip(widths, config["blocks"])
        self.stages = nn.ModuleList(nn.Sequential(*(Block(width) for _ in range(blocks))) for width, blocks in stages)
        self.head = nn.Linear(widths[-1], config["classes"])

    def forward(self, x):
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.connections[index - 1](nn.functional.avg_pool2d(x, 2))
            x = stage(x)
        return self.head(x.mean((2, 3)))
