"""ONNX graphs in NumPy, in any precision: convolutions and matrix products add one product after another, in the plain order of loops over
input channels and taps. In float64 this is what engines are compared with, in float32 the error that a plain program makes."""

import numpy as np
import onnx
from onnx import numpy_helper


def evaluate(model, x, dtype):
    """The output of an ONNX model for a batch of inputs."""
    values = {tensor.name: _in(dtype, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    [source] = [value.name for value in model.graph.input if value.name not in values]
    values[source] = x.astype(dtype)
    for node in model.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        inputs = [values[name] if name else None for name in node.input]
        values[node.output[0]] = _in(dtype, OPERATORS[node.op_type](*inputs, **attributes))
    return values[model.graph.output[0].name]


def _in(dtype, array):
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array


def _patches(x, taps, strides, dilations, pads, fill=0.0):
    """For every tap of a window: the pixels under it, and the extents of the output."""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    rows = (x.shape[2] - (taps[0] - 1) * dilations[0] - 1) // strides[0] + 1
    columns = (x.shape[3] - (taps[1] - 1) * dilations[1] - 1) // strides[1] + 1

    def patch(i, j):
        row, column = i * dilations[0], j * dilations[1]
        bottom, right = row + (rows - 1) * strides[0] + 1, column + (columns - 1) * strides[1] + 1
        return x[:, :, row : bottom : strides[0], column : right : strides[1]]

    return patch, (rows, columns)


def _conv(x, w, b=None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1, kernel_shape=None, auto_pad=b"NOTSET"):
    assert auto_pad == b"NOTSET"
    outputs, members, height, width = w.shape
    patch, size = _patches(x, (height, width), strides, dilations, pads)
    total = np.zeros((x.shape[0], outputs, *size), x.dtype)
    if b is not None:
        total += b[None, :, None, None]
    per_group = outputs // group
    channels = np.arange(outputs) // per_group * members
    for member in range(members):
        for i in range(height):
            for j in range(width):
                # Groups of one output each read as many channels as there are outputs; a single group reads one.
                seen = patch(i, j)
                seen = seen[:, channels + member] if group > 1 else seen[:, member : member + 1]
                total += w[None, :, member, i, j, None, None] * seen
    return total


def _batchnormalization(x, scale, bias, mean, variance, epsilon=1e-5, momentum=0.9, training_mode=0):
    assert training_mode == 0
    shape = (1, -1) + (1,) * (x.ndim - 2)
    factor = scale / np.sqrt(variance + x.dtype.type(epsilon))
    return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape)


def _cast(x, to):
    return x.astype(onnx.helper.tensor_dtype_to_np_dtype(to))


def _relu(x):
    return np.maximum(x, 0)


def _add(a, b):
    return a + b


def _mul(a, b):
    return a * b


def _maxpool(x, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), ceil_mode=0, **_):
    assert ceil_mode == 0
    patch, _ = _patches(x, kernel_shape, strides, dilations, pads, -np.inf)
    return np.max([patch(i, j) for i in range(kernel_shape[0]) for j in range(kernel_shape[1])], axis=0)


def _averagepool(x, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), **attributes):
    assert tuple(pads) == (0, 0, 0, 0) and not attributes.get("ceil_mode", 0)
    patch, _ = _patches(x, kernel_shape, strides, (1, 1), pads)
    taps = [patch(i, j) for i in range(kernel_shape[0]) for j in range(kernel_shape[1])]
    return sum(taps[1:], taps[0]) / x.dtype.type(len(taps))


def _globalaveragepool(x):
    return x.mean((2, 3), keepdims=True)


def _reducemean(x, axes=None, keepdims=1, **_):
    return x.mean(tuple(axes), keepdims=bool(keepdims))


def _flatten(x, axis=1):
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _reshape(x, shape, allowzero=0):
    return x.reshape([x.shape[axis] if extent == 0 and not allowzero else extent for axis, extent in enumerate(shape)])


def _gemm(a, b, c=None, alpha=1.0, beta=1.0, transA=0, transB=0):
    assert transA == 0
    b = b.T if transB else b
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for inner in range(a.shape[1]):
        total += a[:, inner : inner + 1] * b[inner : inner + 1]
    total *= a.dtype.type(alpha)
    return total if c is None else total + a.dtype.type(beta) * c


def _matmul(a, b):
    return _gemm(a, b)


def _identity(x):
    return x


def _constant(value):
    return numpy_helper.to_array(value)


OPERATORS = {
    "Add": _add,
    "AveragePool": _averagepool,
    "BatchNormalization": _batchnormalization,
    "Cast": _cast,
    "Constant": _constant,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _globalaveragepool,
    "Identity": _identity,
    "MatMul": _matmul,
    "MaxPool": _maxpool,
    "Mul": _mul,
    "ReduceMean": _reducemean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Where": np.where,
}
