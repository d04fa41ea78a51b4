//! The forms that operators have: attributes and inputs that mean the same, older versions, what folds into what.
#![forbid(unsafe_code)]

use leanresnet::net::Operation;

use crate::build::Attribute::{Int, Ints, Tensor, Text};
use crate::build::{Attribute, Builder, floats};
use crate::data::uniform;
use crate::{check, layers};

/// A model of one operator on images of 4 channels with a linear layer after it.
fn with_head(what: &str, build: impl Fn(&mut Builder) -> (String, usize)) -> leanresnet::Model {
    let mut builder = Builder::new(&[4, 7, 6]);
    let (vector, inputs) = build(&mut builder);
    let matrix = builder.floats(&[3, inputs], &uniform(9, 3 * inputs));
    builder.node("Gemm", &[&vector, &matrix], &[("transB", Int(1))]);
    check(&builder, what)
}

#[test]
fn means_over_height_and_width() {
    let axes = |axes: &[i64]| Ints(axes.to_vec());
    for keeps_axes in [0, 1] {
        for list in [[2, 3], [3, 2], [-1, -2], [-2, 3]] {
            for is_input in [false, true] {
                let model = with_head(&format!("{list:?}, input {is_input}, keepdims {keeps_axes}"), |builder| {
                    let mean = if is_input {
                        let given = builder.integers(&list);
                        builder.node("ReduceMean", &["x", &given], &[("keepdims", Int(keeps_axes))])
                    } else {
                        builder.node("ReduceMean", &["x"], &[("keepdims", Int(keeps_axes)), ("axes", axes(&list))])
                    };
                    let vector = if keeps_axes == 1 { builder.node("Flatten", &[&mean], &[]) } else { mean };
                    (vector, 4)
                });
                assert_eq!(layers(&model, "global average pool"), 1);
            }
        }
    }
    let model = with_head("a pool over all pixels", |builder| {
        let mean = builder.node("AveragePool", &["x"], &[("kernel_shape", Ints(vec![7, 6]))]);
        (builder.node("Flatten", &[&mean], &[("axis", Int(-3))]), 4)
    });
    assert_eq!(layers(&model, "global average pool"), 1);
}

#[test]
fn shapes_of_vectors() {
    for shape in [[0, -1], [-1, 168], [0, 168]] {
        let model = with_head(&format!("{shape:?}"), |builder| {
            let shape = builder.integers(&shape);
            (builder.node("Reshape", &["x", &shape], &[]), 168)
        });
        assert_eq!(layers(&model, "flatten"), 1);
    }
    let pooled = |builder: &mut Builder| builder.node("GlobalAveragePool", &["x"], &[]);
    let squeezed = |builder: &mut Builder| {
        let (pooled, axes) = (pooled(builder), builder.integers(&[2, -1]));
        (builder.node("Squeeze", &[&pooled, &axes], &[]), 4)
    };
    assert_eq!(layers(&with_head("squeeze", squeezed), "flatten"), 0);
    let squeezed = |builder: &mut Builder| {
        let pooled = pooled(builder);
        (builder.node("Squeeze", &[&pooled], &[("axes", Ints(vec![-2, -1]))]), 4)
    };
    with_head("squeeze of old", squeezed);
    let there_and_back = |builder: &mut Builder| {
        let (pooled, axes) = (pooled(builder), builder.integers(&[2, 3]));
        let vector = builder.node("Flatten", &[&pooled], &[]);
        let image = builder.node("Unsqueeze", &[&vector, &axes], &[]);
        let weight = builder.floats(&[2, 4, 1, 1], &uniform(4, 8));
        let image = builder.node("Conv", &[&image, &weight], &[]);
        (builder.node("Flatten", &[&image], &[]), 2)
    };
    with_head("unsqueeze", there_and_back);
    // A shape that is one image of fixed size, in files for batches of one.
    let mut builder = Builder::new(&[4, 7, 6]);
    fix_batch(&mut builder, 1);
    let shape = builder.integers(&[1, -1]);
    builder.node("Reshape", &["x", &shape], &[]);
    check(&builder, "a batch of one");
}

