"""The keys of the `[network]` table and the types of their values."""

from collections.abc import Mapping

from .checks import flag, integer, invalid, number, one_of, sequence
from .stencils import STENCILS

NORMS = ("batch", "tv", "none")
POOLS = ("none", "max3")
FORMS = ("residual", "symmetric")
OPERATORS = ("lean", "dense", "separable", "shift")
CONNECTION_FORMS = ("pool-conv", "conv-pool", "strided-conv")


def read(where: str, table, keys: Mapping) -> dict:
    """The values of a table, each read as `keys` says."""
    if not isinstance(table, Mapping):
        raise invalid(where, "a table", repr(table))
    unknown = [key for key in table if key not in keys]
    if unknown:
        raise invalid(f"{where}.{unknown[0]}", f"one of the keys {', '.join(keys)}", "an unknown one")
    return {key: keys[key](f"{where}.{key}", value) for key, value in table.items()}


def _word(words):
    return lambda what, value: one_of(what, value, words)


def _table_of(keys):
    return lambda what, value: read(what, value, keys)


def _list_of(item_of, length=None):
    return lambda what, value: tuple(item_of(f"{what}[{index}]", item) for index, item in enumerate(sequence(what, value, length)))


def _text(what: str, value) -> str:
    if not isinstance(value, str):
        raise invalid(what, "a string", repr(value))
    return value


def _stencils(what: str, value) -> tuple[str, str]:
    if isinstance(value, str):
        value = (value, value)
    return _list_of(_word(STENCILS), 2)(what, value)


BLOCK_KEYS = {
    "form": _word(FORMS),
    "operator": _word(OPERATORS),
    "stencil": _stencils,
    "group_size": integer,
    "norm": _word(NORMS),
    "norms": integer,
    "relu_after_sum": flag,
    "scale": number,
    "bias": flag,
}
NETWORK_KEYS = {
    "preset": _text,
    "input": _list_of(integer, 3),
    "classes": integer,
    "class_names": _list_of(_text),
    "norm_epsilon": number,
    "norm_momentum": number,
    "stages": _list_of(_table_of({"width": integer, "blocks": integer, **BLOCK_KEYS})),
    "stem": _table_of({"kernel": integer, "stride": integer, "pool": _word(POOLS), "norm": _word(NORMS), "bias": flag}),
    "block": _table_of(BLOCK_KEYS),
    "connection": _table_of({"form": _word(CONNECTION_FORMS), "norm": _word(NORMS), "bias": flag}),
}
