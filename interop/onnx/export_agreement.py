"""Exports networks to ONNX and compares engines: every preset, and random networks of the grammar of configuration files.

    python -m venv venv && venv/bin/pip install -r interop/onnx/requirements.txt
    cargo build --release -p leanresnet-cli
    venv/bin/python interop/onnx/export_agreement.py --tool target/release/leanresnet

Each network gets random weights and norms, is made a model by `leanresnet import`, and is exported with norms folded and kept. Both files
have to pass ONNX's checker with strict shape inference. Then ONNX Runtime (on the folded file as it is, on the other without
optimisations) and `leanresnet predict` run the same images. No engine may be further from a plain evaluation in float64 than twice as far
as the plain evaluation in float32 (`reference.py`), by the largest and by the Euclidean difference, give or take 4 roundings of the
largest logit; and `leanresnet verify` has to find that both engines agree.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

from reference import PRESETS, STENCILS, Network

UNIT = 2.0**-24


def choose_network(choose):
    """A random `[network]` table."""
    group = choose.choice([1, 1, 1, 2, 4, 8, 16, 32])
    stride = choose.choice([1, 1, 2, 4])

    def block():
        symmetric = choose.random() < 0.3
        operator = choose.choice(["lean", "lean", "dense"] if symmetric else ["lean", "lean", "dense", "separable", "shift"])
        one, other = choose.choice(list(STENCILS)), choose.choice(list(STENCILS))
        keys = {
            "form": "symmetric" if symmetric else "residual",
            "operator": operator,
            "norms": choose.choice([0, 1, 2]),
            "relu_after_sum": choose.random() < 0.5,
            "scale": choose.choice([1.0, 1.0, 0.5, 0.3, -0.7]),
        }
        if operator in ("lean", "separable"):
            keys["stencil"] = one if symmetric or choose.random() < 0.7 else [one, other]
            keys["group_size"] = group
        if choose.random() < 0.5:
            keys["bias"] = choose.random() < 0.5
        return keys

    unit = max(group, 4)
    width = lambda: unit * choose.randint(1, max(1, 48 // unit))
    stages = [{"width": width(), "blocks": choose.randint(1, 2)} for _ in range(choose.randint(1, 3))]
    for stage in stages:
        if choose.random() < 0.3:
            stage.update({"group_size": 1, **block()})
    norm = lambda: choose.choice(["batch", "batch", "none"])
    return {
        "input": [choose.randint(1, 4), *(choose.randint(max(9, 4 * stride), 33) for _ in range(2))],
        "classes": choose.randint(2, 20),
        "norm_epsilon": choose.choice([1e-5, 1e-3]),
        "stem": {"kernel": choose.choice([1, 3, 7]), "stride": stride, "norm": norm(), "bias": choose.random() < 0.5},
        "connection": {
            "form": choose.choice(["pool-conv", "conv-pool", "strided-conv"]),
            "norm": norm(),
            "bias": choose.random() < 0.5,
        },
        "block": block(),
        "stages": stages,
    }


# What 50 random networks have to have between them.
GRAMMAR = {
    "form": ["residual", "symmetric", "pool-conv", "conv-pool", "strided-conv"],
    "operator": ["lean", "dense", "separable", "shift"],
    "stencil": list(STENCILS),
    "norms": [0, 1, 2],
    "relu_after_sum": [False, True],
    "scale": [1.0, 0.5, 0.3, -0.7],
    "group_size": [1, 2, 4, 8, 16, 32],
    "bias": [False, True],
    "kernel": [1, 3, 7],
    "stride": [1, 2, 4],
    "norm": ["batch", "none"],
}


def pairs(table):
    """Every key with every value in a table and in those inside of it."""
    for key, value in table.items():
        members = value if isinstance(value, list) else [value]
        yield from ((key, member) for member in members if not isinstance(member, dict))
        for member in members:
            if isinstance(member, dict):
                yield from pairs(member)


def toml(value):
    """A value as TOML, tables inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(member)}" for key, member in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def safetensors(tensors):
    """A safetensors file of float32 arrays."""
    header, data, end = {}, b"", 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        data += tensor.astype("<f4").tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def read_safetensors(path):
    """The arrays of a safetensors file by name, and its metadata."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.pop("__metadata__", {})
    types = {"F32": "<f4", "I64": "<i8"}

    def array(entry):
        begin, end = entry["data_offsets"]
        return np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(entry["shape"])

    return {name: array(entry) for name, entry in header.items()}, metadata


class Tool:
    """The command-line tool in a folder."""

    def __init__(self, program, folder):
        self.program, self.folder = str(pathlib.Path(program).resolve()), folder

    def __call__(self, *words, code=0):
        ran = subprocess.run([self.program, *map(str, words), "--json"], cwd=self.folder, capture_output=True, text=True)
        assert ran.returncode == code, f"leanresnet {' '.join(map(str, words))}: exit code {ran.returncode}\n{ran.stderr}"
        return json.loads(ran.stdout.splitlines()[0])


def check_file(path, network):
    """ONNX's own checks, and the extents that its shape inference finds."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    extents = lambda value: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    assert extents(inferred.graph.input[0]) == ["batch", *network.config["input"]]
    assert extents(inferred.graph.output[0]) == ["batch", network.config["classes"]]
    shaped = {value.name for value in inferred.graph.value_info} | {"logits"}
    unshaped = [name for node in inferred.graph.node for name in node.output if name not in shaped]
    assert not unshaped, f"no shapes of {unshaped}"
    return model


