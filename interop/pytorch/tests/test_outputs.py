"""The outputs of `leanresnet predict` are those of PyTorch, on every preset and on random networks of the grammar."""

import numpy as np
import pytest
import torch
from leanresnet_torch import PRESETS, Network, from_leanresnet, to_leanresnet
from networks import random_module, random_toml

IMAGES = 8


def difference(outputs: torch.Tensor, exact: torch.Tensor) -> float:
    return float((outputs.double() - exact).abs().max())


def assert_same_outputs(module, leanresnet, folder):
    """Within twice the error of PyTorch's own f32, both against PyTorch in f64."""
    to_leanresnet(module, folder / "model.safetensors")
    images = torch.randn(IMAGES if module.network.input[1] < 200 else 2, *module.network.input)
    np.save(folder / "x.npy", images.numpy())
    leanresnet("predict", folder / "model.safetensors", "--input", folder / "x.npy", "--output", folder / "y.npy")
    ours = torch.from_numpy(np.load(folder / "y.npy"))
    with torch.inference_mode():
        single = module(images)
        exact = from_leanresnet(folder / "model.safetensors").double()(images.double())
    assert single.shape == ours.shape
    naive, own = difference(single, exact), difference(ours, exact)
    print(f"{own:.3g} {naive:.3g} {own / naive:.2f} {float(exact.abs().max()):.3g}")
    assert own <= 2 * naive


@pytest.mark.parametrize("preset", PRESETS)
def test_outputs_of_presets(preset, leanresnet, tmp_path):
    assert_same_outputs(random_module(preset), leanresnet, tmp_path)


@pytest.mark.parametrize("seed", range(30))
def test_outputs_of_random_networks(seed, leanresnet, tmp_path):
    assert_same_outputs(random_module(Network.from_toml(random_toml(seed)), seed), leanresnet, tmp_path)
