"""ONNX's own tests of operators (`onnx.backend.test`, kind `node`), run through `leanresnet import` and `leanresnet predict`.

    python -m venv venv && venv/bin/pip install -r interop/onnx/requirements.txt
    cargo build --release -p leanresnet-cli
    venv/bin/python interop/onnx/node_tests.py --tool target/release/leanresnet

A test is one node with arrays for its inputs and outputs. What is imported is a network from a batch of images to one vector per image, so
every test is tried in the forms that fit its operator:

    image     the first input is the batch, all others become initialisers; a Flatten follows where the output has more than 2 axes
    values    for operators that take every value by itself: the same values as one vector (or one row of pixels)
    trailing  for Reshape: an axis of 1 after the last one, where there are 3
    folded    all inputs become initialisers, so that the importer has to compute the node; its output is added to a vector of zeros

A test passes if some form is imported and every form that is imported gives the expected values. The others are left out with the reason that
the importer gives. The suite has few combinations of attributes, so that further cases (`more_cases.py`) are compared with ONNX Runtime.
The names of all that pass are in `node_tests.txt`: a test that passes no longer is an error, even if it is refused for a good reason
(`--bless` writes the file anew).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from more_cases import more_cases

OPERATORS = set(
    "Add AveragePool BatchNormalization Cast Constant Conv Div Dropout Flatten Gemm GlobalAveragePool Identity MatMul MaxPool Mul Pad "
    "ReduceMean Relu Reshape Squeeze Sub Sum Transpose Unsqueeze".split()
)
BY_VALUE = {"Add", "Cast", "Div", "Dropout", "Identity", "Mul", "Relu", "Sub", "Sum"}
FOLDED = {"Add", "Cast", "Constant", "Div", "Flatten", "Identity", "Mul", "Reshape", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
LISTED = pathlib.Path(__file__).with_name("node_tests.txt")


class Tool:
    """The program, and a folder for its files."""

    def __init__(self, path, folder):
        self.path, self.folder = path, pathlib.Path(folder)

    def run(self, *words):
        ran = subprocess.run([self.path, *words, "--json"], capture_output=True, text=True)
        answer = json.loads(ran.stdout.splitlines()[-1])
        if ran.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(map(str, words))}: exit code {ran.returncode}: {ran.stderr}")
        return answer

    def outputs(self, model, x):
        """The outputs for a batch, or the reason why the model is refused."""
        file = self.folder / "model.onnx"
        file.write_bytes(model.SerializeToString())
        imported = self.run("import", file, "-o", self.folder / "model.safetensors")
        if "error" in imported:
            return None, reason(imported["error"]["message"])
        _, channels, height, width = [*x.shape, 1, 1][:4]
        np.save(self.folder / "x.npy", x.reshape(-1, channels, height, width))
        model_words = [self.folder / "model.safetensors", "--input", self.folder / "x.npy", "--output", self.folder / "y.npy"]
        predicted = self.run("predict", *model_words)
        if "error" in predicted:
            raise SystemExit(predicted["error"]["message"])
        return np.load(self.folder / "y.npy"), None


def reason(message):
    """Why a model is refused: without the name of the file and the head of the list of nodes."""
    return message.split(".onnx: ", 1)[1].split("these:\n", 1)[-1].strip().splitlines()[0]


def arrays(values):
    return [numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value) for value in values]


def model_of(test, nodes, x_name, x_shape, constants, output):
    """A model around nodes with one input."""
    graph = helper.make_graph(
        nodes,
        test.name,
        [helper.make_tensor_value_info(x_name, TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    return helper.make_model(graph, opset_imports=test.model.opset_import, ir_version=test.model.ir_version)


def forms(test, inputs, expected):
    """Pairs of the form's name and (model, batch)."""
    [node] = test.model.graph.node
    names = [name for name in node.input if name]
    named = list(zip(names, inputs))
    constants = [(name, value) for name, value in named[1:] if name != names[0]] if named else []
    flatten = helper.make_node("Flatten", [node.output[0]], ["flat"])

    def image(x, constants, axes):
        has_pixels = axes > 2
        nodes = [node, flatten] if has_pixels else [node]
        return model_of(test, nodes, names[0], x.shape, constants, "flat" if has_pixels else node.output[0]), x

    if named and inputs[0].dtype == np.float32:
        x = inputs[0]
        yield "image", image(x, constants, expected.ndim)
        if node.op_type in BY_VALUE and len(set(names)) == len(names):
            if node.op_type in ("Add", "Div", "Mul", "Sub", "Sum") and len(names) > 1:
                shape = np.broadcast_shapes(*(value.shape for value in inputs))
                flat = [np.broadcast_to(value, shape).reshape(1, -1) for value in inputs]
                yield "values", image(flat[0], list(zip(names[1:], flat[1:])), 2)
            else:
                yield "values", image(x.reshape(1, 1, 1, -1), constants, 4)
        if node.op_type == "Reshape" and x.ndim == 3:
            yield "trailing", image(x[..., None], constants, expected.ndim)
    if node.op_type in FOLDED and all(value.dtype in (np.float32, np.int64) for value in inputs) and expected.dtype == np.float32:
        count = expected.size
        # Names that no test has.
        vector = [
            helper.make_node("Reshape", [node.output[0], "own_shape"], ["own_vector"]),
            helper.make_node("Add", ["own_zeros", "own_vector"], ["own_sum"]),
        ]
        zeros = np.zeros((1, count), np.float32)
        constants = [*dict(named).items(), ("own_shape", np.array([1, -1], np.int64))]
        yield "folded", (model_of(test, [node, *vector], "own_zeros", zeros.shape, constants, "own_sum"), zeros)


