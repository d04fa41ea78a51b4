"""Losses of the first training steps of `small` in PyTorch, for tests/engine/pytorch.rs, which takes the same steps.

    python tests/golden/pytorch_losses.py > tests/golden/pytorch_losses.txt

Needs numpy, safetensors and torch 2. Weights, images and labels come from the generator SplitMix64, so that nothing but losses is committed. PyTorch computes in f64 here, so that only our own rounding shows.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "interop" / "pytorch"))
from leanresnet_torch import LeanResNet, Network

STEPS, BATCHES, BATCH = 20, 4, 32
# Rounding errors grow from step to step: at a rate of 0.05, PyTorch in f32 is off its own f64 losses by 2e-3 after 15 steps.
LEARNING_RATE = 0.005
CLASSES, SIDE = Network.preset("small").classes, Network.preset("small").input[1]
CROSS = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])


def bits(seed: int, count: int) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed: int, count: int) -> torch.Tensor:
    """Uniform in [-1, 1)."""
    values = (bits(seed, count) >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
    return torch.from_numpy(values.astype(np.float32))


def seed_of(name: str) -> int:
    seed = 7
    for byte in name.encode():
        seed = seed * 31 % 1_000_003 + byte
    return seed


def initial(name: str, shape: torch.Size) -> torch.Tensor:
    values = uniform(seed_of(name), shape.numel()).reshape(shape)
    if name.endswith("norm.weight") or ".norm1.weight" in name:
        return 1 + values * 0.25
    if name.endswith("spatial.weight"):
        return values * 0.25 * CROSS
    if name.endswith("bias"):
        return values * 0.125
    # The nearest power of two below the root of 3 / inputs, which is exact in f32.
    fan_in = shape[1:].numel()
    return values * 2.0 ** np.floor(np.log2(np.sqrt(3 / fan_in)))


def main():
    torch.set_num_threads(1)
    network = LeanResNet("small").train()
    with torch.no_grad():
        for name, values in network.named_parameters():
            values.copy_(initial(name, values.shape))
    network = network.double()
    decayed = [values for name, values in network.named_parameters() if values.dim() > 1]
    others = [values for name, values in network.named_parameters() if values.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=0.9, nesterov=True)
    print(f"# torch {torch.__version__}, f64: mean loss of each step; see pytorch_losses.py")
    for step in range(STEPS):
        batch = step % BATCHES
        images = uniform(10_000 + batch, BATCH * SIDE * SIDE * 3).reshape(BATCH, SIDE, SIDE, 3).permute(0, 3, 1, 2).double()
        labels = torch.tensor([int(value) * CLASSES >> 64 for value in bits(20_000 + batch, BATCH)])
        loss = nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"{loss.item():.9g}")


if __name__ == "__main__":
    main()
