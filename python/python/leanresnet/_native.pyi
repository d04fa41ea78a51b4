import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanresnet._training import Epoch

__all__ = [
    "DataError",
    "Dataset",
    "DivergedError",
    "Model",
    "ModelError",
    "__version__",
    "fit",
    "parse_augmentation",
    "parse_toml",
    "resume",
]
__version__: Final[str]

class ModelError(ValueError): ...
class DataError(ValueError): ...
class DivergedError(ArithmeticError): ...

@final
class Model:
    @staticmethod
    def load(path: str | os.PathLike[str]) -> Model: ...
    @staticmethod
    def from_bytes(content: bytes) -> Model: ...
    @staticmethod
    def random(preset: str | None = None, seed: int = 1, *, toml: str | Mapping[str, Any] | None = None) -> Model: ...
    @staticmethod
    def from_state_dict(
        state: Mapping[str, ArrayLike],
        *,
        preset: str | None = None,
        toml: str | Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Model: ...
    def predict(
        self,
        images: NDArray[np.float32] | NDArray[np.uint8],
        *,
        layout: Literal["nchw", "nhwc"] = "nchw",
        threads: int | None = None,
        precision: Literal["f32", "bf16", "bf16x3", "auto", "auto-near-f32"] = "f32",
        batch: int = 64,
    ) -> NDArray[np.float32]: ...
    def state_dict(self) -> dict[str, NDArray[Any]]: ...
    def save(self, path: str | os.PathLike[str]) -> None: ...
    def to_bytes(self) -> bytes: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> int: ...
    @property
    def class_names(self) -> list[str]: ...
    @property
    def mean(self) -> list[float]: ...
    @property
    def std(self) -> list[float]: ...
    @property
    def provenance(self) -> str: ...
    @property
    def toml(self) -> str: ...
    def __reduce__(self) -> tuple[Callable[[bytes], Model], tuple[bytes]]: ...

@final
class Dataset:
    @staticmethod
    def open(
        name: str, dir: str | os.PathLike[str] | None = None, *, split: Literal["train", "test"] = "train"
    ) -> Dataset: ...
    @staticmethod
    def from_arrays(
        x: NDArray[np.uint8],
        y: ArrayLike,
        *,
        layout: Literal["nchw", "nhwc"] = "nchw",
        class_names: Sequence[str] | None = None,
    ) -> Dataset: ...
    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def class_names(self) -> list[str]: ...
    def __len__(self) -> int: ...

def parse_toml(toml: str | Mapping[str, Any]) -> dict[str, Any]: ...
def parse_augmentation(text: str) -> dict[str, Any]: ...
def fit(
    tables: Mapping[str, Any],
    train: Dataset,
    validation: Dataset | None = None,
    *,
    init: Model | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    threads: int | None = None,
    out: str | os.PathLike[str] | None = None,
    evaluate_every: int | None = None,
    early_stop: int | None = None,
    callback: Callable[[Epoch], object] | None = None,
) -> tuple[Model, list[Epoch]]: ...
def resume(
    folder: str | os.PathLike[str],
    train: Dataset | None = None,
    validation: Dataset | None = None,
    *,
    epochs: int | None = None,
    threads: int | None = None,
    callback: Callable[[Epoch], object] | None = None,
) -> tuple[Model, list[Epoch]]: ...
