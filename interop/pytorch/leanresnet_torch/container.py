"""The container of leanresnet's model files: safetensors whose metadata holds one key, `leanresnet`, a JSON object that begins with a
checksum: 16 hexadecimal digits of the CRC-64/XZ of the whole file, with these digits as `0`."""

import json
import os
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from .checks import invalid

KEY = "leanresnet"
VERSION = 1
LENGTH_BYTES = 8
OPENING = b'{"__metadata__":{"leanresnet":"{\\"checksum\\":\\"'
ZERO_DIGITS = "0" * 16
DIGITS = slice(LENGTH_BYTES + len(OPENING), LENGTH_BYTES + len(OPENING) + len(ZERO_DIGITS))

# Pieces of data whose remainders are computed side by side.
LANES = 1024
ONES = (1 << 64) - 1


def _table() -> np.ndarray:
    """What each byte adds to the remainder: the polynomial of ECMA-182, reflected."""
    table = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        table = np.where(table & np.uint64(1), table >> np.uint64(1) ^ np.uint64(0xC96C5795D7870F42), table >> np.uint64(1))
    return table


TABLE = _table()


def crc64(data: bytes) -> int:
    """CRC-64/XZ: the check that .xz files carry."""
    remainder = ONES
    length = len(data) // LANES
    if length:
        lanes = np.frombuffer(data, np.uint8, LANES * length).reshape(LANES, length)
        remainders = np.zeros(LANES, np.uint64)
        for column in np.ascontiguousarray(lanes.T):
            remainders = TABLE[remainders.astype(np.uint8) ^ column] ^ remainders >> np.uint64(8)
        # A piece changes the remainder before it as so many zero bytes would, which is a linear map, and then adds its own.
        advance = _zero_bytes(length)
        for own in remainders.tolist():
            remainder = _apply(advance, remainder) ^ own
    table = TABLE.tolist()
    for byte in data[LANES * length :]:
        remainder = table[remainder & 255 ^ byte] ^ remainder >> 8
    return remainder ^ ONES


def _zero_bytes(count: int) -> list[int]:
    """What `count` zero bytes make of each bit of a remainder."""
    table = TABLE.tolist()
    power = [table[bit & 255] ^ bit >> 8 for bit in (1 << index for index in range(64))]
    total = [1 << index for index in range(64)]
    while count:
        if count & 1:
            total = [_apply(power, bit) for bit in total]
        power = [_apply(power, bit) for bit in power]
        count >>= 1
    return total


def _apply(images: list[int], remainder: int) -> int:
    """The linear map with these images of the bits."""
    result = 0
    while remainder:
        lowest = remainder & -remainder
        result ^= images[lowest.bit_length() - 1]
        remainder ^= lowest
    return result


def _digits(data: bytes) -> bytes:
    """The checksum of a whole file as it stands in it."""
    return b"%016x" % crc64(data[: DIGITS.start] + ZERO_DIGITS.encode() + data[DIGITS.stop :])


def to_bytes(members: dict, tensors: dict[str, torch.Tensor]) -> bytes:
    """The content of a file; `members` go into the JSON object."""
    members = {"checksum": ZERO_DIGITS, **dict(sorted({**members, "version": VERSION}.items()))}
    text = json.dumps(members, separators=(",", ":"), allow_nan=False)
    data = bytearray(safetensors.torch.save(tensors, {KEY: text}))
    if not data[LENGTH_BYTES:].startswith(OPENING):
        raise RuntimeError("this version of safetensors does not write the metadata first, where leanresnet looks for the checksum")
    data[DIGITS] = _digits(bytes(data))
    return bytes(data)


def write(path, members: dict, tensors: dict[str, torch.Tensor]):
    """Writes a file, whole or not at all."""
    path = Path(path)
    data = to_bytes(members, tensors)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path) -> tuple[dict, dict[str, torch.Tensor]]:
    """The JSON object without `checksum` and `version`, and the tensors.

    `ValueError` if the file is damaged, of another version, or a plain state dict; `SafetensorError` if it is no safetensors file.
    """
    data = Path(path).read_bytes()
    tensors = safetensors.torch.load(data)
    header = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")])
    text = header.get("__metadata__", {}).get(KEY)
    if text is None:
        raise invalid(f"{path}: description of a network", "a file of leanresnet", f"a plain state dict of {len(tensors)} tensors")
    members = json.loads(text)
    version = members.pop("version", None)
    if version != VERSION:
        raise invalid(f"{path}: version of the file", VERSION, version)
    members.pop("checksum", None)
    if not data[LENGTH_BYTES:].startswith(OPENING):
        raise invalid(f"{path}: checksum", "a checksum at the start of the header", "none")
    if data[DIGITS] != _digits(data):
        raise invalid(f"{path}: the file is damaged: checksum", _digits(data).decode(), data[DIGITS].decode(errors="replace"))
    return members, tensors
