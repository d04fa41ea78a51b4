"""Descriptions: presets and random networks are those that leanresnet has, layer by layer, and both refuse the same."""

import dataclasses

import pytest
import torch
from conftest import Failed
from leanresnet_torch import PRESETS, Block, Connection, LeanResNet, Network, Stage, Stem
from leanresnet_torch.layers import StencilConv2d
from networks import random_toml
from torch import nn


def layers(module: LeanResNet) -> tuple[list, dict]:
    """The names of the layers in the order in which they ran; output, trainable values and multiply-adds of each."""
    order, found = [], {}

    def record(name):
        def hook(layer, inputs, output):
            shape = [*output.shape[1:], 1, 1][:3]
            order.append(name)
            found[name] = (shape, trainable_values(layer), products(layer) * shape[0] * shape[1] * shape[2])

        return hook

    is_layer = (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Linear)
    for name, layer in module.named_modules():
        # A part of a convolution is none by itself.
        if name.endswith(("conv1", "conv2")) or (isinstance(layer, is_layer) and not name.endswith(("spatial", "pointwise"))):
            layer.register_forward_hook(record(name))
    module.eval()(torch.zeros(1, *module.network.input))
    return order, found


def trainable_values(layer: nn.Module) -> int:
    """The number of parameters without the values outside of stencils."""
    stencils = [part for part in layer.modules() if isinstance(part, StencilConv2d)]
    outside = sum(part.weight.numel() - part.in_channels * part.group_size * part.taps for part in stencils)
    return sum(values.numel() for values in layer.parameters()) - outside


def products(layer: nn.Module) -> int:
    """Multiply-adds of an output value."""
    if isinstance(layer, StencilConv2d):
        return layer.group_size * layer.taps
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
    return layer.in_features if isinstance(layer, nn.Linear) else sum(products(part) for part in layer.children())


def operation(name: str, module: LeanResNet) -> str:
    """The words of `leanresnet summary`."""
    layer = module.get_submodule(name)
    if name.startswith("stages") and "conv" in name:
        stage, conv = int(name.split(".")[1]), int(name[-1]) - 1
        block = module.network.stages[stage].block
        return f"{block.operator} {block.stencil[conv]}" if block.has_stencil else block.operator
    if isinstance(layer, nn.Conv2d):
        side, stride = layer.kernel_size[0], layer.stride[0]
        return f"conv {side}x{side}" + (f" stride {stride}" if stride > 1 else "")
    words = {nn.BatchNorm2d: "batch norm", nn.AvgPool2d: "average pool 2x2", nn.AdaptiveAvgPool2d: "global average pool", nn.Linear: "linear"}
    return words[type(layer)]


def assert_same_layers(module: LeanResNet, summary: dict):
    order, found = layers(module)
    assert summary["parameters"] == trainable_values(module)
    ours = [layer for layer in summary["layers"] if not layer["op"].endswith(" transposed")]
    assert [layer["name"] for layer in ours] == order
    for layer in ours:
        got = [layer["output"], layer["parameters"], layer["macs"], layer["op"]]
        assert got == [*found[layer["name"]], operation(layer["name"], module)], layer["name"]
    # The second convolution of a symmetric block is the first one again.
    for layer in summary["layers"]:
        if layer["op"].endswith(" transposed"):
            assert (layer["output"], 0, layer["macs"]) == (found[layer["name"]][0], layer["parameters"], found[layer["name"]][2])
    assert summary["macs"] == sum(layer["macs"] for layer in summary["layers"])


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_those_of_leanresnet(preset, leanresnet):
    (summary,) = leanresnet("summary", "--preset", preset)
    assert_same_layers(LeanResNet(preset), summary)


def test_there_are_no_other_presets(leanresnet):
    with pytest.raises(Failed) as failed:
        leanresnet("summary", "--preset", "none-of-them")
    assert f"one of {', '.join(PRESETS)}," in failed.value.args[1]


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_are_those_of_leanresnet(seed, leanresnet, tmp_path):
    text = random_toml(seed)
    (tmp_path / "network.toml").write_text(text)
    (summary,) = leanresnet("summary", "--config", tmp_path / "network.toml")
    network = Network.from_file(tmp_path / "network.toml")
    assert_same_layers(LeanResNet(network), summary)
    assert Network.from_table(network.to_table()) == network


def test_random_networks_have_every_word_of_the_grammar():
    networks = [Network.from_toml(random_toml(seed)) for seed in range(30)]
    blocks = [stage.block for network in networks for stage in network.stages]
    for key, count in (("form", 2), ("operator", 4), ("group_size", 6), ("norms", 3), ("relu_after_sum", 2), ("bias", 2)):
        assert len({getattr(block, key) for block in blocks}) == count, key
    assert len({stencil for block in blocks if block.has_stencil for stencil in block.stencil}) == 6
    assert any(block.form == "symmetric" and block.operator == "dense" for block in blocks)
    assert {network.stem.kernel for network in networks} == {1, 3, 7}
    assert {network.stem.stride for network in networks} == {1, 2, 4}
    assert {network.connection.form for network in networks if len(network.stages) > 1} == {"pool-conv", "conv-pool", "strided-conv"}


