"""The engines that Python can load. Run as a program, measures one of them once, in a process of its own."""

import argparse
import json
from pathlib import Path

import numpy as np

import networks
import quiet


class OnnxRuntime:
    """All graph optimisations, among them the blocked layout NCHWc; the default thread pool, which spins between operators."""

    def __init__(self, folder, preset, x, threads, dtype):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        path = networks.onnx_path(folder, preset, len(x))
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {"input": x}
        self.images = len(x)

    def outputs(self):
        return self.session.run(None, self.inputs)[0]

    def repeat(self, times):
        for _ in range(times):
            self.session.run(None, self.inputs)


class OpenVino:
    """Latency mode: one request that all threads work on. Without a hint it would choose between f32 and bf16 itself."""

    hint = "LATENCY"

    def __init__(self, folder, preset, x, threads, dtype):
        import openvino

        properties = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": dtype, "PERFORMANCE_HINT": self.hint}
        path = networks.onnx_path(folder, preset, len(x))
        self.model = openvino.Core().compile_model(path, "CPU", properties)
        self.request = self.model.create_infer_request()
        self.request.set_input_tensor(openvino.Tensor(x))
        self.images = len(x)

    def outputs(self):
        self.request.infer()
        return self.request.get_output_tensor().data

    def repeat(self, times):
        for _ in range(times):
            self.request.infer()


class OpenVinoThroughput(OpenVino):
    """Throughput mode: as many requests at once as OpenVINO asks for, each with a whole batch."""

    hint = "THROUGHPUT"

    def __init__(self, folder, preset, x, threads, dtype):
        import openvino

        super().__init__(folder, preset, x, threads, dtype)
        self.requests = self.model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self.queue = openvino.AsyncInferQueue(self.model, self.requests)
        for request in self.queue:
            request.set_input_tensor(openvino.Tensor(x.copy()))
        self.images = len(x) * self.requests

    def repeat(self, times):
        for _ in range(times * self.requests):
            self.queue.start_async()
        self.queue.wait_all()


class TorchOperators(networks.Operators):
    """PyTorch's eager operators, in place where a user would write so."""

    def __init__(self, torch):
        self.functional = torch.nn.functional

    def conv(self, x, weight, bias, stride=1, groups=1):
        return self.functional.conv2d(x, weight, bias, stride, (weight.shape[-1] - 1) // 2, groups=groups)

    def add(self, x, y):
        return x + y

    def relu(self, x):
        return x.relu_()

    def pool(self, x):
        return self.functional.avg_pool2d(x, 2)

    def head(self, x, weight, bias):
        return self.functional.linear(x.mean((2, 3)), weight, bias)


class Torch:
    """Eager inference mode, norms folded, the layout NCHW."""

    layout = "contiguous_format"

    def __init__(self, folder, preset, x, threads, dtype):
        import torch
        from safetensors.numpy import load_file

        torch.set_num_threads(threads)
        layout = getattr(torch, self.layout)

        def tensor(array):
            value = torch.from_numpy(array)
            return value.contiguous(memory_format=layout) if array.ndim == 4 else value

        folded = networks.fold(load_file(networks.weights_path(folder, preset)), np.float32)
        weights = {name: tensor(value) for name, value in folded.items()}
        operators, images = TorchOperators(torch), tensor(x)
        self.run = torch.inference_mode()(lambda: networks.forward(networks.PRESETS[preset], weights, operators, images))
        self.images = len(x)

    def outputs(self):
        return self.run().numpy()

    def repeat(self, times):
        for _ in range(times):
            self.run()


class TorchChannelsLast(Torch):
    """The same in the layout NHWC."""

    layout = "channels_last"


# By name: the class, and the package it needs.
ENGINES = {
    "ort": (OnnxRuntime, "onnxruntime"),
    "openvino": (OpenVino, "openvino"),
    "openvino-throughput": (OpenVinoThroughput, "openvino"),
    "torch": (Torch, "torch"),
    "torch-channels-last": (TorchChannelsLast, "torch"),
}
# Those that compute in bf16 too.
BF16_ENGINES = ("openvino", "openvino-throughput")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--models", type=Path, required=True, help="the folder that networks.write filled")
    parser.add_argument("--preset", choices=networks.PRESETS, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--tries", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="where the outputs go, .npy")
    parser.add_argument("--dtype", required=True)
    options = parser.parse_args()
    x = np.load(networks.input_path(options.models, options.preset, options.batch))
    engine = ENGINES[options.engine][0](options.models, options.preset, x, options.threads, options.dtype)
    np.save(options.output, engine.outputs())

    def measure():
        return {"ms_per_image": 1e3 * quiet.seconds_per_repeat(engine.repeat, options.seconds) / engine.images}

    print(json.dumps(quiet.measured(measure, options.tries)))


if __name__ == "__main__":
    main()
