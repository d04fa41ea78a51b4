"""Random networks of the whole grammar, as texts of configuration files, and random weights."""

import random

import torch
from leanresnet_torch import LeanResNet, Network
from leanresnet_torch.layers import Shift2d

STENCILS = ("cross4", "cross5", "box9", "row3", "col3", "box25")


def random_toml(seed: int) -> str:
    """A small network; over a few seeds every word of the grammar that leanresnet can compute turns up."""
    pick = random.Random(seed)
    stages = [_stage(pick) for _ in range(pick.randint(1, 3))]
    smallest = 2 ** (len(stages) - 1)
    stem = {"kernel": pick.choice((1, 3, 7)), "stride": pick.choice((1, 1, 2, 4))}
    stem |= {"norm": pick.choice(("batch", "none")), "bias": _flag(pick)}
    height, width = (stem["stride"] * smallest * pick.randint(2, 6) + pick.randint(0, 3) for _ in range(2))
    keys = {
        "input": [pick.randint(1, 4), height, width],
        "classes": pick.randint(2, 12),
        "norm_epsilon": pick.choice((1e-5, 1e-3, 0.02)),
        "stages": stages,
        "stem": stem,
        "connection": {
            "form": pick.choice(("pool-conv", "conv-pool", "strided-conv")),
            "norm": pick.choice(("batch", "none")),
            "bias": _flag(pick),
        },
    }
    if pick.random() < 0.5:
        # Keys of the network's block, which stages override.
        keys["block"] = {"norms": pick.randint(0, 2), "scale": pick.choice((1.0, 0.5, 0.1))}
        for stage in stages:
            if pick.random() < 0.5:
                stage.pop("norms", None)
    body = "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())
    # The crop that leanresnet trains with by default is too wide for the smallest images.
    return f"version = 1\n[network]\n{body}[data]\naugment = {{ crop = 0 }}\n"


def _stage(pick: random.Random) -> dict:
    operator = pick.choice(("lean", "lean", "dense", "separable", "shift"))
    form = pick.choice(("residual", "symmetric")) if operator in ("lean", "dense") else "residual"
    group_size = pick.choice((1, 1, 2, 4, 8, 16, 32)) if operator in ("lean", "separable") else 1
    stencil = pick.choice(STENCILS) if form == "symmetric" or _flag(pick) else [pick.choice(STENCILS), pick.choice(STENCILS)]
    stage = {"width": group_size * pick.randint(1, 40 // group_size), "blocks": pick.randint(1, 2), "operator": operator, "form": form}
    stage |= {"group_size": group_size, "norms": pick.randint(0, 2), "relu_after_sum": _flag(pick)}
    if operator in ("lean", "separable"):
        stage["stencil"] = stencil
    if _flag(pick):
        stage["scale"] = pick.choice((0.5, -0.25, 0.3))
    if _flag(pick):
        stage["bias"] = _flag(pick)
    return stage


def _flag(pick: random.Random) -> bool:
    return pick.random() < 0.5


def _toml(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def random_module(network: Network | str, seed: int = 1) -> LeanResNet:
    """With weights as a new one has them, and biases, norms and running statistics that do something."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    module = LeanResNet(network).eval()
    with torch.no_grad():
        for name, values in module.state_dict().items():
            if name.endswith("running_var") or ("norm" in name and name.endswith(".weight")):
                values.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("bias", "running_mean")):
                values.normal_(0, 0.2, generator=generator)
        for layer in module.modules():
            if isinstance(layer, Shift2d):
                layer.weight.copy_(layer.weight[torch.randperm(len(layer.weight), generator=generator)])
    return module
