"""The outputs of `leanresnet predict` are those of PyTorch, on every preset and on random networks of the grammar."""

import numpy as np
import pytest
import torch
from leanresnet_torch import PRESETS, Network, from_leanresnet, to_leanresnet
from naive import NaiveSums
from networks import random_module, random_toml
from torch.nn import functional


def difference(outputs: torch.Tensor, exact: torch.Tensor) -> float:
    return float((outputs.double() - exact).abs().max())


def assert_same_outputs(module, images: int, leanresnet, folder):
    """The error of ours and of PyTorch's, in f32, is at most twice that of naive sums; PyTorch in f64 is exact enough to tell."""
    to_leanresnet(module, folder / "model.safetensors")
    images = torch.randn(images, *module.network.input)
    np.save(folder / "x.npy", images.numpy())
    leanresnet("predict", folder / "model.safetensors", "--input", folder / "x.npy", "--output", folder / "y.npy")
    ours = torch.from_numpy(np.load(folder / "y.npy"))
    with torch.inference_mode():
        theirs = module(images)
        with NaiveSums():
            naive = module(images)
        exact = from_leanresnet(folder / "model.safetensors").double()(images.double())
    assert ours.shape == exact.shape
    # At least one unit in the last place of the largest output: the sums of a tiny network may be exact by chance.
    scale = max(difference(naive, exact), 2.0**-23 * float(exact.abs().max()))
    ratios = difference(ours, exact) / scale, difference(theirs, exact) / scale
    print("error of ours {:.2f}, of PyTorch's {:.2f} times that of naive sums".format(*ratios))
    assert max(ratios) <= 2


@pytest.mark.parametrize("preset", PRESETS)
def test_outputs_of_presets(preset, leanresnet, tmp_path):
    assert_same_outputs(random_module(preset), 1 if preset == "imagenet" else 4, leanresnet, tmp_path)


@pytest.mark.parametrize("seed", range(30))
def test_outputs_of_random_networks(seed, leanresnet, tmp_path):
    assert_same_outputs(random_module(Network.from_toml(random_toml(seed)), seed), 8, leanresnet, tmp_path)


@pytest.mark.parametrize(
    "kernel, options",
    [(1, {}), (3, {"padding": 1, "groups": 4}), (3, {"padding": 1, "stride": 2}), (7, {"padding": 3, "stride": 4, "bias": torch.ones(8)})],
)
def test_naive_sums_are_those_of_pytorch(kernel, options):
    """Small integers: sums of them are exact in any order."""
    groups, padding = options.get("groups", 1), options.get("padding", 0)
    x, weight = (torch.randint(-3, 4, shape).float() for shape in ((2, 8, 9, 7), (8, 8 // groups, kernel, kernel)))
    matrix, bias = torch.randint(-3, 4, (5, 7)).float(), torch.ones(5)

    def results():
        y = functional.conv2d(x, weight, **options)
        return y, functional.conv_transpose2d(y, weight, padding=padding, groups=groups), functional.linear(x[0, 0], matrix, bias)

    with NaiveSums():
        naive = results()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(naive, results()))
