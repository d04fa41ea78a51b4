"""Model files: a file that says what it is, which `leanresnet eval` and `leanresnet predict` take, from a module and back."""

from pathlib import Path

import torch

from . import container
from .checks import invalid
from .layers import StencilConv2d
from .model import LeanResNet
from .network import Network
from .preprocess import Preprocess
from .validate import check_class_names

KIND = "leanresnet"


def to_leanresnet(module: LeanResNet, path, preprocess: Preprocess | None = None, class_names=None, provenance: str | None = None):
    """Writes a model file, whole or not at all; a file that is there already is replaced.

    `preprocess`, `class_names` and `provenance` (words about where the weights come from) are the module's own where they are not given.
    Every bit of the weights is kept: `ValueError` if they are not all float32.
    """
    if not isinstance(module, LeanResNet):
        expected = "a LeanResNet (of a wrapper such as DistributedDataParallel or AveragedModel its .module)"
        raise TypeError(f"module to write; expected {expected}, got {type(module).__name__}")
    network = module.network
    preprocess = (module.preprocess if preprocess is None else preprocess).for_input(network.input)
    class_names = tuple(module.class_names if class_names is None else class_names)
    check_class_names(class_names, network.classes)
    members = {
        "class_names": list(class_names),
        "network": dict(sorted({"kind": KIND, **network.to_table()}.items())),
        "preprocess": {"mean": list(preprocess.mean), "resize": preprocess.resize, "std": list(preprocess.std)},
        "provenance": (module.provenance or f"from PyTorch {torch.__version__}") if provenance is None else provenance,
    }
    container.write(path, members, _tensors(module))


def from_leanresnet(path) -> LeanResNet:
    """The network of a model file, or of a run folder (its best model, else its last), in inference mode.

    `ValueError` if the file is damaged, no model file, or holds a network that is not of this family.
    """
    path = Path(path)
    if path.is_dir():
        path = path / ("best.safetensors" if (path / "best.safetensors").exists() else "last.safetensors")
    members, tensors = container.read(path)
    description, preprocess = (dict(members.get(key) or {}) for key in ("network", "preprocess"))
    kind = description.pop("kind", None)
    if kind != KIND:
        raise invalid(f"{path}: kind of the network", f"`{KIND}`, a network of stem, stages and head", f"`{kind}`")
    if preprocess.keys() - {"resize"} != {"mean", "std"}:
        raise invalid(f"{path}: preprocess", "mean, std and at most resize", ", ".join(preprocess) or "none")
    names, provenance = members.get("class_names", ()), members.get("provenance", "")
    module = LeanResNet(Network.from_table(description), Preprocess(**preprocess), names, provenance)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from error
    return module.eval()


@torch.no_grad()
def _tensors(module: LeanResNet) -> dict[str, torch.Tensor]:
    """The state dict, with zeros outside of all stencils."""
    tensors = module.state_dict()
    with torch.device("meta"):
        expected = LeanResNet(module.network).state_dict()
    if {name: tensor.shape for name, tensor in tensors.items()} != {name: tensor.shape for name, tensor in expected.items()}:
        different = sorted(tensors.keys() ^ expected.keys()) or "other shapes"
        raise invalid("tensors of the module", "those of its network", f"a difference: {different}")
    for name, layer in module.named_modules():
        if isinstance(layer, StencilConv2d):
            tensors[f"{name}.weight"] = layer.stencil_weight()
    for name, tensor in tensors.items():
        wanted = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        if tensor.dtype != wanted:
            raise invalid(f"type of {name}", f"{wanted} (module.float() rounds)", tensor.dtype)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