/// Makes the number of images a fixed one.
fn fix_batch(builder: &mut Builder, images: i64) {
    let input = builder.graph().input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
    input.shape.as_mut().unwrap().dim[0].value = Some(leanresnet::internals::onnx_proto::Extent::Value(images));
}

#[test]
fn vectors_are_images_of_one_pixel() {
    let mut builder = Builder::new(&[6]);
    let (first, second) = (builder.floats(&[6, 5], &uniform(1, 30)), builder.floats(&[5, 2], &uniform(2, 10)));
    let hidden = builder.node("MatMul", &["x", &first], &[]);
    let hidden = builder.node("Relu", &[&hidden], &[]);
    builder.node("MatMul", &[&hidden, &second], &[]);
    let model = check(&builder, "two linear layers");
    assert_eq!(model.input(), [6, 1, 1]);
}

/// Padding goes into what reads it if that computes the same, and becomes an operator otherwise.
#[test]
fn padding_goes_into_convolutions_and_pools() {
    let of = |before: &str, after: &str, attributes: &[(&'static str, Attribute)], expected: usize| {
        let model = with_head(&format!("{before}, Pad, {after}"), |builder| {
            let image = builder.node(before, &["x"], &[]);
            let pads = builder.integers(&[0, 0, 1, 0, 0, 0, 1, 1]);
            let padded = builder.node("Pad", &[&image, &pads], &[("mode", Text("constant"))]);
            let weight = builder.floats(&[4, 4, 3, 3], &uniform(1, 144));
            let inputs: &[&str] = if after == "Conv" { &[&padded, &weight] } else { &[&padded] };
            let image = builder.node(after, inputs, attributes);
            let pooled = builder.node("GlobalAveragePool", &[&image], &[]);
            (builder.node("Flatten", &[&pooled], &[]), 4)
        });
        let groups = model.layers().iter().filter(|layer| layer.operation.contains("conv 1x1 groups")).count();
        assert_eq!(groups, expected, "{before}, {after}: {:?}", model.graph());
    };
    let window = || vec![("kernel_shape", Ints(vec![3, 3])), ("strides", Ints(vec![2, 2]))];
    of("Identity", "Conv", &[("pads", Ints(vec![1, 1, 0, 0]))], 0);
    of("Relu", "MaxPool", &window(), 0);
    of("Identity", "MaxPool", &window(), 1);
    of("Identity", "AveragePool", &window(), 0);
    let mut with_padding = window();
    with_padding.push(("pads", Ints(vec![1; 4])));
    of("Identity", "AveragePool", &with_padding, 1);
    of("Relu", "Relu", &[], 1);
}

#[test]
fn different_dilations_become_one_kernel() {
    let model = with_head("dilations 1 and 2", |builder| {
        let weight = builder.floats(&[4, 2, 2, 3], &uniform(1, 48));
        let attributes = [("dilations", Ints(vec![1, 2])), ("group", Int(2)), ("pads", Ints(vec![0, 2, 1, 2]))];
        let image = builder.node("Conv", &["x", &weight], &attributes);
        (builder.node("Flatten", &[&image], &[]), 168)
    });
    assert_eq!(layers(&model, "conv 2x5 groups 2"), 1);
    let model = with_head("strides that are never taken", |builder| {
        let weight = builder.floats(&[4, 4, 1, 6], &uniform(1, 96));
        let image = builder.node("Conv", &["x", &weight], &[("strides", Ints(vec![2, 1]))]);
        (builder.node("Flatten", &[&image], &[]), 16)
    });
    assert_eq!(layers(&model, "conv 1x6 stride 2"), 1);
}

/// A pixel's values by themselves: norms and products without a convolution before them, which somebody else reads, at the very start.
#[test]
fn norms_without_a_convolution_become_one() {
    let model = with_head("normalised input", |builder| {
        let (mean, deviation) =
            (builder.floats(&[1, 4, 1, 1], &uniform(1, 4)), builder.floats(&[4, 1, 1], &[0.2, 0.3, 0.5, 0.7]));
        let image = builder.node("Sub", &["x", &mean], &[]);
        let image = builder.node("Div", &[&image, &deviation], &[]);
        let image = builder.node("Relu", &[&image], &[]);
        (builder.node("Flatten", &[&image], &[]), 168)
    });
    assert_eq!(model.graph().unwrap().nodes().len(), 4, "one for both: {:?}", model.graph());
    assert_eq!(layers(&model, "conv 1x1 groups 4"), 1);
}

#[test]
fn constants_are_folded() {
    let model = with_head("a weight in parts", |builder| {
        let values = uniform(1, 16);
        let matrix = builder.node("Constant", &[], &[("value", Tensor(floats("", &[4, 4], &values)))]);
        let turned = builder.node("Transpose", &[&matrix], &[("perm", Ints(vec![1, 0]))]);
        let turned = builder.node("Identity", &[&turned], &[]);
        let axes = builder.integers(&[2, 3]);
        let weight = builder.node("Unsqueeze", &[&turned, &axes], &[]);
        let mask = builder.floats(&[4, 1, 1, 1], &[1.0, 0.0, 1.0, 2.0]);
        let weight = builder.node("Mul", &[&weight, &mask], &[]);
        // As PyTorch's exporter writes a `masked_fill` of the weights: of input 2.
        let outside = builder.floats(&[1, 4, 1, 1], &[0.0, 0.0, -0.5, 0.0]);
        let outside = builder.node("Cast", &[&outside], &[("to", Int(9))]);
        let fill = builder.floats(&[], &[0.25]);
        let weight = builder.node("Where", &[&outside, &fill, &weight], &[]);
        let image = builder.node("Conv", &["x", &weight], &[]);
        let pooled = builder.node("GlobalAveragePool", &[&image], &[]);
        (builder.node("Flatten", &[&pooled], &[]), 4)
    });
    let (_, weight) = model.tensor("node7.weight").unwrap();
    let values = uniform(1, 16);
    let expected = |output: usize, input: usize| {
        if input == 2 { 0.25 } else { values[input * 4 + output] * [1.0, 0.0, 1.0, 2.0][output] }
    };
    assert!((0..16).all(|index| weight[index] == expected(index / 4, index % 4)));
}

/// A basic block with a shortcut: sums and ReLUs run with the convolutions before them.
#[test]
fn residual_blocks_are_fused() {
    let mut builder = Builder::new(&[4, 8, 8]);
    let conv = |builder: &mut Builder, x: &str, seed: u64, outputs: usize, side: usize, stride: i64| {
        let weight = builder.floats(&[outputs, 4, side, side], &uniform(seed, outputs * 4 * side * side));
        let half = (side / 2) as i64;
        builder.node("Conv", &[x, &weight], &[("pads", Ints(vec![half; 4])), ("strides", Ints(vec![stride; 2]))])
    };
    let shortcut = conv(&mut builder, "x", 1, 4, 1, 2);
    let inner = conv(&mut builder, "x", 2, 4, 3, 2);
    let inner = builder.node("Relu", &[&inner], &[]);
    let inner = conv(&mut builder, &inner, 3, 4, 3, 1);
    let sum = builder.node("Add", &[&shortcut, &inner], &[]);
    let sum = builder.node("Relu", &[&sum], &[]);
    builder.node("GlobalAveragePool", &[&sum], &[]);
    let model = check(&builder, "block");
    // The convolution that is summed comes right before the sum, the sum before the ReLU.
    let operations: Vec<&Operation> = model.graph().unwrap().nodes().iter().map(|node| &node.operation).collect();
    let is = |index: usize, operation: &Operation| operations[index] == operation;
    assert!(is(4, &Operation::Add) && is(5, &Operation::Relu), "{operations:?}");
    let mut session = leanresnet::Session::builder(&model).timing(true).build().unwrap();
    let images = uniform(3, 4 * 8 * 8);
    session.run(leanresnet::Images::nchw_f32(&images, [1, 4, 8, 8]).unwrap()).unwrap();
    let graph = model.graph().unwrap();
    let of_sum = [&graph.nodes()[4].name, &graph.nodes()[5].name];
    assert!(session.timings().iter().all(|layer| !of_sum.contains(&&layer.name)), "the sum runs by itself");
}
