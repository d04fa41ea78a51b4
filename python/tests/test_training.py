"""Training: results, data, callbacks, interruptions, errors."""

import json
import os
import signal
import threading
import time

import leanresnet
import numpy as np
import pytest
from conftest import TINY, bits, labelled, same_weights
from test_concurrency import longest_pause

#: How the tool's data set normalises, which arrays do not know of themselves.
CIFAR10 = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}

#: A network for CIFAR-10 that trains in no time.
CONFIG = """
version = 1
[network]
stages = [{ width = 8, blocks = 1 }]
[network.stem]
stride = 4
[data]
name = "cifar10"
dir = "data"
validation = 20
augment = { crop = 4, flip = true, cutout = 4, mixup = 0.2 }
[train]
batch = 20
epochs = 2
ema = 0.9
label_smoothing = 0.1
schedule = { name = "cosine", lr = 0.05, warmup_epochs = 0.5 }
"""


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Images in the format of CIFAR-10, in the folder `data` of the present one; gives those of the training part."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "config.toml").write_text(CONFIG)
    x, y = labelled(120, 1, side=32, classes=10)
    records = np.concatenate([y.astype(np.uint8)[:, None], x.reshape(120, -1)], axis=1)
    for batch in range(5):
        (tmp_path / "data" / f"data_batch_{batch + 1}.bin").write_bytes(records[20 * batch : 20 * batch + 20].tobytes())
    (tmp_path / "data" / "test_batch.bin").write_bytes(records[100:].tobytes())
    return x[:100], y[:100]


