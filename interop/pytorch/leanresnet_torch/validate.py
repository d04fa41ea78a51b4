"""What a network has to fulfil, as leanresnet's src/net/validate.rs has it."""

from .checks import flag, integer, invalid, one_of, sequence
from .stencils import STENCILS
from .table import CONNECTION_FORMS, FORMS, NORMS, OPERATORS, POOLS

MAX_EXTENT = 65_536
MAX_STAGES = 64
MAX_BLOCKS = 1024
MAX_NAME = 256
# Channels per group for which leanresnet has kernels.
GROUP_SIZES = (1, 2, 4, 8, 16, 32)


def validate(network):
    for what, value in zip(("channels", "height", "width"), sequence("network.input", network.input, 3)):
        _extent(f"network.input {what}", value)
    _extent("network.classes", network.classes)
    check_class_names(network.class_names, network.classes)
    for key in ("norm_epsilon", "norm_momentum"):
        if not 0 < getattr(network, key) <= 1:
            raise invalid(f"network.{key}", "a number above 0, at most 1", getattr(network, key))
    _stem(network.stem)
    one_of("network.connection.form", network.connection.form, CONNECTION_FORMS)
    _supported("network.connection.norm", one_of("network.connection.norm", network.connection.norm, NORMS), ("batch", "none"))
    flag("network.connection.bias", network.connection.bias)
    _stages(network.stages)
    for index, size in enumerate(network.stage_sizes()):
        if 0 in size:
            raise invalid(f"network.stages[{index}] after the connection's pooling", "at least 2x2 pixels before it", "fewer")


def check_class_names(names, classes: int):
    """Checks that there is a printable name per class, or none at all."""
    if names and len(names) != classes:
        raise invalid("class_names", f"{classes} names, as there are classes", len(names))
    for name in names:
        if not isinstance(name, str) or not 1 <= len(name.encode()) <= MAX_NAME or any(map(_is_control, name)):
            raise invalid("class_names", f"names of 1 to {MAX_NAME} printable bytes", repr(name))


def _is_control(character: str) -> bool:
    return ord(character) < 32 or 127 <= ord(character) < 160


def _extent(what: str, value):
    if integer(what, value, 1) > MAX_EXTENT:
        raise invalid(what, f"1 to {MAX_EXTENT}", value)


def _supported(what: str, value, supported):
    """One that leanresnet can compute."""
    if value not in supported:
        raise invalid(f"{what}: not supported yet", f"one of the supported: {', '.join(map(str, supported))}", repr(value))


def _stem(stem):
    one_of("network.stem.kernel", stem.kernel, (1, 3, 7))
    one_of("network.stem.stride", stem.stride, (1, 2, 4))
    _supported("network.stem.pool", one_of("network.stem.pool", stem.pool, POOLS), ("none",))
    _supported("network.stem.norm", one_of("network.stem.norm", stem.norm, NORMS), ("batch", "none"))
    flag("network.stem.bias", stem.bias)


def _stages(stages):
    if not 1 <= len(stages) <= MAX_STAGES:
        raise invalid("network.stages", f"1 to {MAX_STAGES} stages", len(stages))
    for index, stage in enumerate(stages):
        _extent(f"network.stages[{index}].width", stage.width)
        integer(f"network.stages[{index}].blocks", stage.blocks, 1)
        _block(f"(stage {index})", stage.block, stage.width)
    blocks = sum(stage.blocks for stage in stages)
    if blocks > MAX_BLOCKS:
        raise invalid("network.stages: blocks", f"at most {MAX_BLOCKS} in all stages", blocks)


def _block(stage: str, block, width: int):
    def key(name):
        return f"network.block.{name} {stage}"

    one_of(key("form"), block.form, FORMS)
    one_of(key("operator"), block.operator, OPERATORS)
    for stencil in sequence(key("stencil"), block.stencil, 2):
        one_of(key("stencil"), stencil, STENCILS)
    if width % integer(key("group_size"), block.group_size, 1):
        raise invalid(key("group_size"), f"a divisor of the width {width}", block.group_size)
    if one_of(key("norm"), block.norm, NORMS) == "none":
        raise invalid(key("norm"), "batch or tv (norms = 0 leaves the norms out)", "`none`")
    one_of(key("norms"), integer(key("norms"), block.norms), (0, 1, 2))
    flag(key("relu_after_sum"), block.relu_after_sum)
    flag(key("bias"), block.bias)
    if block.form == "symmetric":
        second = "in a symmetric block, whose second convolution is the transpose of the first"
        if block.operator not in ("lean", "dense"):
            raise invalid(key("operator"), f"lean or dense {second}", f"`{block.operator}`")
        if block.has_stencil and block.stencil[0] != block.stencil[1]:
            raise invalid(key("stencil"), f"one stencil {second}", "`{}` and `{}`".format(*block.stencil))
    if block.operator == "shift" and block.group_size != 1:
        raise invalid(key("group_size"), "1 for shifts, which move single channels", block.group_size)
    _supported(key("group_size"), block.group_size, GROUP_SIZES)
    _supported(key("norm"), block.norm, ("batch",))
