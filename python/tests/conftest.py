"""What the tests share: the command-line tool, the model that comes with it, and small networks and data."""

import os
import subprocess
from pathlib import Path

import leanresnet
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "cli" / "models" / "cifar10-s.safetensors"

#: A network and settings that train in no time.
TINY = """
version = 1
[network]
input = [3, 8, 8]
classes = 3
stages = [{ width = 8, blocks = 1 }]
[data]
augment = { crop = 1, flip = true }
[train]
batch = 16
epochs = 3
schedule = { name = "cosine", lr = 0.05, warmup_epochs = 0.5 }
"""


@pytest.fixture(scope="session")
def tool():
    """Runs the command-line tool, whose path is in LEANRESNET_TOOL."""
    path = os.environ["LEANRESNET_TOOL"]

    def run(*words, **options):
        return subprocess.run([path, *map(str, words)], check=True, capture_output=True, text=True, **options)

    return run


@pytest.fixture(scope="session")
def shipped():
    return leanresnet.load(SHIPPED)


@pytest.fixture(scope="session")
def tiny():
    return leanresnet.Model.random(toml=TINY, seed=3)


def labelled(count, seed, side=8, classes=3):
    """Images with a bright channel, by which a network can tell their classes: uint8 [n, 3, side, side], int64 [n]."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, count)
    x = random.integers(0, 128, (count, 3, side, side), dtype=np.uint8)
    x[np.arange(count), y % 3] += 100
    return x, y


def bits(array):
    """float32 as integers, so that equality is that of bits."""
    return np.ascontiguousarray(array).view(np.uint32)


def same_weights(first, second):
    """Whether two models have the same tensors, to the bit."""
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(first[name].tobytes() == second[name].tobytes() for name in first)
