"""The networks of the presets: random weights, ONNX graphs, a float64 reference, and what they cost.

A network is written once, in `forward`, and read by several sets of operators: one builds ONNX, one computes in float64, one
counts flops and bytes, and one (in engines.py) runs PyTorch. So all engines run the same network by construction.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

EPSILON = 1e-5
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.float32)
CHECKED_IMAGES = 2


@dataclass(frozen=True)
class Preset:
    """A network as the preset of the same name describes it."""

    size: int
    stem_kernel: int
    stem_stride: int
    widths: tuple
    blocks: tuple
    classes: int


PRESETS = {
    "small": Preset(32, 3, 1, (32, 64, 128), (3, 3, 3), 10),
    "base": Preset(32, 3, 1, (64, 128, 256), (5, 5, 5), 10),
    "imagenet": Preset(224, 7, 4, (64, 128, 256, 512), (3, 4, 6, 3), 1000),
}


def random_weights(preset: Preset, seed: int = 1) -> dict:
    """A state dict under PyTorch's names, with norms that do something and activations that neither vanish nor explode."""
    random = np.random.default_rng(seed)
    weights = {}

    def normal(name, shape, scale):
        weights[name] = (scale * random.standard_normal(shape)).astype(np.float32)

    def norm(name, width):
        normal(f"{name}.bias", width, 0.1)
        normal(f"{name}.running_mean", width, 0.1)
        for part in ("weight", "running_var"):
            weights[f"{name}.{part}"] = random.uniform(0.5, 1.5, width).astype(np.float32)

    kernel, first = preset.stem_kernel, preset.widths[0]
    normal("stem.conv.weight", (first, 3, kernel, kernel), (3 * kernel**2) ** -0.5)
    norm("stem.norm", first)
    for index, (before, width) in enumerate(zip(preset.widths, preset.widths[1:])):
        normal(f"connections.{index}.conv.weight", (width, before, 1, 1), before**-0.5)
        norm(f"connections.{index}.norm", width)
    for stage, (width, blocks) in enumerate(zip(preset.widths, preset.blocks)):
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            for conv in ("conv1", "conv2"):
                normal(f"{name}.{conv}.spatial.weight", (width, 1, 3, 3), 0.3)
                weights[f"{name}.{conv}.spatial.weight"] *= CROSS
                normal(f"{name}.{conv}.pointwise.weight", (width, width, 1, 1), 0.7 * width**-0.5)
            norm(f"{name}.norm1", width)
    normal("head.weight", (preset.classes, preset.widths[-1]), preset.widths[-1] ** -0.5)
    normal("head.bias", preset.classes, 0.1)
    return weights


def fold(weights: dict, dtype) -> dict:
    """The weights without norms: each is folded into the convolution before it, in float64, then rounded once to `dtype`."""
    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    norms = [name.removesuffix(".running_mean") for name in weights if name.endswith(".running_mean")]
    for norm in norms:
        conv = norm.replace("norm", "conv")
        mean, variance, gain, bias = (exact.pop(f"{norm}.{part}") for part in ("running_mean", "running_var", "weight", "bias"))
        scale = gain / np.sqrt(variance + EPSILON)
        for name in (f"{conv}.weight", f"{conv}.spatial.weight", f"{conv}.pointwise.weight"):
            if name in exact:
                exact[name] *= scale[:, None, None, None]
        exact[f"{conv}.bias"] = bias - mean * scale
    return {name: value.astype(dtype) for name, value in exact.items()}


class Operators:
    """What `forward` calls. A lean convolution is a depth-wise and a 1x1 convolution of the same input, summed."""

    def lean(self, x, spatial, pointwise, bias, residual=None):
        """A block's first convolution is followed by a ReLU, its second one is added to the block's input."""
        channels = len(spatial)
        y = self.add(self.conv(x, spatial, None, groups=channels), self.conv(x, pointwise, bias))
        return self.relu(y) if residual is None else self.add(residual, y)


def forward(preset: Preset, weights: dict, operators: Operators, x):
    """The network on folded weights."""

    def conv_relu(x, name, stride=1):
        return operators.relu(operators.conv(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride))

    def lean(x, name, residual=None):
        parts = (weights[f"{name}.spatial.weight"], weights[f"{name}.pointwise.weight"], weights.get(f"{name}.bias"))
        return operators.lean(x, *parts, residual)

    x = conv_relu(x, "stem.conv", preset.stem_stride)
    for stage, blocks in enumerate(preset.blocks):
        if stage:
            x = conv_relu(operators.pool(x), f"connections.{stage - 1}.conv")
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            x = lean(lean(x, f"{name}.conv1"), f"{name}.conv2", residual=x)
    return operators.head(x, weights["head.weight"], weights["head.bias"])


