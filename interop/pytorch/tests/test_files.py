"""Model files in both directions, to the bit."""

import json
import lzma
import random

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import REPOSITORY, Failed
from leanresnet_torch import LeanResNet, Network, Preprocess, container, from_leanresnet, to_leanresnet
from leanresnet_torch.files import KIND
from networks import random_module, random_toml

SHIPPED = REPOSITORY / "cli" / "models" / "cifar10-s.safetensors"


def bits(tensors: dict) -> dict:
    return {name: (tensor.dtype, tensor.shape, tensor.cpu().contiguous().numpy().tobytes()) for name, tensor in tensors.items()}


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_come_back(seed, tmp_path):
    module = random_module(Network.from_toml(random_toml(seed)), seed)
    channels, *size = module.network.input
    module.preprocess = Preprocess([0.1] * channels, [0.3] * channels, max(size))
    module.class_names = [f"class {index}" for index in range(module.network.classes)]
    module.provenance = 'a "test", Käse'
    to_leanresnet(module, tmp_path / "model.safetensors")
    back = from_leanresnet(tmp_path / "model.safetensors")
    assert bits(back.state_dict()) == bits(module.state_dict())
    assert (back.network, back.preprocess) == (module.network, module.preprocess)
    assert (back.class_names, back.provenance) == (module.class_names, module.provenance)
    assert not back.training


def test_a_file_of_leanresnet_comes_back(tmp_path):
    module = from_leanresnet(SHIPPED)
    assert module.network.stages == Network.preset("cifar10-s").stages
    assert (module.class_names[3], module.provenance[:7]) == ("cat", "trained")
    to_leanresnet(module, tmp_path / "same.safetensors")
    theirs, ours = container.read(SHIPPED), container.read(tmp_path / "same.safetensors")
    assert theirs[0] == ours[0]
    assert list(theirs[0]) == list(ours[0])
    assert bits(theirs[1]) == bits(ours[1])


def test_what_leanresnet_imports_is_what_is_written(leanresnet, tmp_path):
    """Its own writer, from a state dict of PyTorch: the same tensors, the same description."""
    module = random_module("small")
    safetensors.torch.save_file(module.state_dict(), tmp_path / "state.safetensors")
    leanresnet("import", tmp_path / "state.safetensors", "--preset", "small", "--output", tmp_path / "theirs.safetensors")
    to_leanresnet(module, tmp_path / "ours.safetensors", provenance=f"imported from {tmp_path / 'state.safetensors'}")
    theirs, ours = (container.read(tmp_path / name) for name in ("theirs.safetensors", "ours.safetensors"))
    assert theirs[0] == ours[0]
    assert bits(theirs[1]) == bits(ours[1])


def test_class_names_reach_the_tool(leanresnet, tmp_path):
    module = random_module("small")
    to_leanresnet(module, tmp_path / "model.safetensors", class_names=[f"kind {index}" for index in range(10)])
    header = b"P6\n32 32\n255\n"
    (tmp_path / "picture.ppm").write_bytes(header + random.Random(1).randbytes(32 * 32 * 3))
    (answer,) = leanresnet("predict", tmp_path / "model.safetensors", tmp_path / "picture.ppm")
    assert answer["top"][0]["class"] == f"kind {answer['top'][0]['index']}"


