"""Times of an imported ResNet beside ONNX Runtime on the same file, in turns: medians and minima over rounds, milliseconds per image.

    venv/bin/python interop/onnx/import_speed.py --tool target/release/leanresnet --network resnet18 --side 224
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime

from import_agreement import export
from resnets import RESNETS, ResNet, with_random_norms


def ours(tool, model, batch, threads, seconds):
    """Milliseconds per image of the tool's own measurement."""
    words = ["bench", "net", model, "--batch", batch, "--seconds", seconds, "--rounds", 1, "--threads", threads, "--json"]
    ran = subprocess.run([tool, *map(str, words)], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])["ms_per_image"]


def theirs(session, x, seconds):
    """The same of ONNX Runtime: the median of its runs, after one that does not count."""
    session.run(None, {"x": x})
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"x": x})
        times.append(1e3 * (time.perf_counter() - start) / len(x))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True, help="the program leanresnet")
    parser.add_argument("--network", choices=list(RESNETS), default="resnet18")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each engine in each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, model = pathlib.Path(folder) / "model.onnx", pathlib.Path(folder) / "model.safetensors"
        export(with_random_norms(ResNet(options.network), 1), path, options.side, False, True)
        subprocess.run([options.tool, "import", path, "-o", model], check=True, capture_output=True)
        for threads in map(int, options.threads.split(",")):
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
            session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
            for batch in map(int, options.batch.split(",")):
                x = np.random.default_rng(1).normal(size=(batch, 3, options.side, options.side)).astype(np.float32)
                times = [
                    (ours(options.tool, model, batch, threads, options.seconds), theirs(session, x, options.seconds))
                    for _ in range(options.rounds)
                ]
                text = []
                for name, values in zip(("leanresnet", "ONNX Runtime"), zip(*times)):
                    text.append(f"{name} {statistics.median(values):7.2f} (least {min(values):7.2f})")
                ratio = statistics.median(theirs / ours for ours, theirs in times)
                print(f"{options.network} {options.side}x{options.side}, batch {batch}, {threads} threads:", ", ".join(text), end="")
                print(f" ms per image; ONNX Runtime takes {ratio:.2f} times as long", flush=True)


if __name__ == "__main__":
    main()
