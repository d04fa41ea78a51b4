"""Models: files, tensors, networks, errors."""

import copy
import errno
import pickle

import leanresnet
import numpy as np
import pytest
from conftest import SHIPPED, TINY, bits, same_weights

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)


def test_a_model_says_what_it_is(shipped):
    assert shipped.input_shape == (3, 32, 32) and shipped.classes == 10
    assert shipped.class_names[0] == "airplane" and len(shipped.class_names) == 10
    assert shipped.mean == pytest.approx([0.4914, 0.4822, 0.4465]) and len(shipped.std) == 3
    assert "on cifar10" in shipped.provenance
    assert "48x4 96x3 192x2" in repr(shipped)


def test_a_state_dict_makes_the_same_model(shipped):
    state = shipped.state_dict()
    names = {"mean": shipped.mean, "std": shipped.std, "class_names": shipped.class_names}
    for network in ({"preset": "cifar10-s"}, {"toml": shipped.toml}):
        again = leanresnet.Model.from_state_dict(state, **network, **names)
        assert same_weights(again, shipped) and again.class_names == shipped.class_names
        assert np.array_equal(bits(again.predict(IMAGES)), bits(shipped.predict(IMAGES)))


def test_a_state_dict_has_pytorchs_names_and_shapes(shipped):
    state = shipped.state_dict()
    assert next(iter(state)) == "stem.conv.weight" and state["stem.conv.weight"].shape == (48, 3, 3, 3)
    assert list(state)[-2:] == ["head.weight", "head.bias"]
    counters = [value for name, value in state.items() if name.endswith("num_batches_tracked")]
    assert counters and all(value.dtype == np.int64 and value.shape == () for value in counters)
    weights = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    assert all(value.dtype == np.float32 and value.flags.owndata | (value.base is not None) for value in weights)


def test_tensors_are_copies(tiny):
    state = tiny.state_dict()
    before = tiny.state_dict()
    state["head.bias"][:] = 7
    assert tiny.state_dict()["head.bias"].tobytes() == before["head.bias"].tobytes()
    changed = leanresnet.Model.from_state_dict(state, toml=TINY)
    state["head.bias"][:] = 8
    assert np.all(changed.state_dict()["head.bias"] == 7)


def test_arrays_of_a_state_dict_can_have_any_order(tiny):
    state = {name: np.asfortranarray(value) for name, value in reversed(tiny.state_dict().items())}
    assert same_weights(leanresnet.Model.from_state_dict(state, toml=TINY), tiny)


class Tensor:
    """What NumPy makes an array of, as a tensor of PyTorch."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_tensors_of_others_are_read(tiny):
    state = {name: Tensor(value) for name, value in tiny.state_dict().items()}
    assert same_weights(leanresnet.Model.from_state_dict(state, toml=TINY), tiny)


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def changed(name, change):
    return lambda state: {**state, name: change(state[name])}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without("head.bias"), leanresnet.ModelError, "head.bias"),
        (lambda state: {**state, "extra": np.zeros(2, np.float32)}, leanresnet.ModelError, "extra"),
        (changed("head.bias", lambda value: value[:2]), leanresnet.ModelError, "head.bias"),
        (changed("head.bias", lambda value: value.astype(np.float64)), TypeError, "tensor `head.bias`; expected float32, got float64"),
        (changed("head.bias", lambda value: value.astype(np.float16)), TypeError, "got float16"),
        (lambda state: {1: state["head.bias"]}, TypeError, "str"),
        (lambda state: list(state), AttributeError, "items"),
    ],
)
def test_other_state_dicts_are_refused(tiny, change, error, message):
    with pytest.raises(error, match=message):
        leanresnet.Model.from_state_dict(change(tiny.state_dict()), toml=TINY)


def test_files_and_pickles_hold_the_whole_model(shipped, tmp_path):
    path = tmp_path / "model.safetensors"
    shipped.save(path)
    assert path.read_bytes() == SHIPPED.read_bytes() == shipped.to_bytes()
    shipped.save(str(path))
    for model in (
        leanresnet.load(str(path)),
        leanresnet.Model.from_bytes(path.read_bytes()),
        pickle.loads(pickle.dumps(shipped)),
        copy.deepcopy(shipped),
    ):
        assert model.to_bytes() == shipped.to_bytes()


def test_random_weights_are_those_of_the_seed():
    model = leanresnet.Model.random("small", 5)
    assert same_weights(model, leanresnet.Model.random("small", seed=5))
    assert not same_weights(model, leanresnet.Model.random("small", 6))
    assert leanresnet.Model.random().toml == leanresnet.Model.random("small").toml
    assert "seed 5" in model.provenance


def test_a_network_is_a_text_or_tables(tiny):
    tables = {"network": {"input": [3, 8, 8], "classes": 3, "stages": [{"width": 8, "blocks": 1}]}}
    assert leanresnet.Model.random(toml=tables, seed=3).toml == tiny.toml
    assert leanresnet.Model.random(toml=tiny.toml, seed=3).toml == tiny.toml


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "large"}, "preset; expected one of small, base"),
        ({"preset": "small", "toml": TINY}, "network; expected preset or toml, got both"),
        ({"toml": "[network]\nwidth = 3"}, "line 2"),
        ({"toml": "[network"}, "line 1"),
        ({"toml": {"network": {"stages": []}}}, "stages"),
        ({"toml": {}}, r"a table \[network\]"),
    ],
)
def test_other_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        leanresnet.Model.random(**options)


def test_missing_files_are_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot read .*none.safetensors") as caught:
        leanresnet.load(tmp_path / "none.safetensors")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(FileNotFoundError, match="last.safetensors"):
        leanresnet.load(tmp_path)
    with pytest.raises(OSError, match="cannot"):
        leanresnet.Model.random().save(tmp_path / "none" / "model.safetensors")


def test_damaged_files_are_errors_of_the_model(shipped, tmp_path):
    content = bytearray(shipped.to_bytes())
    content[-1] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(leanresnet.ModelError, match=r"damaged.safetensors: the file is damaged: checksum; expected \w+, got \w+"):
        leanresnet.load(path)
    with pytest.raises(leanresnet.ModelError, match="bytes: "):
        leanresnet.Model.from_bytes(b"")
    assert issubclass(leanresnet.ModelError, ValueError) and leanresnet.ModelError.__module__ == "leanresnet"


def test_preprocessing_must_fit(tiny):
    with pytest.raises(ValueError, match="preprocess.mean; expected 3 values"):
        leanresnet.Model.from_state_dict(tiny.state_dict(), toml=TINY, mean=[0.5])
    with pytest.raises(ValueError, match="preprocess.std"):
        leanresnet.Model.from_state_dict(tiny.state_dict(), toml=TINY, std=[1, 0, 1])


def test_models_cannot_be_changed(tiny):
    with pytest.raises(AttributeError):
        tiny.classes = 4
    with pytest.raises(TypeError):
        leanresnet.Model()