@pytest.mark.parametrize("position", (20, 70, 100, 1000, -1))
def test_damage_is_found_on_both_sides(position, leanresnet, tmp_path):
    path = tmp_path / "model.safetensors"
    to_leanresnet(random_module("small"), path)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises((ValueError, safetensors.SafetensorError)):
        from_leanresnet(path)
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 32, 32), np.float32))
    with pytest.raises(Failed) as failed:
        leanresnet("predict", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert failed.value.args[0] == 3


def test_weights_outside_of_stencils_are_written_as_zeros(tmp_path):
    module = random_module("small")
    expected = bits(module.state_dict())
    with torch.no_grad():
        module.stages[0][0].conv1.spatial.weight[..., 0, 0] = 0.5
    to_leanresnet(module, tmp_path / "model.safetensors")
    assert bits(from_leanresnet(tmp_path / "model.safetensors").state_dict()) == expected


def test_what_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    module = random_module("small")
    for wrong, error, message in (
        (torch.nn.DataParallel(module), TypeError, "expected a LeanResNet .* got DataParallel"),
        (random_module("small").double(), ValueError, "type of .*; expected torch.float32 .* got torch.float64"),
        (module.head, TypeError, "got Linear"),
    ):
        with pytest.raises(error, match=message):
            to_leanresnet(wrong, path)
    changed = random_module("small")
    torch.nn.utils.parametrizations.weight_norm(changed.head)
    with pytest.raises(ValueError, match="tensors of the module; expected those of its network, got .*head"):
        to_leanresnet(changed, path)
    with pytest.raises(ValueError, match="class_names; expected 10 names"):
        to_leanresnet(module, path, class_names=["one"])
    with pytest.raises(ValueError, match="preprocess.mean; expected 3 values"):
        to_leanresnet(module, path, Preprocess.identity(1))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    module = random_module("small")
    safetensors.torch.save_file(module.state_dict(), path)
    with pytest.raises(ValueError, match="description of a network; expected a file of leanresnet, got a plain state dict of"):
        from_leanresnet(path)
    to_leanresnet(module, path)
    members, tensors = container.read(path)

    def refused(changed: dict, message: str, tensors=tensors):
        container.write(path, {**members, **changed}, tensors)
        with pytest.raises(ValueError, match=message):
            from_leanresnet(path)

    refused({"network": {"kind": "graph"}}, "kind of the network; expected `leanresnet`.*got `graph`")
    refused({"network": None}, "kind of the network")
    refused({"preprocess": {"mean": [0, 0, 0]}}, "preprocess; expected mean, std")
    refused({"network": {**members["network"], "depth": 3}}, "network.depth; expected one of the keys")
    refused({"network": {**members["network"], "classes": 11}}, "size mismatch for head.weight")
    refused({"class_names": ["one"]}, "class_names; expected 10 names")
    refused({}, "Missing key.*head.bias", {name: tensor for name, tensor in tensors.items() if name != "head.bias"})
    text = json.dumps({"version": 2})
    path.write_bytes(safetensors.torch.save(tensors, {"leanresnet": text}))
    with pytest.raises(ValueError, match="version of the file; expected 1, got 2"):
        from_leanresnet(path)
    path.write_bytes(safetensors.torch.save(tensors, {"leanresnet": json.dumps({"version": 1})}))
    with pytest.raises(ValueError, match="checksum; expected a checksum at the start of the header, got none"):
        from_leanresnet(path)


def test_the_folder_of_a_run_is_its_best_model_else_its_last(tmp_path):
    modules = [random_module(Network.from_toml(random_toml(seed)), seed) for seed in (1, 2)]
    to_leanresnet(modules[0], tmp_path / "last.safetensors")
    assert from_leanresnet(tmp_path).network == modules[0].network
    to_leanresnet(modules[1], tmp_path / "best.safetensors")
    assert from_leanresnet(tmp_path).network == modules[1].network


def crc64_of_xz(data: bytes) -> int:
    """The check that lzma writes behind the only block of an .xz file."""
    file = lzma.compress(data, check=lzma.CHECK_CRC64, preset=0)
    index = 4 * (int.from_bytes(file[-8:-4], "little") + 1)
    return int.from_bytes(file[-12 - index - 8 : -12 - index], "little")


@pytest.mark.parametrize("length", (1, 7, 1023, 1024, 1025, 4096, 100_003, 1_000_000))
def test_the_checksum_is_that_of_xz(length):
    data = random.Random(length).randbytes(length)
    assert container.crc64(data) == crc64_of_xz(data)


def test_the_checksum_has_its_published_value():
    assert container.crc64(b"123456789") == 0x995DC9BBDF1939FA
    assert KIND == container.KEY == "leanresnet"
