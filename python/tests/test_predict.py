"""Prediction: values, arrays of every layout, errors."""

import mmap

import leanresnet
import numpy as np
import pytest
from conftest import SHIPPED, bits


def numbers(count, seed=1, shape=(3, 32, 32)):
    return np.random.default_rng(seed).standard_normal((count, *shape), dtype=np.float32)


def pixels(count, seed=1, shape=(3, 32, 32)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_outputs_are_those_of_the_tool(tool, shipped, tmp_path, precision):
    images = numbers(70)
    np.save(tmp_path / "x.npy", images)
    tool("predict", SHIPPED, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--dtype", precision)
    expected = np.load(tmp_path / "y.npy")
    assert expected.shape == (70, 10)
    assert np.array_equal(bits(shipped.predict(images, precision=precision)), bits(expected))


def test_bytes_are_normalised_by_the_model(shipped):
    images = pixels(5)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (shipped.mean, shipped.std))
    expected = shipped.predict((images.astype(np.float32) / np.float32(255) - mean) / std)
    assert np.array_equal(bits(shipped.predict(images)), bits(expected))
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    assert np.array_equal(bits(shipped.predict(last, layout="nhwc")), bits(expected))


def test_threads_batches_and_repetition_do_not_matter(tiny):
    images = numbers(33, shape=(3, 8, 8))
    expected = bits(tiny.predict(images))
    for threads in (1, 2, 3):
        for batch in (1, 2, 32, 64, 1000):
            assert np.array_equal(bits(tiny.predict(images, threads=threads, batch=batch)), expected)
    assert np.array_equal(bits(np.concatenate([tiny.predict(images[i : i + 1]) for i in range(33)])), expected)


def test_auto_is_one_of_the_precisions(tiny):
    images = numbers(4, shape=(3, 8, 8))
    single, half, auto = (bits(tiny.predict(images, precision=precision)) for precision in ("f32", "bf16", "auto"))
    assert not np.array_equal(single, half)
    assert np.array_equal(auto, single) or np.array_equal(auto, half)


def unaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


def mapped(array):
    memory = mmap.mmap(-1, array.nbytes)
    memory.write(array.tobytes())
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


def every_second(array):
    return np.repeat(array, 2, axis=0)[::2]


VIEWS = {
    "contiguous": lambda array: array,
    "channels last": lambda array: np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "columns before rows": lambda array: np.ascontiguousarray(array.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2),
    "Fortran": np.asfortranarray,
    "every second": every_second,
    "backwards": lambda array: array[::-1].copy()[::-1],
    "a window": lambda array: np.pad(array, ((0, 0), (0, 0), (2, 1), (1, 3)))[:, :, 2:-1, 1:-3],
    "unaligned": unaligned,
    "read-only": read_only,
    "mapped": mapped,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("make", [numbers, pixels])
def test_any_layout_of_memory_is_read(tiny, view, make):
    images = make(6, shape=(3, 8, 8))
    expected = bits(tiny.predict(images))
    seen = VIEWS[view](images)
    assert np.array_equal(seen, images)
    assert np.array_equal(bits(tiny.predict(seen)), expected)
    assert np.array_equal(bits(tiny.predict(seen.transpose(0, 2, 3, 1), layout="nhwc")), expected)


def test_one_image_can_stand_for_many(tiny):
    image = numbers(1, shape=(3, 8, 8))
    logits = tiny.predict(np.broadcast_to(image, (5, 3, 8, 8)))
    assert np.array_equal(bits(logits), np.repeat(bits(tiny.predict(image)), 5, axis=0))


def test_the_result_is_an_array_of_its_own(tiny):
    logits = tiny.predict(numbers(3, shape=(3, 8, 8)))
    assert logits.dtype == np.float32 and logits.shape == (3, 3)
    assert logits.flags.owndata and logits.flags.c_contiguous and logits.flags.writeable
    before = logits.copy()
    tiny.predict(numbers(3, seed=2, shape=(3, 8, 8)))
    assert np.array_equal(logits, before)


def test_no_image_has_no_output(tiny):
    assert tiny.predict(np.empty((0, 3, 8, 8), np.float32)).shape == (0, 3)
    with pytest.raises(ValueError, match="expected 3 x 8 x 8 each, got 3 x 9 x 8"):
        tiny.predict(np.empty((0, 3, 9, 8), np.float32))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 3, 8, 8)), TypeError, "images; expected a NumPy array of float32 or uint8, got float64"),
        (np.zeros((2, 3, 8, 8), ">f4"), TypeError, "got >f4"),
        (np.zeros((2, 3, 8, 8), np.int8), TypeError, "got int8"),
        (np.zeros((2, 3, 8, 8), object), TypeError, "got object"),
        (np.zeros((3, 8, 8)), TypeError, "got float64"),
        ([[[[0.0]]]], TypeError, "got list"),
        (None, TypeError, "got NoneType"),
        (np.zeros((3, 8, 8), np.float32), ValueError, r"shape of images; expected four axes, as layout names them, got \(3, 8, 8\)"),
        (np.zeros((1, 2, 3, 8, 8), np.uint8), ValueError, r"got \(1, 2, 3, 8, 8\)"),
        (np.float32(1), TypeError, "got numpy.float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), ValueError, "shape of images; expected 3 x 8 x 8 each, got 8 x 8 x 3"),
        (np.zeros((2, 3, 8, 9), np.float32), ValueError, "got 3 x 8 x 9"),
    ],
)
def test_other_arrays_are_refused(tiny, images, error, message):
    with pytest.raises(error, match=message):
        tiny.predict(images)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threads": 0}, ValueError, "threads; expected at least 1, got 0"),
        ({"threads": -1}, OverflowError, "negative"),
        ({"batch": 0}, ValueError, "batch; expected at least 1, got 0"),
        ({"precision": "f64"}, ValueError, "precision; expected one of f32, bf16, bf16x3, auto, auto-near-f32, got `f64`"),
        ({"layout": "chwn"}, ValueError, "layout; expected nchw or nhwc, got `chwn`"),
        ({"thread": 1}, TypeError, "thread"),
    ],
)
def test_other_options_are_refused(tiny, options, error, message):
    with pytest.raises(error, match=message):
        tiny.predict(np.zeros((1, 3, 8, 8), np.float32), **options)
    assert tiny.predict(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 3)


def test_groups_of_channels_have_no_bf16(tmp_path):
    toml = "[network]\ninput = [3, 8, 8]\nclasses = 3\nstages = [{ width = 8, blocks = 1 }]\nblock = { group_size = 4 }"
    model = leanresnet.Model.random(toml=toml)
    with pytest.raises(ValueError, match="groups"):
        model.predict(np.zeros((1, 3, 8, 8), np.float32), precision="bf16")
    assert model.predict(np.zeros((1, 3, 8, 8), np.float32), precision="auto").shape == (1, 3)
