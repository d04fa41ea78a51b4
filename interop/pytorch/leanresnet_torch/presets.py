"""The networks that have a name: `[network]` tables, those of leanresnet's src/net/preset.rs. A test compares both."""


def _stages(*sizes: tuple[int, int]) -> list:
    return [{"width": width, "blocks": blocks} for width, blocks in sizes]


_ACCURATE = {"stencil": "box9", "norms": 2, "relu_after_sum": True}

PRESETS = {
    "small": {"stages": _stages((32, 3), (64, 3), (128, 3))},
    "base": {"stages": _stages((64, 5), (128, 5), (256, 5))},
    "imagenet": {
        "input": [3, 224, 224],
        "classes": 1000,
        "stem": {"kernel": 7, "stride": 4},
        "stages": _stages((64, 3), (128, 4), (256, 6), (512, 3)),
    },
    "cifar10-s": {"stages": _stages((48, 4), (96, 3), (192, 2)), "block": _ACCURATE},
    "cifar10-m": {"stages": _stages((64, 6), (128, 5), (256, 4)), "block": _ACCURATE},
    "cifar10-fast": {"stages": _stages((32, 1), (64, 2), (128, 2), (256, 1)), "block": _ACCURATE},
}
