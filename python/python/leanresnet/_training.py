"""Training: keyword arguments become the tables of a configuration, which the native part reads."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanresnet import _native
from leanresnet._native import Dataset, Model

#: What a configuration calls images that came as arrays.
_ARRAYS = "arrays"


class _Results(TypedDict):
    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    train_top1: float


class Epoch(_Results, total=False):
    """The results of one epoch.

    epoch: finished epochs, 1 after the first. step: finished steps. learning_rate: that of the last step. train_loss: mean loss over
    the images as they were trained on, nats. train_top1: share of them that was classified correctly, 0 to 1. val_loss, val_top1,
    val_top5: the same of the validation images, in epochs that were evaluated. Only callbacks get the rest: train_seconds and
    evaluate_seconds, images_per_second of training, and best, whether it is the best epoch by the validation images so far.
    """

    val_loss: float
    val_top1: float
    val_top5: float
    train_seconds: float
    images_per_second: float
    evaluate_seconds: float
    best: bool


class Fitted(NamedTuple):
    """What training gives back."""

    #: The network after the last step, or the moving average of its weights where one is kept.
    model: Model
    #: The results of every finished epoch.
    history: list[Epoch]


def fit(
    x: NDArray[np.uint8] | Dataset | None = None,
    y: ArrayLike | None = None,
    *,
    layout: Literal["nchw", "nhwc"] = "nchw",
    data: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    validation: int | tuple[NDArray[np.uint8], ArrayLike] | Dataset | None = None,
    class_names: Sequence[str] | None = None,
    preset: str | None = None,
    toml: str | Mapping[str, Any] | None = None,
    init: Model | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    optimizer: str | Mapping[str, Any] | None = None,
    schedule: str | Mapping[str, Any] | None = None,
    weight_decay: float | None = None,
    augment: str | Mapping[str, Any] | None = None,
    label_smoothing: float | None = None,
    ema: float | None = None,
    clip_norm: float | None = None,
    dtype: Literal["f32", "bf16"] | None = None,
    recompute: Literal["none", "block", "stage"] | None = None,
    threads: int | None = None,
    out: str | os.PathLike[str] | None = None,
    evaluate_every: int | None = None,
    early_stop: int | None = None,
    callback: Callable[[Epoch], object] | None = None,
) -> Fitted:
    """Trains a network.

    The result depends on configuration and data alone, to the bit: not on threads, interruptions, or in f32 the instruction set. It is
    that of `leanresnet train` with the same configuration.

    Data:
        x, y: images, uint8 with the axes that `layout` names, [n, channels, height, width] or [n, height, width, channels], and one
            integer per image. They are copied once. Or x is a `Dataset`, and there is no y.
        data, data_dir: instead of x, a data set by name, and the folder with its files: "synthetic" (no files), "cifar10", "cifar100",
            "mnist" or "fashion-mnist".
        validation: images to find the best epoch with: how many to hold out, or (x, y), or a `Dataset`.
        class_names: names of the classes; their numbers by default.

    Network:
        preset: "small" (the default), "base", "imagenet", or "cifar10-s", "cifar10-m", "cifar10-fast", which bring settings of their own.
        toml: a configuration instead, with the tables [network], [data] and [train]: a text, or dicts.
        init: a model whose weights and normalisation are the start; its network, if nothing else says one.
        The size of the images and the number of classes are those of the data where the network leaves them out.
        mean, std: normalisation of each channel's bytes, (byte / 255 - mean) / std; by default what is customary for a data set with
            a name, or else measured.

    Settings (each is a key of the configuration, and what is left out has its default):
        epochs, batch, lr, seed, weight_decay, label_smoothing, ema, clip_norm, dtype, recompute.
        optimizer: "sgd", "adamw" or "muon"; or a table such as {"name": "sgd", "momentum": 0.8}.
        schedule: "cosine", "constant" or "one-cycle"; or a table such as {"name": "multistep", "milestones": [8, 12]}.
        augment: random changes such as "crop=4,flip,cutout=8,mixup=0.2", or "none"; or a table.

    Course:
        threads: by default as many as the process may use.
        out: a folder to make, with configuration, results, models and checkpoints of the run; `resume` goes on with it.
        evaluate_every, early_stop: epochs between evaluations; epochs without improvement that end the run.
        callback: called after every epoch with its results; `False` ends the run, and what it raises does so too and is raised here.

    Other threads of Python go on meanwhile. Ctrl-C ends the run after the present step, and raises KeyboardInterrupt; with `out`, the
    state is saved. Raises DivergedError if the loss is not finite, ValueError for settings that cannot be used.
    """
    tables = _tables(preset, toml, init)
    held_out, validation_images = _validation(validation)
    settings: dict[str, Any] = {
        "data.augment": _native.parse_augmentation(augment) if isinstance(augment, str) else augment,
        "data.validation": held_out,
        "train.epochs": epochs,
        "train.batch": batch,
        "train.seed": seed,
        "train.optimizer": {"name": optimizer} if isinstance(optimizer, str) else optimizer,
        "train.optimizer.weight_decay": weight_decay,
        "train.schedule": _schedule(schedule, tables),
        "train.schedule.lr": lr,
        "train.label_smoothing": label_smoothing,
        "train.ema": ema,
        "train.clip_norm": clip_norm,
        "train.dtype": dtype,
        "train.recompute": recompute,
    }
    for path, value in settings.items():
        if value is not None:
            _set(tables, path, dict(value) if isinstance(value, Mapping) else value)
    _name_data(tables, x is not None, data, data_dir)
    network = tables["network"]
    if class_names is None:
        class_names = _names_of(network)
    train = _images(x, y, layout, class_names) if x is not None else Dataset.open(tables["data"].get("name", "synthetic"), tables["data"].get("dir"))
    network.setdefault("input", train.image_shape)
    if "classes" not in network and "class_names" not in network:
        network["classes"] = len(train.class_names)
    model, history = _native.fit(
        tables,
        train,
        _images(*validation_images, layout, train.class_names) if validation_images is not None else None,
        init=init,
        mean=mean,
        std=std,
        threads=threads,
        out=out,
        evaluate_every=evaluate_every,
        early_stop=early_stop,
        callback=callback,
    )
    return Fitted(model, history)


def resume(
    folder: str | os.PathLike[str],
    x: NDArray[np.uint8] | Dataset | None = None,
    y: ArrayLike | None = None,
    *,
    layout: Literal["nchw", "nhwc"] = "nchw",
    validation: tuple[NDArray[np.uint8], ArrayLike] | Dataset | None = None,
    epochs: int | None = None,
    threads: int | None = None,
    callback: Callable[[Epoch], object] | None = None,
) -> Fitted:
    """Goes on with the run in `folder`, which `fit` or `leanresnet train` left, as if it had never stopped.

    x, y, layout, validation: the same images as before, if they were arrays; a data set with a name is opened as before.
    epochs: the number of epochs of the whole run, if it is another than before. threads, callback: as for `fit`.

    The history begins with the first epoch of the run. Raises ModelError if no checkpoint in the folder can be read.
    """
    names = Model.load(folder).class_names if x is not None or validation is not None else None
    held_out, validation_images = _validation(validation)
    if held_out:
        raise TypeError("validation; expected (x, y) or a Dataset: a number of images is kept in the folder")
    model, history = _native.resume(
        folder,
        _images(x, y, layout, names) if x is not None else None,
        _images(*validation_images, layout, names) if validation_images is not None else None,
        epochs=epochs,
        threads=threads,
        callback=callback,
    )
    return Fitted(model, history)


def _tables(preset: str | None, toml: str | Mapping[str, Any] | None, init: Model | None) -> dict[str, Any]:
    """The tables of a configuration, with one that describes the network."""
    tables = {} if toml is None else _native.parse_toml(toml)
    if preset is not None:
        if "network" in tables:
            raise ValueError("network; expected preset, or toml with a table [network], got both")
        tables["network"] = {"preset": preset}
    elif "network" not in tables:
        tables["network"] = {"preset": "small"} if init is None else _native.parse_toml(init.toml)["network"]
    return tables


def _set(tables: dict[str, Any], path: str, value: object) -> None:
    """Sets the value at a dotted path; tables on the way are made."""
    *names, key = path.split(".")
    for name in names:
        tables = tables.setdefault(name, {})
    tables[key] = value


def _schedule(schedule: str | Mapping[str, Any] | None, tables: dict[str, Any]) -> Mapping[str, Any] | None:
    """The table of a schedule; a name takes over only the rate of the schedule before, whose other keys are its own."""
    if not isinstance(schedule, str):
        return schedule
    before = tables.get("train", {}).get("schedule", {})
    return {"name": schedule, **{key: rate for key, rate in before.items() if key == "lr"}}


def _name_data(tables: dict[str, Any], is_arrays: bool, data: str | None, data_dir: str | os.PathLike[str] | None) -> None:
    """Puts the name of the data, and their folder, into the table [data]."""
    if is_arrays and (data is not None or data_dir is not None):
        raise ValueError("data; expected x, or a data set by name, got both")
    table = tables.setdefault("data", {})
    name = _ARRAYS if is_arrays else data
    if name is not None:
        # The folder of another data set is not that of this one.
        table.pop("dir", None)
        table["name"] = name
    if data_dir is not None:
        table["dir"] = os.fspath(data_dir)


def _names_of(network: dict[str, Any]) -> Sequence[str] | None:
    """The names of the classes that a table [network] knows, or their numbers."""
    if "classes" in network and "class_names" not in network:
        return [str(index) for index in range(network["classes"])]
    return network.get("class_names")


def _validation(
    validation: int | tuple[NDArray[np.uint8], ArrayLike] | Dataset | None,
) -> tuple[int | None, tuple[NDArray[np.uint8] | Dataset, ArrayLike | None] | None]:
    """How many images to hold out, if that is said, and images that come from elsewhere."""
    if validation is None:
        return None, None
    if isinstance(validation, Dataset):
        return 0, (validation, None)
    if isinstance(validation, tuple):
        x, y = validation
        return 0, (x, y)
    return operator.index(validation), None


def _images(
    x: NDArray[np.uint8] | Dataset, y: ArrayLike | None, layout: Literal["nchw", "nhwc"], class_names: Sequence[str] | None
) -> Dataset:
    """A data set as it is, or from arrays."""
    if isinstance(x, Dataset):
        if y is not None:
            raise TypeError("y; expected none beside a Dataset, which has its labels")
        return x
    if y is None:
        raise TypeError("y; expected one label per image, got none")
    return Dataset.from_arrays(x, y, layout=layout, class_names=class_names)
