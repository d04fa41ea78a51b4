//! Well-formed ONNX models for the fuzz target: few bytes, every operator.
#![forbid(unsafe_code)]

#[path = "../onnx/build.rs"]
#[allow(dead_code, reason = "the tests of ONNX need the rest")]
mod build;

use build::Attribute::{Float, Int, Ints, Tensor, Text};
use build::{Builder, floats};

pub(crate) fn onnx_models() -> Vec<Vec<u8>> {
    vec![residual(), lean(), shapes(), pools()]
}

fn small_values(count: usize) -> Vec<f32> {
    (0..count).map(|index| index as f32 / 8.0 - 0.5).collect()
}

impl Builder {
    fn weights(&mut self, dims: &[usize]) -> String {
        let values = small_values(dims.iter().product());
        self.floats(dims, &values)
    }

    fn norm(&mut self, x: &str, channels: usize) -> String {
        let parts: Vec<String> = (0..4).map(|_| self.floats(&[channels], &vec![1.0; channels])).collect();
        let inputs: Vec<&str> = std::iter::once(x).chain(parts.iter().map(String::as_str)).collect();
        self.node("BatchNormalization", &inputs, &[("epsilon", Float(1e-3))])
    }
}

/// Convolutions of several forms, norms, a shortcut, a linear layer.
fn residual() -> Vec<u8> {
    let mut builder = Builder::new(&[1, 6, 6]);
    let (stem, inner, shortcut) =
        (builder.weights(&[2, 1, 3, 3]), builder.weights(&[2, 1, 3, 3]), builder.weights(&[2, 2, 1, 1]));
    let x = builder.node("Conv", &["x", &stem], &[("auto_pad", Text("SAME_UPPER")), ("strides", Ints(vec![2, 2]))]);
    let x = builder.norm(&x, 2);
    let x = builder.node("Relu", &[&x], &[]);
    let attributes = [("pads", Ints(vec![1; 4])), ("group", Int(2)), ("dilations", Ints(vec![1, 1]))];
    let y = builder.node("Conv", &[&x, &inner], &attributes);
    let y = builder.norm(&y, 2);
    let z = builder.node("Conv", &[&x, &shortcut], &[("kernel_shape", Ints(vec![1, 1]))]);
    let x = builder.node("Add", &[&y, &z], &[]);
    let x = builder.node("Relu", &[&x], &[]);
    let x = builder.node("GlobalAveragePool", &[&x], &[]);
    let x = builder.node("Flatten", &[&x], &[("axis", Int(1))]);
    let (matrix, bias) = (builder.weights(&[3, 2]), builder.weights(&[3]));
    builder.node("Gemm", &[&x, &matrix, &bias], &[("transB", Int(1)), ("alpha", Float(0.5)), ("beta", Float(2.0))]);
    builder.bytes()
}

/// Stencils and matrices, summed.
fn lean() -> Vec<u8> {
    let mut builder = Builder::new(&[2, 4, 4]);
    let mut x = "x".to_owned();
    for side in [3, 5] {
        let (spatial, pointwise) = (builder.weights(&[2, 1, side, side]), builder.weights(&[2, 2, 1, 1]));
        let pads = vec![(side / 2) as i64; 4];
        let y = builder.node("Conv", &[&x, &spatial], &[("group", Int(2)), ("pads", Ints(pads))]);
        let z = builder.node("Conv", &[&x, &pointwise], &[]);
        let bias = builder.weights(&[1, 2, 1, 1]);
        let y = builder.node("Add", &[&y, &bias], &[]);
        x = builder.node("Sum", &[&y, &z, &x], &[]);
    }
    builder.node("GlobalAveragePool", &[&x], &[]);
    builder.bytes()
}

/// Everything about shapes, and constants.
fn shapes() -> Vec<u8> {
    let mut builder = Builder::new(&[2, 2, 2]);
    let value = floats("", &[2, 2], &small_values(4));
    let matrix = builder.node("Constant", &[], &[("value", Tensor(value))]);
    let matrix = builder.node("Transpose", &[&matrix], &[("perm", Ints(vec![1, 0]))]);
    let axes = builder.integers(&[2, 3]);
    let matrix = builder.node("Unsqueeze", &[&matrix, &axes], &[]);
    let x = builder.node("Conv", &["x", &matrix], &[]);
    let x = builder.node("ReduceMean", &[&x, &axes], &[("keepdims", Int(1))]);
    let x = builder.node("Squeeze", &[&x, &axes], &[]);
    let x = builder.node("Cast", &[&x], &[("to", Int(1))]);
    let shape = builder.integers(&[0, -1]);
    let x = builder.node("Reshape", &[&x, &shape], &[]);
    let x = builder.node("Dropout", &[&x], &[]);
    let (matrix, scale) = (builder.weights(&[2, 3]), builder.weights(&[3]));
    let x = builder.node("MatMul", &[&x, &matrix], &[]);
    let x = builder.node("Mul", &[&x, &scale], &[]);
    let x = builder.node("Sub", &[&x, &scale], &[]);
    let x = builder.node("Div", &[&x, &scale], &[]);
    builder.node("Identity", &[&x], &[]);
    builder.bytes()
}

/// Pools and padding.
fn pools() -> Vec<u8> {
    let mut builder = Builder::new(&[2, 7, 7]);
    let pads = builder.integers(&[0, 0, 1, 1, 0, 0, 1, 1]);
    let x = builder.node("Relu", &["x"], &[]);
    let x = builder.node("Pad", &[&x, &pads], &[("mode", Text("constant"))]);
    let window = |stride: i64| [("kernel_shape", Ints(vec![3, 3])), ("strides", Ints(vec![stride; 2])), ("ceil_mode", Int(1))];
    let x = builder.node("MaxPool", &[&x], &window(2));
    let x = builder.node("Pad", &[&x, &pads], &[]);
    let x = builder.node("AveragePool", &[&x], &window(1));
    builder.node("Flatten", &[&x], &[]);
    builder.bytes()
}
