"""Steps of training: `leanresnet train` on a few images in one batch, and the same steps in PyTorch."""

import json

import numpy as np
import pytest
import torch
from leanresnet_torch import Network, from_leanresnet, to_leanresnet
from networks import random_module
from torch.nn import functional

STEPS, IMAGES = 3, 20
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.02, 0.9, 0.01, 0.1

NETWORKS = {
    "small": 'preset = "small"',
    "accurate": 'preset = "cifar10-fast"\nstages = [{ width = 16, blocks = 1 }, { width = 24, blocks = 2 }]',
    "symmetric": """stages = [{ width = 8, blocks = 2 }, { width = 12, blocks = 1, operator = "dense" }]
        block = { form = "symmetric", stencil = "cross4", norms = 2, scale = 0.5 }
        connection = { form = "strided-conv" }
        norm_momentum = 0.3""",
    "others": """stages = [{ width = 9, blocks = 1, operator = "separable", stencil = ["row3", "col3"] },
            { width = 18, blocks = 1, operator = "shift" }, { width = 10, blocks = 1, stencil = "box25", norms = 0 }]
        stem = { norm = "none", bias = true, stride = 2 }
        connection = { form = "conv-pool", norm = "none", bias = true }""",
}


def write_cifar10(folder, pixels, labels):
    """The binary version of CIFAR-10, with a few images in each of its files."""
    records = np.concatenate([labels[:, None].astype(np.uint8), pixels.reshape(len(pixels), -1)], axis=1)
    for number, part in enumerate(np.split(records, 5), 1):
        (folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    (folder / "test_batch.bin").write_bytes(records[:2].tobytes())


def torch_steps(module, images, labels) -> list[float]:
    """The losses of some steps of SGD with Nesterov momentum and with weight decay of all but biases and norms."""
    groups = [
        {"params": [values for values in module.parameters() if values.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [values for values in module.parameters() if values.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    losses = []
    module.train()
    for _ in range(STEPS):
        loss = functional.cross_entropy(module(images), labels, label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_and_weights_after_some_steps(name, leanresnet, tmp_path):
    text = f"version = 1\n[network]\n{NETWORKS[name]}\n"
    (tmp_path / "network.toml").write_text(text)
    start = tmp_path / "start.safetensors"
    to_leanresnet(random_module(Network.from_toml(text)), start)
    random = np.random.default_rng(1)
    pixels, labels = random.integers(0, 256, (IMAGES, 3, 32, 32), np.uint8), random.integers(0, 10, IMAGES)
    write_cifar10(tmp_path, pixels, labels)
    settings = {
        "--data": "cifar10",
        "--data-dir": tmp_path,
        "--init": start,
        "--augment": "none",
        "--epochs": STEPS,
        "--batch": IMAGES,
        "--schedule": "constant",
        "--lr": LEARNING_RATE,
        "--weight-decay": WEIGHT_DECAY,
        "--label-smoothing": SMOOTHING,
        "--optimizer": "sgd",
        "--ema": 0,
        "--out": tmp_path / "run",
    }
    leanresnet("train", "--config", tmp_path / "network.toml", *(word for pair in settings.items() for word in pair))
    ours = from_leanresnet(tmp_path / "run")
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train_loss"] for line in metrics if "train_loss" in line]
    images, labels = ours.preprocess(pixels), torch.from_numpy(labels)
    exact, single = from_leanresnet(start).double(), from_leanresnet(start)
    exact_losses, single_losses = torch_steps(exact, images.double(), labels), torch_steps(single, images, labels)
    assert len(losses) == STEPS
    for step in range(STEPS):
        assert abs(losses[step] / exact_losses[step] - 1) <= max(1e-6, 4 * abs(single_losses[step] / exact_losses[step] - 1))
    # Where rounding turns a negative number at a ReLU into a positive one, an f32 computation is off by more than rounding.
    for key, values in exact.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            scale = float(values.abs().max()) or 1.0
            own, single_off = (float((other.state_dict()[key].double() - values).abs().max()) / scale for other in (ours, single))
            assert own <= max(1e-6, 4 * single_off), key
