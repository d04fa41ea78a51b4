"""Cases beyond ONNX's own tests: combinations of attributes of convolutions, pools and means, and the forms that operators had in older
versions; what ONNX Runtime computes is expected."""

import itertools

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 20


class Cases:
    """Builds models around one node."""

    def __init__(self):
        self.random = np.random.default_rng(1)

    def values(self, *shape):
        return self.random.normal(size=shape).astype(np.float32)

    def case(self, name, operator, x, constants=(), opset=OPSET, has_pixels=True, then=None, **attributes):
        """Name, model, batch and expected output of a node of `x` and constants, and perhaps another operator `then`."""
        names = [f"c{index}" for index in range(len(constants))]
        nodes = [helper.make_node(operator, ["x", *names], ["y"], **attributes)]
        if then is not None:
            nodes = [helper.make_node(operator, ["x", *names], ["first"], **attributes), helper.make_node(then, ["first"], ["y"])]
        if has_pixels:
            nodes.append(helper.make_node("Flatten", ["y"], ["flat"]))
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *x.shape[1:]])],
            [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for value, name in zip(constants, names)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return name, model, x, session.run(None, {"x": x})[0]


def more_cases():
    cases = Cases()
    yield from convolutions(cases)
    yield from pools(cases)
    yield from shapes(cases)
    yield from older(cases)


def text(attributes):
    return "_".join(f"{name}={value}" for name, value in attributes.items()).replace(" ", "")


def convolutions(cases):
    x = cases.values(2, 4, 9, 8)
    paddings = [{"pads": [0, 0, 0, 0]}, {"pads": [1, 2, 0, 1]}]
    paddings += [{"auto_pad": auto} for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")]
    for padding, stride, dilation, group, bias in itertools.product(paddings, (1, 2, 3), (1, 2), (1, 2, 4), (False, True)):
        # ONNX Runtime has no automatic padding with dilation.
        if dilation > 1 and "auto_pad" in padding:
            continue
        weight = cases.values(8, 4 // group, 3, 3)
        attributes = {**padding, "strides": [stride] * 2, "dilations": [dilation] * 2, "group": group, "kernel_shape": [3, 3]}
        constants = [weight, cases.values(8)] if bias else [weight]
        yield cases.case(f"conv_{text(attributes)}_bias={bias}".replace("_kernel_shape=[3,3]", ""), "Conv", x, constants, **attributes)
    for rows, columns in ((1, 1), (1, 3), (5, 1), (2, 2), (4, 5), (7, 7)):
        attributes = {"pads": [rows // 2, columns // 2] * 2}
        yield cases.case(f"conv_kernel={rows}x{columns}", "Conv", x, [cases.values(4, 4, rows, columns)], **attributes)
    yield cases.case("conv_kernel=11x11", "Conv", cases.values(2, 1, 12, 12), [cases.values(1, 1, 11, 11)])
    yield cases.case("conv_strides=[1,2]", "Conv", x, [cases.values(4, 4, 3, 3)], strides=[1, 2])
    yield cases.case("conv_strides=[1,2]_one_column", "Conv", cases.values(2, 4, 9, 3), [cases.values(4, 4, 3, 3)], strides=[1, 2])
    yield cases.case("conv_dilations=[1,2]", "Conv", x, [cases.values(4, 4, 3, 3)], dilations=[1, 2])
    for alpha, beta, is_transposed, shape in itertools.product((1.0, 0.5), (1.0, 2.0), (0, 1), ((), (1,), (5,), (1, 5))):
        matrix = cases.values(5, 4) if is_transposed else cases.values(4, 5)
        attributes = {"alpha": alpha, "beta": beta, "transB": is_transposed}
        name = f"gemm_{text(attributes)}_bias={list(shape)}".replace(" ", "")
        bias = np.float32(cases.values(*shape)) if shape else np.array(0.7, np.float32)
        yield cases.case(name, "Gemm", cases.values(3, 4), [matrix, bias], has_pixels=False, **attributes)


def pools(cases):
    x = cases.values(2, 3, 8, 7)
    paddings = [{"pads": [0, 0, 0, 0]}, {"pads": [1, 0, 1, 2]}]
    paddings += [{"auto_pad": auto} for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")]
    for padding, stride, kernel, ceil in itertools.product(paddings, (1, 2, 3), ([3, 3], [2, 3]), (0, 1)):
        attributes = {**padding, "strides": [stride] * 2, "kernel_shape": kernel, "ceil_mode": ceil}
        # Both at once are not defined for automatic padding; a pad as large as the kernel is no pool.
        if ceil and "auto_pad" in padding or padding.get("pads", [0])[-1] >= kernel[1]:
            continue
        yield cases.case(f"maxpool_{text(attributes)}", "MaxPool", x, **attributes)
        for counts in (0, 1):
            both = {**attributes, "count_include_pad": counts}
            yield cases.case(f"averagepool_{text(both)}", "AveragePool", x, **both)
    yield cases.case("averagepool_global", "AveragePool", x, kernel_shape=[8, 7])
    yield cases.case("maxpool_strides=[1,2]", "MaxPool", x, kernel_shape=[2, 2], strides=[1, 2])
    yield cases.case("maxpool_dilations=[2,2]", "MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2])
    for axes, keeps, is_input in itertools.product(([2, 3], [3, 2], [-2, -1], [-1, 2]), (0, 1), (False, True)):
        given = {} if is_input else {"axes": axes}
        constants = [np.array(axes, np.int64)] if is_input else []
        name = f"reducemean_axes={axes}_keepdims={keeps}_{'input' if is_input else 'attribute'}".replace(" ", "")
        opset = OPSET if is_input else 13
        yield cases.case(name, "ReduceMean", x, constants, opset=opset, has_pixels=keeps == 1, keepdims=keeps, **given)
    for axes in ([1], [3], [1, 2, 3]):
        name = f"reducemean_axes={axes}".replace(" ", "")
        yield cases.case(name, "ReduceMean", x, [np.array(axes, np.int64)], keepdims=1)
    yield cases.case("reducemean_noop", "ReduceMean", x, [np.array([], np.int64)], noop_with_empty_axes=1)


def shapes(cases):
    x = cases.values(2, 3, 4, 5)
    for shape in ([0, -1], [-1, 60], [0, 60], [0, 3, 4, 5], [-1, 3, 4, 5], [0, 60, 1, 1], [0, 0, 0, 0], [0, 0, -1, 5], [0, 12, 5, 1]):
        name = f"reshape_{shape}".replace(" ", "")
        yield cases.case(name, "Reshape", x, [np.array(shape, np.int64)], has_pixels=len(shape) > 2)
    yield cases.case("reshape_allowzero=1", "Reshape", x, [np.array([-1, 60], np.int64)], has_pixels=False, allowzero=1)
    for axes in ([2, 3], [-1, -2]):
        constants = [np.array(axes, np.int64)]
        # A network of no operators at all is none: a ReLU comes after these.
        x = cases.values(2, 3, 1, 1)
        yield cases.case(f"squeeze_{axes}".replace(" ", ""), "Squeeze", x, constants, has_pixels=False, then="Relu")
        yield cases.case(f"unsqueeze_{axes}".replace(" ", ""), "Unsqueeze", cases.values(2, 3), constants, then="Relu")
    x = cases.values(2, 3, 4, 5)
    pads = [[0, 0, 1, 2, 0, 0, 0, 3], [0, 0, 0, 0, 0, 0, 0, 1]]
    for given in pads:
        yield cases.case(f"pad_{given}".replace(" ", ""), "Pad", x, [np.array(given, np.int64)])
    yield cases.case("pad_axes", "Pad", x, [np.array([1, 2, 3, 0], np.int64), np.array(0, np.float32), np.array([-1, 2], np.int64)])
    yield cases.case("pad_negative", "Pad", x, [np.array([0, 0, -1, 0, 0, 0, 0, 0], np.int64)])
    yield cases.case("pad_channels", "Pad", x, [np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64)])
    for operator, shape in itertools.product(("Add", "Sub", "Mul", "Div"), ((3, 1, 1), (1, 3, 1, 1), (1,), (1, 1, 1, 1), (1, 1))):
        constant = 1 + np.abs(cases.values(*shape))
        yield cases.case(f"{operator.lower()}_constant={list(shape)}".replace(" ", ""), operator, x, [constant])
    yield cases.case("add_constant_per_pixel", "Add", x, [cases.values(4, 5)])
    yield cases.case("matmul", "MatMul", cases.values(2, 3), [cases.values(3, 4)], has_pixels=False)


def older(cases):
    x = cases.values(2, 3, 4, 5)
    statistics = [cases.values(3), cases.values(3), cases.values(3), 1 + np.abs(cases.values(3))]
    for opset in (7, 9, 14, 15):
        for epsilon in (1e-5, 0.1):
            name = f"batchnormalization_opset={opset}_epsilon={epsilon}"
            yield cases.case(name, "BatchNormalization", x, statistics, opset=opset, epsilon=epsilon, momentum=0.8)
    yield cases.case("batchnormalization_vectors", "BatchNormalization", cases.values(2, 3), statistics, has_pixels=False)
    yield cases.case("pad_opset=7", "Pad", x, opset=7, pads=[0, 0, 1, 0, 0, 0, 2, 1], mode="constant", value=0.0)
    yield cases.case("squeeze_opset=7", "Squeeze", cases.values(2, 3, 1, 1), opset=7, has_pixels=False, then="Relu", axes=[2, 3])
    yield cases.case("unsqueeze_opset=7", "Unsqueeze", cases.values(2, 3), opset=7, then="Relu", axes=[2, 3])
    yield cases.case("dropout_opset=7", "Dropout", x, opset=7, ratio=0.5)
    yield cases.case("flatten_opset=7", "Flatten", x, opset=7, has_pixels=False)
    yield cases.case("gemm_opset=7", "Gemm", cases.values(2, 3), [cases.values(3, 4), cases.values(4)], opset=7, has_pixels=False)
    yield cases.case("maxpool_opset=7", "MaxPool", x, opset=7, kernel_shape=[2, 2])
    yield cases.case("averagepool_opset=7", "AveragePool", x, opset=7, kernel_shape=[2, 2], count_include_pad=1, pads=[1, 1, 0, 0])
    yield cases.case("conv_opset=7", "Conv", x, [cases.values(4, 3, 3, 3)], opset=7)
    yield cases.case("dropout_inference", "Dropout", x, [np.array(0.5, np.float32), np.array(False)])
    yield cases.case("relu", "Relu", x)
    yield cases.case("globalaveragepool", "GlobalAveragePool", x)
