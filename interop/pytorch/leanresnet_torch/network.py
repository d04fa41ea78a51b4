"""The description of a network: what it computes, without weights. The words and defaults are those of the `[network]` table of
leanresnet's configuration files."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .checks import invalid, number, one_of, sequence
from .presets import PRESETS
from .table import NETWORK_KEYS, read
from .validate import validate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Stem:
    """The first layers: convolution with padding `(kernel - 1) / 2`, norm, ReLU."""

    kernel: int = 3
    stride: int = 1
    pool: str = "none"
    norm: str = "batch"
    bias: bool = False


@dataclass(frozen=True)
class Block:
    """The blocks of a stage: `y + scale * norm2(conv2(relu(norm1(conv1(y)))))`, or symmetric,
    `y - scale * norm2(conv1'(relu(norm1(conv1(y)))))` with the transpose of the first convolution."""

    form: str = "residual"
    operator: str = "lean"
    # Of the first and of the second convolution; one name stands for both.
    stencil: tuple[str, str] = ("cross5", "cross5")
    group_size: int = 1
    norm: str = "batch"
    norms: int = 1
    relu_after_sum: bool = False
    scale: float = 1.0
    bias: bool = False

    def __post_init__(self):
        if isinstance(self.stencil, str):
            object.__setattr__(self, "stencil", (self.stencil, self.stencil))
        object.__setattr__(self, "scale", number("network.block.scale", self.scale))

    @property
    def has_stencil(self) -> bool:
        return self.operator in ("lean", "separable")


@dataclass(frozen=True)
class Connection:
    """The layers between two stages: half the resolution, another width, norm, ReLU."""

    form: str = "pool-conv"
    norm: str = "batch"
    bias: bool = False


@dataclass(frozen=True)
class Stage:
    """Equal blocks at one resolution and width."""

    width: int
    blocks: int
    block: Block = Block()


@dataclass(frozen=True)
class Network:
    """A residual network for classifying images, checked when it is made: `ValueError` names the key that is wrong.

    `dataclasses.replace` makes another one. Numbers are rounded to f32, in which leanresnet computes.
    """

    stages: tuple[Stage, ...]
    input: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    class_names: tuple[str, ...] = ()
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.1
    stem: Stem = Stem()
    connection: Connection = Connection()

    def __post_init__(self):
        for key in ("norm_epsilon", "norm_momentum"):
            object.__setattr__(self, key, number(f"network.{key}", getattr(self, key)))
        for key in ("stages", "input", "class_names"):
            object.__setattr__(self, key, sequence(f"network.{key}", getattr(self, key)))
        validate(self)

    @classmethod
    def preset(cls, name: str) -> "Network":
        return cls.from_table({"preset": name})

    @classmethod
    def from_toml(cls, text: str) -> "Network":
        """The network in the text of a configuration file. Its tables `[data]` and `[train]` are not looked at."""
        tables = tomllib.loads(text)
        version = tables.pop("version", 1)
        if version != 1:
            raise invalid("version of the configuration", 1, repr(version))
        unknown = set(tables) - {"network", "data", "train"}
        if unknown or "network" not in tables:
            raise invalid("configuration", "a table [network], and no others than [data] and [train]", ", ".join(tables) or "none")
        return cls.from_table(tables["network"])

    @classmethod
    def from_file(cls, path) -> "Network":
        """The network in a configuration file; also in the `config.toml` of a run folder."""
        return cls.from_toml(Path(path).read_text(encoding="utf-8"))

    @classmethod
    def from_table(cls, table: Mapping) -> "Network":
        """The network of a `[network]` table, as it stands in configuration files and, with a key `kind`, in model files."""
        table = dict(read("network", table, NETWORK_KEYS))
        if "class_names" in table:
            table.setdefault("classes", len(table["class_names"]))
        if "preset" in table:
            base = read("network", PRESETS[one_of("preset", table.pop("preset"), PRESETS)], NETWORK_KEYS)
            for part in ("stem", "block", "connection"):
                table[part] = {**base.get(part, {}), **table.get(part, {})}
            table = {**base, **table}
        if "stages" not in table:
            raise invalid("network.stages", f"a list of stages, or a preset ({', '.join(PRESETS)})", "neither")
        common = table.pop("block", {})
        table["stages"] = tuple(_stage(stage, common) for stage in table["stages"])
        table["stem"] = Stem(**table.get("stem", {}))
        table["connection"] = Connection(**table.get("connection", {}))
        return cls(**table)

    def to_table(self) -> dict:
        """The `[network]` table with every key stated; the first stage's block is that of the network, other stages say what differs."""
        common = asdict(self.stages[0].block)
        stages = []
        for stage in self.stages:
            block = {key: value for key, value in asdict(stage.block).items() if value != common[key]}
            stages.append({"width": stage.width, "blocks": stage.blocks, **_stencil_key(block)})
        table = {
            "input": list(self.input),
            "classes": self.classes,
            "norm_epsilon": self.norm_epsilon,
            "norm_momentum": self.norm_momentum,
            "stages": stages,
            "stem": asdict(self.stem),
            "block": _stencil_key(common),
            "connection": asdict(self.connection),
        }
        return {**table, "class_names": list(self.class_names)} if self.class_names else table

    def stage_sizes(self) -> list[tuple[int, int]]:
        """Height and width of the activations in every stage."""
        size = tuple(-(-extent // self.stem.stride) for extent in self.input[1:])
        sizes = [size]
        for _ in self.stages[1:]:
            rounding = 1 if self.connection.form == "strided-conv" else 0
            size = tuple((extent + rounding) // 2 for extent in size)
            sizes.append(size)
        return sizes


def _stage(table: Mapping, common: Mapping) -> Stage:
    for key in ("width", "blocks"):
        if key not in table:
            raise invalid(f"network.stages: {key}", "an integer", "none")
    own = {key: value for key, value in table.items() if key not in ("width", "blocks")}
    block = {**common, **own}
    # A network without norms is a folded one.
    block.setdefault("bias", block.get("norms") == 0)
    return Stage(table["width"], table["blocks"], Block(**block))


def _stencil_key(block: dict) -> dict:
    """One name where both convolutions have the same stencil."""
    if "stencil" not in block:
        return block
    first, second = block["stencil"]
    return {**block, "stencil": first if first == second else [first, second]}
