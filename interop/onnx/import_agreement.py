"""Networks that PyTorch exports to ONNX, imported and compared with ONNX Runtime.

    python -m venv venv && venv/bin/pip install -r interop/onnx/requirements-import.txt
    cargo build --release -p leanresnet-cli
    venv/bin/python interop/onnx/import_agreement.py --tool target/release/leanresnet --side 64

ResNet-18, -34 and -50 in the form of torchvision, and the preset `base` in PyTorch (`interop/pytorch`), with random weights and norms, are
written by both exporters of `torch.onnx.export`, with norms folded and kept. `leanresnet import` reads the file, `leanresnet predict` and
ONNX Runtime run the same images. The largest difference of either from a plain evaluation in float64 (`evaluate.py`), and between the
two, is compared with that of the plain evaluation in float32: leanresnet must be within twice that, from the exact values and from ONNX
Runtime. All lean convolutions of `base` have to come back as such.
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
import onnxruntime
import torch

from evaluate import evaluate
from resnets import RESNETS, ResNet, with_random_norms

sys.path.append(str(pathlib.Path(__file__).parents[1] / "pytorch"))
from leanresnet_torch import LeanResNet  # noqa: E402

# Name, whether the exporter is the one of torch.export, and whether norms are folded into convolutions.
EXPORTS = [("script, folded", False, True), ("script, norms kept", False, False), ("dynamo", True, True)]


def export(network, path, side, is_dynamo, is_folded):
    """Writes a network as ONNX, with a free number of images."""
    example = torch.zeros(2, 3, side, side)
    more = {"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}} if is_dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    if not is_dynamo:
        more |= {"do_constant_folding": is_folded, "opset_version": 17}
        more |= {"training": torch.onnx.TrainingMode.EVAL if is_folded else torch.onnx.TrainingMode.PRESERVE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), path, input_names=["x"], dynamo=is_dynamo, external_data=False, verbose=False, **more
        )


def run(tool, *words):
    """The answer of the tool."""
    ran = subprocess.run([tool, *words, "--json"], capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: {ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


def compare(tool, folder, name, network, side, images):
    """Rows of the table for one network; False if one of them is too far off."""
    x = np.random.default_rng(1).normal(size=(images, 3, side, side)).astype(np.float32)
    np.save(folder / "x.npy", x)
    is_well = True
    for how, is_dynamo, is_folded in EXPORTS:
        path = folder / "model.onnx"
        export(network, path, side, is_dynamo, is_folded)
        model = onnx.load(path)
        answer = run(tool, "import", path, "-o", folder / "model.safetensors")
        run(tool, "predict", folder / "model.safetensors", "--input", folder / "x.npy", "--output", folder / "y.npy")
        ours = np.load(folder / "y.npy").astype(np.float64)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        theirs = session.run(None, {session.get_inputs()[0].name: x})[0]
        exact = evaluate(model, x, np.float64)
        naive = np.abs(evaluate(model, x, np.float32) - exact).max()
        errors = {"ours": np.abs(ours - exact).max(), "ORT": np.abs(theirs - exact).max(), "between": np.abs(ours - theirs).max()}
        passed = max(errors["ours"], errors["between"]) <= 2 * naive and bool((ours.argmax(1) == exact.argmax(1)).all())
        layers = run(tool, "summary", folder / "model.safetensors")["layers"]
        lean = sum(layer["op"].startswith("lean") for layer in layers)
        if isinstance(network, LeanResNet):
            blocks = sum(len(stage) for stage in network.stages)
            passed = passed and lean == 2 * blocks and not any("groups" in layer["op"] for layer in layers)
        is_well = is_well and passed
        largest = np.abs(exact).max()
        print(
            f"{name:9} {how:18} opset {answer['opset']} {answer['nodes']:4} nodes {answer['layers']:4} layers {lean:3} lean"
            f"  logits to {largest:7.3f}  naive f32 {naive:.2e}  leanresnet {errors['ours']:.2e}  ORT {errors['ORT']:.2e}"
            f"  between {errors['between']:.2e}  {'ok' if passed else 'TOO FAR'}",
            flush=True,
        )
    return is_well


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True, help="the program leanresnet")
    parser.add_argument("--side", type=int, default=64, help="height and width of the images of ResNets")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--networks", default="resnet18,resnet34,resnet50,base")
    options = parser.parse_args()
    torch.manual_seed(1)
    is_well = True
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks.split(","):
            is_resnet = name in RESNETS
            network = with_random_norms(ResNet(name) if is_resnet else LeanResNet(name), 1)
            side = options.side if is_resnet else 32
            is_well = compare(options.tool, pathlib.Path(folder), name, network, side, options.images) and is_well
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