def agrees(got, expected, relative, absolute):
    """Whether outputs are the expected ones within tolerances, or within a rounding of values of 16 bits."""
    if expected.dtype not in (np.float32, np.float64):
        relative = 2.0**-8
    expected = expected.astype(np.float64).reshape(got.shape)
    return np.allclose(got, expected, rtol=relative, atol=absolute, equal_nan=True)


def run_test(tool, test):
    """("passed", forms), ("left out", reason) or ("WRONG", form)."""
    passed, reasons = [], []
    for given, wanted in test.data_sets:
        if any(isinstance(value, list) or value is None for value in given):
            return "left out", "sequences and optional values"
        inputs, expected = arrays(given), arrays(wanted)[0]
        for form, (model, x) in forms(test, inputs, expected):
            if x.size == 0 or expected.size == 0:
                reasons.append(f"{form}: an array without values")
                continue
            got, why = tool.outputs(model, x)
            if why is not None:
                reasons.append(f"{form}: {why}")
            elif got.size != expected.size or not agrees(got, expected, test.rtol, test.atol):
                return "WRONG", form
            else:
                passed.append(form)
        if not passed and not reasons:
            reasons.append(f"input of type {inputs[0].dtype}, not float32" if inputs else "no input")
    return ("passed", ", ".join(dict.fromkeys(passed))) if passed else ("left out", "; ".join(reasons))


def suite():
    """The tests of the operators that are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    for test in tests:
        nodes = test.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in OPERATORS and not nodes[0].domain:
            yield test


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True, help="the program leanresnet")
    parser.add_argument("--bless", action="store_true", help="write node_tests.txt")
    options = parser.parse_args()
    outcomes, passed = {"passed": 0, "left out": 0, "WRONG": 0}, []
    with tempfile.TemporaryDirectory() as folder:
        tool = Tool(options.tool, folder)
        for test in suite():
            outcome, how = run_test(tool, test)
            outcomes[outcome] += 1
            passed += [test.name] if outcome == "passed" else []
            print(f"{outcome:8}  {test.name}: {how}")
        for name, model, x, expected in more_cases():
            got, why = tool.outputs(model, x)
            # Sums of at most some hundred products: 32 roundings of the largest output.
            is_right = why is None and agrees(got, expected, 0, 32 * 2.0**-24 * np.abs(expected).max())
            outcome = "left out" if why else "passed" if is_right else "WRONG"
            outcomes[outcome] += 1
            passed += [name] if outcome == "passed" else []
            print(f"{outcome:8}  {name}: {why or 'image'}")
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    if options.bless:
        LISTED.write_text("".join(f"{name}\n" for name in passed))
    listed = LISTED.read_text().split()
    changed = sorted(set(listed) ^ set(passed))
    for name in changed:
        print(f"{name} is {'' if name in passed else 'not '}among those that pass, contrary to {LISTED.name}")
    sys.exit(1 if outcomes["WRONG"] or changed else 0)


if __name__ == "__main__":
    main()
