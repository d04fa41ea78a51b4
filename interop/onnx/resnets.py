"""ResNets as torchvision builds them (He et al. 2016; stride in the 3x3 convolution of bottlenecks), with random weights and norms that
have seen data: running statistics, scales and shifts that are not those of a fresh norm."""

import torch
from torch import nn

# Per network: bottlenecks or pairs of 3x3 convolutions, and blocks of every stage.
RESNETS = {"resnet18": (False, (2, 2, 2, 2)), "resnet34": (False, (3, 4, 6, 3)), "resnet50": (True, (3, 4, 6, 3))}


class Block(nn.Module):
    """Two 3x3 convolutions, or a 3x3 convolution between two 1x1 convolutions, around a shortcut."""

    def __init__(self, inputs, width, stride, is_bottleneck):
        super().__init__()
        outputs = 4 * width if is_bottleneck else width
        kernels = (1, 3, 1) if is_bottleneck else (3, 3)
        widths = (inputs, width, width, outputs) if is_bottleneck else (inputs, width, outputs)
        strides = (1, stride, 1) if is_bottleneck else (stride, 1)
        self.relu = nn.ReLU(inplace=True)
        for index, kernel in enumerate(kernels, 1):
            conv = nn.Conv2d(widths[index - 1], widths[index], kernel, strides[index - 1], kernel // 2, bias=False)
            self.add_module(f"conv{index}", conv)
            self.add_module(f"bn{index}", nn.BatchNorm2d(widths[index]))
        self.parts = len(kernels)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        for index in range(1, self.parts + 1):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x))
            if index < self.parts:
                x = self.relu(x)
        x = x + identity
        return self.relu(x)


class ResNet(nn.Module):
    """Images, batch x 3 x height x width, to logits."""

    def __init__(self, name, classes=1000):
        super().__init__()
        is_bottleneck, blocks = RESNETS[name]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, count in enumerate(blocks):
            width = 64 << stage
            layers = []
            for block in range(count):
                layers.append(Block(inputs, width, 2 if stage > 0 and block == 0 else 1, is_bottleneck))
                inputs = 4 * width if is_bottleneck else width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def with_random_norms(network, seed):
    """The network in inference, its norms drawn around those that keep activations at their size."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        with torch.no_grad():
            tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            uniform(module.weight, -((6 / fan_in) ** 0.5), (6 / fan_in) ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.5, 1.2)
            uniform(module.bias, -0.3, 0.3)
            uniform(module.running_mean, -0.4, 0.4)
            uniform(module.running_var, 0.6, 3.0)
    return network.eval()