STAGES = "stages = [{ width = 8, blocks = 1 }]\n"


@pytest.mark.parametrize(
    "body",
    [
        "",
        'preset = "none-of-them"',
        "width = 8\n" + STAGES,
        "stages = []",
        "stages = [{ width = 8 }]",
        "stages = [{ width = 0, blocks = 1 }]",
        "stages = [{ width = 8, blocks = 0 }]",
        "stages = [{ width = 65537, blocks = 1 }]",
        "stages = [{ width = 1, blocks = 1025 }]",
        "stages = [{ width = 8.0, blocks = 1 }]",
        "stages = [{ width = true, blocks = 1 }]",
        'stages = [{ width = 8, blocks = 1, kernel = "box9" }]',
        "input = [3, 32]\n" + STAGES,
        "input = [3, 0, 32]\n" + STAGES,
        "input = [3, 2, 1]\nstages = [{ width = 8, blocks = 1 }, { width = 8, blocks = 1 }]",
        "classes = 0\n" + STAGES,
        'classes = 3\nclass_names = ["a", "b"]\n' + STAGES,
        'class_names = ["a", ""]\n' + STAGES,
        "norm_epsilon = 0\n" + STAGES,
        "norm_momentum = 1.5\n" + STAGES,
        "norm_momentum = nan\n" + STAGES,
        STAGES + "stem = { kernel = 5 }",
        STAGES + "stem = { stride = 3 }",
        STAGES + 'stem = { pool = "max3" }',
        STAGES + 'stem = { norm = "tv" }',
        STAGES + 'stem = { bias = "no" }',
        STAGES + 'connection = { form = "max-pool" }',
        STAGES + 'connection = { norm = "tv" }',
        STAGES + 'block = { stencil = "star7" }',
        STAGES + 'block = { stencil = ["row3"] }',
        STAGES + 'block = { stencil = ["row3", "col3", "row3"] }',
        STAGES + "block = { group_size = 0 }",
        STAGES + "block = { group_size = 3 }",
        "stages = [{ width = 12, blocks = 1, group_size = 3 }]",
        STAGES + 'block = { norm = "none" }',
        STAGES + 'block = { norm = "tv" }',
        STAGES + "block = { norms = 3 }",
        STAGES + "block = { scale = inf }",
        STAGES + "block = { scale = 1e39 }",
        STAGES + 'block = { form = "symmetric", operator = "shift" }',
        STAGES + 'block = { form = "symmetric", stencil = ["row3", "col3"] }',
        STAGES + 'block = { operator = "shift", group_size = 2 }',
    ],
)
def test_both_refuse_the_same(body, leanresnet, tmp_path):
    text = f"version = 1\n[network]\n{body}\n"
    (tmp_path / "network.toml").write_text(text)
    with pytest.raises(Failed) as failed:
        leanresnet("summary", "--config", tmp_path / "network.toml")
    assert failed.value.args[0] == 2
    with pytest.raises(ValueError, match="; expected "):
        Network.from_toml(text)


def test_other_tables_and_versions_are_refused():
    with pytest.raises(ValueError, match="version of the configuration; expected 1"):
        Network.from_toml('version = 2\n[network]\npreset = "small"')
    with pytest.raises(ValueError, match="no others than"):
        Network.from_toml('[network]\npreset = "small"\n[model]')
    assert Network.from_toml('[network]\npreset = "small"\n[train]\nepochs = 3') == Network.preset("small")


def test_keys_override_a_preset():
    text = '[network]\npreset = "cifar10-s"\nclass_names = ["a", "b"]\nblock = { norms = 0 }\nstem = { bias = true }'
    network = Network.from_toml(text)
    assert (network.classes, network.stem) == (2, Stem(bias=True))
    assert network.stages[0].block == Block(stencil="box9", norms=0, relu_after_sum=True, bias=True)
    assert [(stage.width, stage.blocks) for stage in network.stages] == [(48, 4), (96, 3), (192, 2)]


def test_networks_are_made_in_python_too():
    network = Network((Stage(8, 2, Block(stencil="box9", scale=0.1)),), connection=Connection(norm="none"))
    same = '[network]\nstages = [{ width = 8, blocks = 2, stencil = "box9", scale = 0.1 }]\nconnection = { norm = "none" }'
    assert network == Network.from_toml(same)
    assert dataclasses.replace(network, classes=7).classes == 7
    with pytest.raises(ValueError, match="network.classes; expected an integer of at least 1, got 0"):
        dataclasses.replace(network, classes=0)
