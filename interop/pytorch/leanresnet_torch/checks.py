"""Checks of single values. Messages read `WHAT; expected E, got G`, as those of leanresnet do."""

import math
import struct


def invalid(what: str, expected, got) -> ValueError:
    return ValueError(f"{what}; expected {expected}, got {got}")


def integer(what: str, value, smallest: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise invalid(what, f"an integer of at least {smallest}", repr(value))
    return value


def flag(what: str, value) -> bool:
    if not isinstance(value, bool):
        raise invalid(what, "true or false", repr(value))
    return value


def number(what: str, value) -> float:
    """A finite number, rounded to f32: what files and kernels hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise invalid(what, "a number", repr(value))
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        rounded = math.inf
    if not math.isfinite(rounded):
        raise invalid(what, "a finite number", value)
    return rounded


def one_of(what: str, value, values):
    if value not in tuple(values):
        raise invalid(what, f"one of {', '.join(map(str, values))}", repr(value))
    return value


def sequence(what: str, value, length: int | None = None) -> tuple:
    if not isinstance(value, (list, tuple)) or length not in (None, len(value)):
        raise invalid(what, "a list" if length is None else f"a list of {length}", repr(value))
    return tuple(value)
