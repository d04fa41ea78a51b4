"""The networks of leanresnet as a module."""

from collections import OrderedDict

import torch
from torch import nn

from .layers import DenseConv2d, LeanConv2d, SeparableConv2d, ShiftConv2d, init_normal_
from .network import Block, Network
from .preprocess import Preprocess
from .validate import check_class_names


class LeanResNet(nn.Module):
    """Images [images, channels, height, width], as `preprocess` makes them, to logits [images, classes].

    `network` is a `Network` or the name of a preset. What a model file holds besides the weights is here too: `preprocess`,
    `class_names` and `provenance`, words about where the weights come from.
    """

    def __init__(self, network: Network | str, preprocess: Preprocess | None = None, class_names=None, provenance: str = ""):
        super().__init__()
        network = Network.preset(network) if isinstance(network, str) else network
        self.network = network
        self.preprocess = preprocess or Preprocess.identity(network.input[0])
        self.class_names = network.class_names if class_names is None else class_names
        self.provenance = provenance

        widths = [stage.width for stage in network.stages]
        self.stem = _stem(network)
        self.connections = nn.ModuleList(_connection(network, *pair) for pair in zip(widths, widths[1:]))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(network, stage.block, stage.width) for _ in range(stage.blocks)))
            for stage in network.stages
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], network.classes)
        init_normal_(self.head.weight, 1 / widths[-1])
        nn.init.zeros_(self.head.bias)

    @property
    def preprocess(self) -> Preprocess:
        """The transform from bytes to the network's input."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, preprocess: Preprocess):
        self._preprocess = preprocess.for_input(self.network.input)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes: as many as there are classes, or none."""
        return self._class_names

    @class_names.setter
    def class_names(self, names):
        check_class_names(tuple(names), self.network.classes)
        self._class_names = tuple(names)

    def forward(self, x):
        x = self.stages[0](self.stem(x))
        for connection, stage in zip(self.connections, self.stages[1:]):
            x = stage(connection(x))
        return self.head(self.pool(x).flatten(1))


class ResidualBlock(nn.Module):
    """A block in residual or symmetric form; see `Block`, which describes it."""

    def __init__(self, network: Network, block: Block, width: int):
        super().__init__()
        self.conv1 = _convolution(block, width, 0)
        self.norm1 = _norm(network, width, block.norms >= 1)
        self.is_symmetric = block.form == "symmetric"
        if not self.is_symmetric:
            self.conv2 = _convolution(block, width, 1)
        self.norm2 = _norm(network, width, block.norms >= 2)
        self.scale = -block.scale if self.is_symmetric else block.scale
        self.relu_after_sum = block.relu_after_sum

    def forward(self, x):
        hidden = torch.relu(self.norm1(self.conv1(x)))
        branch = self.norm2(self.conv1.transpose(hidden) if self.is_symmetric else self.conv2(hidden))
        x = x + branch if self.scale == 1 else x + self.scale * branch
        return torch.relu(x) if self.relu_after_sum else x

    def extra_repr(self):
        return f"scale={self.scale}, relu_after_sum={self.relu_after_sum}"


def _stem(network: Network) -> nn.Sequential:
    stem = network.stem
    conv = _conv(network.input[0], network.stages[0].width, stem.kernel, stem.stride, stem.bias)
    return nn.Sequential(_conv_norm_relu(network, conv, stem.norm))


def _connection(network: Network, inputs: int, outputs: int) -> nn.Sequential:
    form, bias = network.connection.form, network.connection.bias
    conv = _conv(inputs, outputs, 3, 2, bias) if form == "strided-conv" else _conv(inputs, outputs, 1, 1, bias)
    layers = _conv_norm_relu(network, conv, network.connection.norm)
    if form != "strided-conv":
        layers["pool"] = nn.AvgPool2d(2)
        layers.move_to_end("pool", last=form == "conv-pool")
    return nn.Sequential(layers)


def _conv_norm_relu(network: Network, conv: nn.Conv2d, norm: str) -> OrderedDict:
    return OrderedDict(conv=conv, norm=_norm(network, conv.out_channels, norm == "batch"), relu=nn.ReLU())


def _conv(inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=bias)
    init_normal_(conv.weight, 2 / (inputs * kernel**2))
    if bias:
        nn.init.zeros_(conv.bias)
    return conv


def _norm(network: Network, width: int, is_there: bool) -> nn.Module:
    return nn.BatchNorm2d(width, network.norm_epsilon, network.norm_momentum) if is_there else nn.Identity()


def _convolution(block: Block, width: int, index: int) -> nn.Module:
    """The first (0) or second (1) convolution of a block."""
    if block.operator == "dense":
        return DenseConv2d(width, block.bias)
    if block.operator == "shift":
        return ShiftConv2d(width, block.bias)
    kind = LeanConv2d if block.operator == "lean" else SeparableConv2d
    return kind(width, block.stencil[index], block.group_size, block.bias)
