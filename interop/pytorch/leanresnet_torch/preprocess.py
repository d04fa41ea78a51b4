"""How bytes become the input of a model."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from .checks import integer, invalid, number, sequence

MAX_RESIZE = 65_536


@dataclass(frozen=True)
class Preprocess:
    """The map `(byte / 255 - mean) / std` for each channel, in f32, after images of another size were scaled.

    With `resize`, the shorter side is scaled to so many pixels and the centre of the network's size cut out; without, images are
    scaled to the network's size itself. Scaling is bilinear and averages where it makes smaller, as in `leanresnet predict`.
    Both lists are empty for a model that was trained on numbers: it takes no bytes.
    The `preprocess` of a `LeanResNet` knows the `size` of its input, [height, width]; without it nothing is scaled.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self):
        for key in ("mean", "std"):
            values = tuple(number(f"preprocess.{key}", value) for value in sequence(f"preprocess.{key}", getattr(self, key)))
            object.__setattr__(self, key, values)
        if len(self.mean) != len(self.std):
            raise invalid("preprocess.std", f"{len(self.mean)} values, as mean has", len(self.std))
        if not all(value > 0 for value in self.std):
            raise invalid("preprocess.std", "finite values above 0", self.std)
        if self.resize is not None:
            integer("preprocess.resize", self.resize, 1)

    @classmethod
    def identity(cls, channels: int) -> "Preprocess":
        """Bytes become `byte / 255`."""
        return cls((0.0,) * channels, (1.0,) * channels)

    def for_input(self, input_shape: tuple[int, int, int]) -> "Preprocess":
        """The same for a network's input, [channels, height, width], if it fits."""
        channels, *size = input_shape
        if self.mean and len(self.mean) != channels:
            raise invalid("preprocess.mean", f"{channels} values, as there are channels", len(self.mean))
        if self.resize is not None and not max(size) <= self.resize <= MAX_RESIZE:
            raise invalid("preprocess.resize", f"{max(size)} to {MAX_RESIZE} pixels", self.resize)
        return replace(self, size=tuple(size))

    def __call__(self, images) -> torch.Tensor:
        """The input, f32 [images, channels, height, width], of bytes [images, channels, height, width], or [channels, height, width]
        as one image, in a tensor or array."""
        if not self.mean:
            raise invalid("images", "numbers, as the model was trained on; it knows no mean and standard deviation of bytes", "a call of preprocess")
        images = torch.as_tensor(np.asarray(images) if not isinstance(images, torch.Tensor) else images)
        images = images.unsqueeze(0) if images.dim() == 3 else images
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != len(self.mean):
            expected = f"bytes (uint8) of shape [images, {len(self.mean)}, height, width]"
            raise invalid("images", expected, f"{images.dtype} {list(images.shape)}")
        images = self._scaled(images).to(torch.float32)
        mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images / 255 - mean) / std

    def _scaled(self, images: torch.Tensor) -> torch.Tensor:
        """Bytes of the network's size."""
        if self.size is None:
            return images
        if self.resize is None:
            return _interpolate(images, self.size)
        sides = images.shape[2:]
        short, long = min(sides), max(sides)
        other = (long * self.resize + short // 2) // short
        images = _interpolate(images, (other, self.resize) if sides[1] <= sides[0] else (self.resize, other))
        top, left = ((have - want) // 2 for have, want in zip(images.shape[2:], self.size))
        return images[..., top : top + self.size[0], left : left + self.size[1]]


def _interpolate(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(images.shape[2:]) == tuple(size):
        return images
    scaled = functional.interpolate(images.to(torch.float32), size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)