def test_a_network_learns(tmp_path):
    x, y = labelled(400, 1)
    heard = []
    model, history = leanresnet.fit(x, y, toml=TINY, epochs=6, validation=labelled(60, 2), threads=2, callback=heard.append)
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4, 5, 6] and history[-1]["step"] == 6 * 25
    assert history[-1]["train_loss"] < history[0]["train_loss"] and history[-1]["val_top1"] > 0.9
    for epoch, results in zip(heard, history, strict=True):
        assert {key: epoch[key] for key in results} == results
        assert epoch["images_per_second"] > 0 and epoch["train_seconds"] > 0 and epoch["evaluate_seconds"] > 0
    best = [epoch["val_top1"] for epoch in heard if epoch["best"]]
    assert best and max(best) == max(epoch["val_top1"] for epoch in history)
    x, y = labelled(200, 3)
    assert np.mean(model.predict(x).argmax(axis=1) == y) > 0.9
    assert model.class_names == ["0", "1", "2"] and "on arrays" in model.provenance
    assert model.mean == pytest.approx(labelled(400, 1)[0].mean(axis=(0, 2, 3)) / 255, rel=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_has_the_bits_of_the_tool(tool, cifar10, tmp_path, threads):
    tool("train", "--config", "config.toml", "--out", "tool", "--threads", 3 - threads)
    model, history = leanresnet.fit(toml=CONFIG, out="python", threads=threads)
    for file in ("config.toml", "metrics.jsonl", "last.safetensors", "best.safetensors"):
        assert (tmp_path / "python" / file).read_bytes() == (tmp_path / "tool" / file).read_bytes(), file
    assert model.to_bytes() == (tmp_path / "tool" / "last.safetensors").read_bytes()
    lines = (tmp_path / "tool" / "metrics.jsonl").read_text().splitlines()
    for epoch, line in zip(history, map(json.loads, lines), strict=True):
        assert {**epoch, "learning_rate": np.float32(epoch["learning_rate"])} == {
            **line,
            "learning_rate": np.float32(line["learning_rate"]),
        }
    # From arrays, in either order of axes.
    x, y = cifar10
    names = leanresnet.Dataset.open("cifar10", "data").class_names
    for images, layout in ((x, "nchw"), (x.transpose(0, 2, 3, 1), "nhwc")):
        of_arrays, _ = leanresnet.fit(images, y, layout=layout, toml=CONFIG, class_names=names, threads=threads, **CIFAR10)
        assert same_weights(of_arrays, model) and of_arrays.class_names == names


def test_keywords_are_the_flags_of_the_tool(tool, cifar10, tmp_path):
    words = "--preset cifar10-fast --data cifar10 --data-dir data --epochs 1 --batch 25 --lr 0.02 --optimizer adamw --weight-decay 0.02"
    words += " --schedule constant --augment crop=2,mixup=0.2 --label-smoothing 0.05 --ema 0.5 --clip-norm 1 --recompute block --seed 4"
    words += " --validation 10 --eval-every 2 --dtype bf16"
    tool("train", *words.split(), "--out", "tool")
    leanresnet.fit(
        data="cifar10",
        data_dir=tmp_path / "data",
        preset="cifar10-fast",
        epochs=1,
        batch=25,
        lr=0.02,
        optimizer="adamw",
        weight_decay=0.02,
        schedule="constant",
        augment="crop=2,mixup=0.2",
        label_smoothing=0.05,
        ema=0.5,
        clip_norm=1,
        recompute="block",
        seed=4,
        validation=10,
        evaluate_every=2,
        dtype="bf16",
        out="python",
    )
    config = (tmp_path / "tool" / "config.toml").read_text()
    assert (tmp_path / "python" / "config.toml").read_text() == config.replace('dir = "data"', f'dir = "{tmp_path}/data"')
    assert (tmp_path / "python" / "last.safetensors").read_bytes() == (tmp_path / "tool" / "last.safetensors").read_bytes()


def test_tables_are_as_good_as_words_and_are_not_changed():
    x, y = labelled(40, 1)
    tables = {"network": {"stages": [{"width": 8, "blocks": 1}]}, "train": {"batch": 20, "epochs": 1}}
    before = json.dumps(tables)
    settings = {"optimizer": {"name": "sgd", "momentum": 0.8}, "augment": {"flip": True}, "lr": 0.05}
    schedule = {"name": "multistep", "milestones": [0.5]}
    model, _ = leanresnet.fit(x, y, toml=tables, schedule=schedule, **settings)
    assert json.dumps(tables) == before and schedule == {"name": "multistep", "milestones": [0.5]}
    text = """
        network = { input = [3, 8, 8], classes = 3, stages = [{ width = 8, blocks = 1 }] }
        data = { augment = { flip = true } }
        [train]
        batch = 20
        epochs = 1
        optimizer = { name = "sgd", momentum = 0.8 }
        schedule = { name = "multistep", milestones = [0.5], lr = 0.05 }
    """
    assert same_weights(leanresnet.fit(x, y, toml=text)[0], model)


def test_a_preset_takes_its_sizes_from_the_data():
    x, y = labelled(20, 1, side=16)
    model, _ = leanresnet.fit(x, y, epochs=1, augment="none")
    assert model.input_shape == (3, 16, 16) and model.classes == 3
    model, _ = leanresnet.fit(x, y, preset="small", epochs=1, augment="none", class_names=["a", "b", "c", "d"])
    assert model.classes == 4 and model.class_names == ["a", "b", "c", "d"]


def test_a_schedule_by_name_keeps_the_rate():
    x, y = labelled(20, 1)
    _, history = leanresnet.fit(x, y, toml=TINY, schedule="constant", epochs=1)
    assert history[0]["learning_rate"] == pytest.approx(0.05)


def test_images_can_be_held_out_or_brought():
    x, y = labelled(100, 1)
    _, held_out = leanresnet.fit(x, y, toml=TINY, epochs=2, validation=20, evaluate_every=2)
    assert "val_loss" not in held_out[0] and 0 <= held_out[1]["val_top1"] <= 1
    assert held_out[0]["step"] == 5
    validation = leanresnet.Dataset.from_arrays(*labelled(30, 2), class_names=["0", "1", "2"])
    _, brought = leanresnet.fit(leanresnet.Dataset.from_arrays(x, y), toml=TINY, epochs=1, validation=validation)
    assert brought[0]["step"] == 7 and "val_top1" in brought[0]
    _, tables = leanresnet.fit(x, y, toml=TINY, epochs=1, validation=labelled(30, 2))
    assert tables == brought
    _, early = leanresnet.fit(x, y, toml=TINY, epochs=50, lr=1e-9, validation=20, early_stop=2)
    assert len(early) < 50


def test_a_model_can_be_the_start(tiny):
    x, y = labelled(40, 1)
    model, _ = leanresnet.fit(x, y, init=tiny, epochs=1, lr=1e-12, batch=20)
    first, second = tiny.state_dict()["head.weight"], model.state_dict()["head.weight"]
    assert np.allclose(first, second, atol=1e-6) and model.toml == tiny.toml and model.mean == tiny.mean
    with pytest.raises(leanresnet.ModelError):
        leanresnet.fit(x, y, init=tiny, preset="small", epochs=1)


def test_false_ends_a_run_at_the_epoch():
    x, y = labelled(64, 1)
    answers = iter([None, 0, False])
    stopped, history = leanresnet.fit(x, y, toml=TINY, epochs=9, callback=lambda epoch: next(answers))
    assert [epoch["step"] for epoch in history] == [4, 8, 12]
    whole, _ = leanresnet.fit(x, y, toml=TINY, epochs=9, callback=lambda epoch: epoch["epoch"] < 3)
    assert same_weights(whole, stopped)


def test_what_a_callback_raises_is_raised():
    x, y = labelled(64, 1)
    heard = []

    class Enough(Exception):
        pass

    def callback(epoch):
        heard.append(epoch["epoch"])
        if len(heard) == 2:
            raise Enough("two epochs")

    with pytest.raises(Enough, match="two epochs"):
        leanresnet.fit(x, y, toml=TINY, epochs=9, callback=callback)
    assert heard == [1, 2]


def test_a_callback_can_use_the_library(tiny):
    x, y = labelled(64, 1)

    def callback(epoch):
        assert tiny.predict(x, threads=2).shape == (64, 3)
        leanresnet.fit(x, y, toml=TINY, epochs=1, threads=2)

    leanresnet.fit(x, y, toml=TINY, epochs=2, threads=2, callback=callback)


def test_other_threads_go_on_meanwhile():
    x, y = labelled(2000, 1, side=32)
    pause, took = longest_pause(lambda: leanresnet.fit(x, y, preset="small", epochs=2, threads=1))
    assert took > 0.5
    assert pause < took / 4, f"another thread stood still for {pause:.3f} s of {took:.3f} s"


def test_two_runs_at_once_are_as_one():
    x, y = labelled(200, 1)
    expected, _ = leanresnet.fit(x, y, toml=TINY, threads=1)
    models = []
    threads = [threading.Thread(target=lambda: models.append(leanresnet.fit(x, y, toml=TINY, threads=2)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 2 and all(same_weights(model, expected) for model in models)


@pytest.mark.parametrize("named", [False, True])
def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_bits(cifar10, tmp_path, named):
    x, y = (None, None) if named else cifar10
    config = CONFIG.replace("epochs = 2", "epochs = 60")
    settings = {"toml": config, "threads": 1}
    whole, expected = leanresnet.fit(x, y, **settings)

    def interrupt(epoch):
        if epoch["epoch"] == 3:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        leanresnet.fit(x, y, **settings, out="run", callback=interrupt)
    assert time.perf_counter() - begin < 30
    heard = []
    model, history = leanresnet.resume("run", x, y, threads=2, callback=lambda epoch: heard.append(epoch["epoch"]))
    assert 3 <= heard[0] <= 60 and heard[-1] == 60
    assert same_weights(model, whole) and history == expected
    assert same_weights(leanresnet.load(tmp_path / "run" / "last.safetensors"), model)
    longer, history = leanresnet.resume(tmp_path / "run", x, y, epochs=61)
    assert len(history) == 61 and not same_weights(longer, model)


def test_ctrl_c_ends_an_epoch_at_the_next_step(tmp_path):
    x, y = labelled(20_000, 1, side=32)
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        leanresnet.fit(x, y, preset="base", epochs=1, batch=32, threads=1, out=tmp_path / "run")
    assert leanresnet.load(tmp_path / "run").classes == 3
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == "", "an epoch of it would take a minute and a half"


def test_a_run_folder_is_a_model(tmp_path):
    x, y = labelled(64, 1)
    model, _ = leanresnet.fit(x, y, toml=TINY, out=tmp_path / "run")
    assert same_weights(leanresnet.load(tmp_path / "run"), model)
    assert same_weights(leanresnet.load(tmp_path / "run" / "last.ckpt"), model)
    with pytest.raises(FileExistsError, match="exists already"):
        leanresnet.fit(x, y, toml=TINY, out=tmp_path / "run")
    with pytest.raises(ValueError, match="images of the training set; expected 64, as before, got 60"):
        leanresnet.resume(tmp_path / "run", x[:60], y[:60], epochs=9)
    with pytest.raises(ValueError, match="`arrays`"):
        leanresnet.resume(tmp_path / "run", epochs=9)


X, Y = labelled(20, 1)


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        ((X.astype(np.float32), Y), {}, TypeError, "x; expected a NumPy array of uint8, got float32"),
        ((X[0], Y), {}, ValueError, r"shape of x; expected four axes, as layout names them, got \(3, 8, 8\)"),
        ((X.tolist(), Y), {}, TypeError, "got list"),
        ((X, Y[:19]), {}, ValueError, "pixels of a data set; expected 19 images"),
        ((X, Y - 5), {}, ValueError, "label of image .* got -"),
        ((X, Y + 7), {}, ValueError, "label of image .*less than the number of classes, 3"),
        ((X, Y + (1 << 31)), {"toml": None}, ValueError, "label of image .*less than the number of classes, 65536"),
        ((X, Y + (1 << 40)), {}, ValueError, "label of image 0; expected 0 to 4294967295"),
        ((X, Y / 2), {}, TypeError, "float64"),
        ((X, Y[:, None]), {}, TypeError, "dim"),
        ((X,), {}, TypeError, "y; expected one label per image"),
        ((leanresnet.Dataset.from_arrays(X, Y), Y), {}, TypeError, "y; expected none"),
        ((X, Y), {"data": "synthetic"}, ValueError, "data; expected x, or a data set by name, got both"),
        ((X[:0], Y[:0]), {}, ValueError, "at least one"),
        ((X.transpose(0, 2, 3, 1), Y), {}, ValueError, "images of the training set; expected 3 x 8 x 8, got 8 x 8 x 3"),
        ((), {"data": "cifar10"}, ValueError, "data.dir"),
        ((), {"data": "cifar10", "data_dir": "/nowhere"}, leanresnet.DataError, "/nowhere"),
        ((), {"data": "imagenet"}, ValueError, "unknown data set"),
        ((X, Y), {"preset": "small"}, ValueError, "network; expected preset, or toml with a table"),
        ((X, Y), {"epochs": 0}, ValueError, "train.epochs; expected 1 to 10000, got 0"),
        ((X, Y), {"epochs": "3"}, ValueError, "configuration, `epochs = \"3\"`; expected u64, got"),
        ((X, Y), {"optimizer": "lion"}, ValueError, "lion"),
        ((X, Y), {"schedule": "multistep"}, ValueError, "milestones"),
        ((X, Y), {"augment": "turn=3"}, ValueError, "augmentation; expected none, or a list"),
        ((X, Y), {"dtype": "f16"}, ValueError, "f16"),
        ((X, Y), {"threads": 0}, ValueError, "threads"),
        ((X, Y), {"validation": 20}, ValueError, "validation images; expected less than the 20 images"),
        ((X, Y), {"validation": "5"}, TypeError, "str"),
        ((X, Y), {"early_stop": 2}, ValueError, "early stop"),
        ((X, Y), {"evaluate_every": 0}, ValueError, "at least 1"),
        ((X, Y), {"mean": [0.5]}, ValueError, "mean"),
        ((X, Y), {"class_names": ["a", "b"]}, ValueError, "label of image"),
        ((X, Y), {"callback": 3}, TypeError, "not callable"),
        ((X, Y), {"learning_rate": 1}, TypeError, "learning_rate"),
    ],
)
def test_other_calls_are_refused(arguments, settings, error, message):
    with pytest.raises(error, match=message):
        leanresnet.fit(*arguments, **{"toml": TINY, "epochs": 1, **settings})


def test_divergence_is_an_error_of_its_own(tmp_path):
    with pytest.raises(leanresnet.DivergedError, match="training diverged at step") as caught:
        leanresnet.fit(X, Y, toml=TINY, lr=1e30, schedule="constant", epochs=9, out=tmp_path / "run")
    assert isinstance(caught.value, ArithmeticError)
    assert leanresnet.load(tmp_path / "run" / "last.ckpt").classes == 3


def test_data_sets_can_be_looked_at(cifar10):
    x, y = cifar10
    images, labels = leanresnet.Dataset.open("cifar10", "data").arrays()
    assert np.array_equal(images.transpose(0, 3, 1, 2), x) and np.array_equal(labels, y)
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    test = leanresnet.Dataset.open("cifar10", "data", split="test")
    assert len(test) == 20 and test.image_shape == (3, 32, 32) and test.class_names[3] == "cat"
    again, labels = leanresnet.Dataset.from_arrays(x[:, :, ::2], y).arrays()
    assert np.array_equal(again, x[:, :, ::2].transpose(0, 2, 3, 1)) and np.array_equal(labels, y)
    assert len(leanresnet.Dataset.open("synthetic")) == 8000
    with pytest.raises(ValueError, match="part of the data set; expected train or test"):
        leanresnet.Dataset.open("synthetic", split="validation")


def test_bf16_trains_with_other_bits():
    single, half = (leanresnet.fit(X, Y, toml=TINY, epochs=1, dtype=dtype)[0] for dtype in ("f32", "bf16"))
    assert not np.array_equal(bits(single.state_dict()["head.weight"]), bits(half.state_dict()["head.weight"]))
    assert np.allclose(single.state_dict()["head.weight"], half.state_dict()["head.weight"], atol=0.1)