def run_onnxruntime(path, images, optimise):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    whole = session.run(["logits"], {"images": images})[0]
    # Any batch: a single image too.
    assert session.run(["logits"], {"images": images[:1]})[0].shape == (1, whole.shape[1])
    return whole


def distances(a, b):
    difference = np.abs(a.astype(np.float64) - b)
    return np.array([difference.max(), np.sqrt((difference**2).sum())])


def check_tensors(folder, network):
    """The state dict and the arrays have the tensors that went in, and counters of batches."""
    state, metadata = read_safetensors(folder / "state.safetensors")
    assert metadata == {"format": "pt"}, metadata
    norms = {name.removesuffix("running_mean") for name in network.tensors if name.endswith("running_mean")}
    counters = {f"{name}num_batches_tracked" for name in norms}
    assert set(state) == set(network.tensors) | counters
    with np.load(folder / "model.npz", allow_pickle=False) as archive:
        assert set(archive.files) == set(state)
        for name, array in state.items():
            other = archive[name]
            assert other.dtype == array.dtype and np.array_equal(other, array), name
            expected = np.int64(0) if name in counters else network.tensors[name]
            assert array.shape == np.shape(expected) and np.array_equal(array, expected), name


def compare(tool, label, table, network, images):
    """Exports and runs a network; returns whether all is within bounds, and a line about it."""
    folder = tool.folder
    (folder / "network.toml").write_text("version = 1\n[network]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in table.items()))
    (folder / "random.safetensors").write_bytes(safetensors(network.tensors))
    np.save(folder / "x.npy", images)
    tool("import", "random.safetensors", "--config", "network.toml", "-o", "model.safetensors")
    more = ["--safetensors", "state.safetensors", "--npz", "model.npz"]
    folded = tool("export", "model.safetensors", "--onnx", "folded.onnx", *more)
    assert [output["format"] for output in folded["outputs"]] == ["onnx", "safetensors", "npz"]
    tool("export", "model.safetensors", "--onnx", "kept.onnx", "--keep-norm")
    check_tensors(folder, network)
    kinds = {name: {node.op_type for node in check_file(folder / name, network).graph.node} for name in ("folded.onnx", "kept.onnx")}
    has_norms = any(name.endswith("running_mean") for name in network.tensors)
    assert "BatchNormalization" not in kinds["folded.onnx"] and ("BatchNormalization" in kinds["kept.onnx"]) == has_norms

    exact, naive = network.forward(images, np.float64), network.forward(images, np.float32)
    scale, naive_error = np.abs(exact).max(), distances(naive, exact)
    allowed = 2 * naive_error + 4 * UNIT * scale * np.array([1, np.sqrt(exact.size)])
    tool("predict", "model.safetensors", "--input", "x.npy", "--output", "y.npy")
    logits = {
        "onnxruntime folded": run_onnxruntime(folder / "folded.onnx", images, optimise=True),
        "onnxruntime kept": run_onnxruntime(folder / "kept.onnx", images, optimise=False),
        "leanresnet": np.load(folder / "y.npy"),
    }
    ratios = {name: (distances(values, exact) / allowed).max() for name, values in logits.items()}
    np.save(folder / "theirs.npy", logits["onnxruntime folded"])
    verified = tool("verify", "model.safetensors", "--input", "x.npy", "--against", "theirs.npy")
    # A wrong network must not pass: the same logits in the order of other images.
    np.save(folder / "wrong.npy", np.roll(logits["onnxruntime folded"], 1, axis=0))
    tool("verify", "model.safetensors", "--input", "x.npy", "--against", "wrong.npy", code=1)
    used = verified["max_relative"] / verified["tolerance"]
    shares = "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    line = f"{label:13} {scale:9.3g}  naive {naive_error[0] / scale:.1e}  of allowed: {shares}  verify {used:.3f}"
    return all(ratio <= 1 for ratio in ratios.values()) and verified["top1_agreement"] == 1, line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default="target/release/leanresnet", help="the program leanresnet")
    parser.add_argument("--networks", type=int, default=50, help="number of random networks")
    parser.add_argument("--seed", type=int, default=1, help="of the first random network; the next one has the next")
    parser.add_argument("--presets", default=",".join(PRESETS), help="comma-separated; may be empty")
    options = parser.parse_args()
    cases = [(name, PRESETS[name], 7) for name in options.presets.split(",") if name]
    for seed in range(options.seed, options.seed + options.networks):
        cases.append((f"random {seed}", choose_network(random.Random(seed)), seed))
    if options.networks >= 50:
        found = {pair for _, table, _ in cases if "input" in table for pair in pairs(table)}
        missing = [(key, value) for key, values in GRAMMAR.items() for value in values if (key, value) not in found]
        assert not missing, f"no random network has {missing}"
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        tool = Tool(options.tool, pathlib.Path(folder))
        for label, table, seed in cases:
            network = Network(table, seed)
            count = 2 if label == "imagenet" else 5
            images = np.random.default_rng(seed + 1000).standard_normal((count, *network.config["input"])).astype(np.float32)
            passed, line = compare(tool, label, table, network, images)
            print(line if passed else f"{line}  FAILED: {json.dumps(table)}", flush=True)
            failures += not passed
    print(f"{len(cases) - failures} of {len(cases)} networks agree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