class Reference(Operators):
    """Float64 in NumPy: a convolution is a sum over its taps of a shifted image times a matrix."""

    def conv(self, x, weight, bias, stride=1, groups=1):
        kernel = weight.shape[-1]
        pad = (kernel - 1) // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        height, width = ((extent + 2 * pad - kernel) // stride + 1 for extent in x.shape[2:])
        y = np.zeros((len(x), len(weight), height, width))
        for row, column in np.ndindex(kernel, kernel):
            tap = weight[:, :, row, column]
            if tap.any():
                seen = padded[:, :, row : row + stride * height : stride, column : column + stride * width : stride]
                product = tap[:, :, None] * seen if groups > 1 else np.tensordot(tap, seen, (1, 1)).swapaxes(0, 1)
                y += product
        return y if bias is None else y + bias[:, None, None]

    def add(self, x, y):
        return x + y

    def relu(self, x):
        return np.maximum(x, 0)

    def pool(self, x):
        images, channels, height, width = x.shape
        return x.reshape(images, channels, height // 2, 2, width // 2, 2).mean((3, 5))

    def head(self, x, weight, bias):
        return x.mean((2, 3)) @ weight.T + bias


class Graph(Operators):
    """Builds ONNX, as an exporter would: every convolution is a node of its own."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value) -> str:
        name = f"weight{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind, inputs, **attributes) -> str:
        output = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def conv(self, x, weight, bias, stride=1, groups=1):
        kernel = weight.shape[-1]
        inputs = [x, self.constant(weight)] + ([] if bias is None else [self.constant(bias)])
        extents = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [(kernel - 1) // 2] * 4}
        return self.node("Conv", inputs, group=groups, **extents)

    def add(self, x, y):
        return self.node("Add", [x, y])

    def relu(self, x):
        return self.node("Relu", [x])

    def pool(self, x):
        return self.node("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])

    def head(self, x, weight, bias):
        means = self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)
        return self.node("Gemm", [means, self.constant(weight), self.constant(bias)], transB=1)


def onnx_model(preset: Preset, folded: dict, batch: int):
    """The network for one batch size, which lets engines plan for it."""
    graph = Graph()
    output = forward(preset, folded, graph, "input")
    tensors = [("input", [batch, 3, preset.size, preset.size]), (output, [batch, preset.classes])]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in tensors)
    body = helper.make_graph(graph.nodes, "leanresnet", inputs, outputs, graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


class Cost(Operators):
    """Counts flops and bytes per image: useful flops of the 5-point stencil, and what moves if every layer reads its inputs and
    weights once and writes its output once, with ReLU and sums done in passing. Values are shapes."""

    def __init__(self):
        self.flops = self.activations = self.parameters = 0

    def layer(self, inputs, output, weights, macs):
        self.activations += sum(int(np.prod(shape)) for shape in (*inputs, output))
        self.parameters += weights
        self.flops += 2 * macs
        return output

    def conv(self, x, weight, bias, stride=1):
        kernel = weight.shape[-1]
        height, width = ((extent + 2 * ((kernel - 1) // 2) - kernel) // stride + 1 for extent in x[1:])
        return self.layer([x], (len(weight), height, width), weight.size + bias.size, height * width * weight.size)

    def lean(self, x, spatial, pointwise, bias, residual=None):
        multiplied = pointwise.size + len(spatial) * int(CROSS.sum())
        inputs = [x] if residual is None else [x, residual]
        return self.layer(inputs, x, multiplied + (0 if bias is None else bias.size), x[1] * x[2] * multiplied)

    def relu(self, x):
        return x

    def pool(self, x):
        return self.layer([x], (x[0], x[1] // 2, x[2] // 2), 0, 0)

    def head(self, x, weight, bias):
        return self.layer([x], (len(weight),), weight.size + bias.size, weight.size)


def cost(preset: Preset, folded: dict) -> dict:
    """Flops and bytes of activations per image, and bytes of weights per batch."""
    count = Cost()
    forward(preset, folded, count, (3, preset.size, preset.size))
    return {"flops": count.flops, "activation_bytes": 4 * count.activations, "weight_bytes": 4 * count.parameters}


def onnx_path(folder: Path, name: str, batch: int) -> Path:
    return folder / f"{name}-{batch}.onnx"


def input_path(folder: Path, name: str, batch: int) -> Path:
    return folder / f"{name}-{batch}-input.npy"


def weights_path(folder: Path, name: str) -> Path:
    return folder / f"{name}-weights.safetensors"


def write(folder: Path, name: str, batches: list) -> tuple:
    """Writes weights, graphs and inputs; returns the float64 outputs of the images that every batch repeats, and the cost."""
    preset = PRESETS[name]
    weights = random_weights(preset)
    save_file(weights, weights_path(folder, name))
    folded = fold(weights, np.float32)
    images = np.random.default_rng(7).standard_normal((CHECKED_IMAGES, 3, preset.size, preset.size)).astype(np.float32)
    for batch in batches:
        onnx.save(onnx_model(preset, folded, batch), onnx_path(folder, name, batch))
        np.save(input_path(folder, name, batch), np.resize(images, (batch, *images.shape[1:])))
    reference = forward(preset, fold(weights, np.float64), Reference(), images.astype(np.float64))
    return reference, cost(preset, folded)
