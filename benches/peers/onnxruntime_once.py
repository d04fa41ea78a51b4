"""Loads MODEL.onnx and runs it once on INPUT.npy with THREADS; prints the time, and the peak of the memory, as JSON.

It imports nothing but NumPy and ONNX Runtime, because all that a process imports counts in its memory.
"""

import json
import sys
import time

import numpy as np
import onnxruntime


def peak_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main():
    model, images, threads = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    x = np.load(images)
    imported = peak_mib()
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, {"input": x})
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "imported": imported, "peak": peak_mib()}))


if __name__ == "__main__":
    main()
