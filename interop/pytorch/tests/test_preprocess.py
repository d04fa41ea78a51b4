"""Bytes become inputs as in the command-line tool."""

import numpy as np
import pytest
import torch
from leanresnet_torch import Preprocess, from_leanresnet, to_leanresnet
from networks import random_module

CIFAR10 = Preprocess([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


def test_every_byte_becomes_the_number_of_the_formula_in_f32():
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (CIFAR10.mean, CIFAR10.std))
    expected = (images.astype(np.float32) / np.float32(255) - mean) / std
    assert expected.dtype == np.float32
    assert np.array_equal(CIFAR10(images).numpy(), expected)
    assert np.array_equal(CIFAR10(torch.from_numpy(images)[0]).numpy(), expected)


# Height and width of the picture, the model's resize, and how far probabilities may be off: scaled bytes may differ by one.
@pytest.mark.parametrize(
    "size, resize, tolerance",
    [((32, 32), None, 1e-6), ((80, 50), None, 0.01), ((20, 24), None, 0.01), ((80, 50), 40, 0.01), ((33, 71), 33, 0.01)],
)
def test_pictures_are_seen_as_by_the_tool(size, resize, tolerance, leanresnet, tmp_path):
    module = random_module("small")
    module.preprocess = Preprocess(CIFAR10.mean, CIFAR10.std, resize)
    to_leanresnet(module, tmp_path / "model.safetensors")
    height, width = size
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 7 - y / 4), np.sin(x * y / 300)]
    pixels = np.stack([127.5 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)
    (tmp_path / "picture.ppm").write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes())
    (answer,) = leanresnet("predict", tmp_path / "model.safetensors", tmp_path / "picture.ppm", "--top", 10)
    theirs = {guess["index"]: guess["probability"] for guess in answer["top"]}
    with torch.no_grad():
        ours = module(module.preprocess(pixels.transpose(2, 0, 1)))[0].softmax(0)
    assert max(abs(theirs[index] - value) for index, value in enumerate(ours.tolist())) <= tolerance


def test_models_of_numbers_take_no_bytes(tmp_path):
    module = random_module("small")
    module.preprocess = Preprocess([], []).for_input((3, 32, 32))
    to_leanresnet(module, tmp_path / "model.safetensors")
    back = from_leanresnet(tmp_path / "model.safetensors")
    assert back.preprocess.mean == ()
    with pytest.raises(ValueError, match="images; expected numbers, as the model was trained on"):
        back.preprocess(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_unusable_values_are_refused():
    for mean, std, resize, message in (
        ([0.1], [], None, "preprocess.std; expected 1 values"),
        ([float("nan")], [1.0], None, "preprocess.mean; expected a finite number"),
        ([0.0], [0.0], None, "preprocess.std; expected finite values above 0"),
        ([0.0], [1.0], 0, "preprocess.resize; expected an integer of at least 1"),
        (0.0, [1.0], None, "preprocess.mean; expected a list"),
    ):
        with pytest.raises(ValueError, match=message):
            Preprocess(mean, std, resize)
    with pytest.raises(ValueError, match="preprocess.resize; expected 32 to 65536 pixels, got 31"):
        Preprocess((0.0,) * 3, (1.0,) * 3, 31).for_input((3, 32, 32))
    with pytest.raises(ValueError, match=r"images; expected bytes \(uint8\) of shape \[images, 3, height, width\], got torch.float32"):
        CIFAR10(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"got torch.uint8 \[1, 4, 4, 3\]"):
        CIFAR10(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
