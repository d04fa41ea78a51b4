//! What is refused, and in which words.
#![forbid(unsafe_code)]

use leanresnet::internals::onnx_proto::{Extent, OperatorSetIdProto, TensorProto, ValueInfoProto};
use leanresnet::onnx::import;
use leanresnet::{Error, ErrorKind};

use crate::build::Attribute::{Float, Int, Ints, Text};
use crate::build::{Attribute, Builder};
use crate::data::uniform;

fn message(builder: &Builder) -> String {
    let error = import(&builder.bytes(), "test.onnx").unwrap_err();
    assert!(matches!(error, Error::Model { .. }) && error.kind() == ErrorKind::Data);
    error.to_string()
}

/// Checks that a model is refused with all of these words.
fn refused(builder: &Builder, parts: &[&str]) {
    let message = message(builder);
    assert!(message.starts_with("test.onnx: ") && message.contains("expected ") && message.contains(", got "), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

/// Images of 4 channels through one node and a global pool.
fn with_node(operator: &str, more: &[(&[usize], f32)], attributes: &[(&str, Attribute)]) -> Builder {
    let mut builder = Builder::new(&[4, 6, 6]);
    let weights: Vec<String> =
        more.iter().map(|(dims, value)| builder.floats(dims, &vec![*value; dims.iter().product()])).collect();
    let inputs: Vec<&str> = std::iter::once("x").chain(weights.iter().map(String::as_str)).collect();
    let image = builder.node(operator, &inputs, attributes);
    builder.node("GlobalAveragePool", &[&image], &[]);
    builder
}

#[test]
fn all_unsupported_nodes_are_in_one_error() {
    let mut builder = Builder::new(&[4, 6, 6]);
    let image = builder.node("HardSwish", &["x"], &[]);
    let image = builder.node("LRN", &[&image], &[("size", Int(5)), ("alpha", Float(0.5))]);
    let image = builder.node("Relu", &[&image], &[]);
    let other = builder.node("MaxPool", &["x"], &[("kernel_shape", Ints(vec![2, 2])), ("dilations", Ints(vec![2, 2]))]);
    builder.graph().node[1].domain = "com.example".to_owned();
    builder.node("Concat", &[&image, &other], &[("axis", Int(1))]);
    assert_eq!(
        message(&builder),
        "test.onnx: 4 nodes that cannot be imported; expected operators and attributes that `leanresnet::onnx` lists, got these:\n  \
         node `node0`, HardSwish: operator; expected another one, got one that cannot be run here\n  \
         node `node1`, com.example.LRN with size 5, alpha 0.5: operator; expected another one, got one that cannot be run here\n  \
         node `node3`, MaxPool with kernel_shape [2, 2], dilations [2, 2]: attribute dilations; expected [1, 1] in pools, got [2, 2]\n  \
         node `node4`, Concat with axis 1: operator; expected another one, got one that cannot be run here\n  \
         and 1 that read their outputs, of which only the operators were checked"
    );
}

#[test]
fn the_list_is_bounded() {
    let mut builder = Builder::new(&[4, 6, 6]);
    let mut x = "x".to_owned();
    for _ in 0..2000 {
        x = builder.node("Sigmoid", &[&x], &[("long", Ints(vec![7; 200]))]);
    }
    builder.graph().node[0].name = "\u{1b}[31m".repeat(300);
    let message = message(&builder);
    assert!(message.contains("2000 nodes") && message.contains("and 1900 more"), "{message}");
    assert!(message.len() < 50_000 && !message.contains('\u{1b}'), "{}", message.len());
}

#[test]
fn operators_that_do_something_else() {
    let weight: (&[usize], f32) = (&[4, 4, 3, 3], 1.0);
    let conv = |attributes: &[(&str, Attribute)], part: &str| refused(&with_node("Conv", &[weight], attributes), &[part]);
    conv(&[("strides", Ints(vec![1, 2]))], "strides; expected the same for rows and columns, got [1, 2]");
    conv(&[("group", Int(2))], "channels; expected those of the input, 4, got a weight [4, 4, 3, 3] in 2 groups");
    conv(&[("kernel_shape", Ints(vec![5, 5]))], "kernel_shape; expected [3, 3], as the weight has it, got [5, 5]");
    conv(&[("auto_pad", Text("SAME"))], "attribute auto_pad");
    conv(&[("pads", Ints(vec![-1, 0, 0, 0]))], "attribute pads; expected numbers from 0");
    conv(&[("pads", Ints(vec![1, 1]))], "attribute pads; expected 4 numbers");
    conv(&[("dilations", Ints(vec![4, 4]))], "pixels under the kernel");
    conv(
        &[("unheard_of", Int(1))],
        "attributes; expected auto_pad, dilations, group, kernel_shape, pads, strides, got unheard_of",
    );
    conv(&[("group", Text("two"))], "attribute group; expected a value of type Int, got String");
    refused(&with_node("Conv", &[(&[4, 4, 3], 1.0)], &[]), &["shape of the weight; expected 4 extents"]);
    refused(&with_node("Conv", &[weight, (&[3], 1.0)], &[]), &["shape of the bias; expected [4], got [3]"]);
    refused(
        &with_node("Conv", &[(&[4, 4, 9, 9], 1.0)], &[("pads", Ints(vec![4; 4]))]),
        &["kernel of node `node0`; expected 1 to 7"],
    );
    let norm = |attributes: &[(&str, Attribute)], part: &str| {
        refused(&with_node("BatchNormalization", &[(&[4][..], 1.0); 4], attributes), &[part]);
    };
    norm(&[("training_mode", Int(1))], "attribute training_mode; expected 0, as in inference, got 1");
    norm(&[("spatial", Int(0))], "attribute spatial");
    refused(&with_node("BatchNormalization", &[(&[3][..], 1.0); 4], &[]), &["shape of input 1; expected [4], got [3]"]);
    refused(&with_node("Add", &[(&[2, 4, 1, 1], 1.0)], &[]), &["broadcast"]);
    let pool = |attributes: Vec<(&str, Attribute)>, part: &str| {
        let attributes = [vec![("kernel_shape", Ints(vec![3, 3]))], attributes].into_iter().flatten().collect::<Vec<_>>();
        refused(&with_node("AveragePool", &[], &attributes), &[part]);
    };
    pool(vec![("pads", Ints(vec![3; 4]))], "padding; expected less than the kernel");
    let ceil = vec![("ceil_mode", Int(1)), ("strides", Ints(vec![2, 2])), ("count_include_pad", Int(1))];
    pool(ceil, "attribute ceil_mode; expected 0, or extents that it does not change");
    refused(&with_node("MaxPool", &[], &[]), &["attribute kernel_shape; expected 2 numbers, got none"]);
    refused(&with_node("ReduceMean", &[], &[("axes", Ints(vec![1]))]), &["axes; expected [2, 3], height and width, got [1]"]);
    refused(&with_node("ReduceMean", &[], &[]), &["got all axes"]);
    refused(&with_node("Flatten", &[], &[("axis", Int(2))]), &["attribute axis; expected 1"]);
    refused(&with_node("Transpose", &[], &[("perm", Ints(vec![0, 2, 3, 1]))]), &["expected axes as they are: NCHW"]);
    refused(&with_node("Cast", &[], &[("to", Int(7))]), &["attribute to"]);
    refused(&with_node("MatMul", &[(&[6, 6], 1.0)], &[]), &["input 0; expected 2 axes, a vector per image, got 4 axes"]);
    refused(
        &with_node("Pad", &[], &[("pads", Ints(vec![0, 0, 1, 1, 0, 0, 1, 1])), ("value", Float(1.0))]),
        &["value of the padding"],
    );
    refused(&with_node("Pad", &[], &[("pads", Ints(vec![0, 1, 0, 0, 0, 0, 0, 0]))]), &["pads; expected 0 to 1024 pixels"]);
    refused(&with_node("Pad", &[], &[("mode", Text("reflect"))]), &["attribute mode; expected constant, got reflect"]);
}

#[test]
fn weights_have_to_be_known() {
    let mut builder = Builder::new(&[4, 6, 6]);
    let image = builder.node("Relu", &["x"], &[]);
    let image = builder.node("Conv", &["x", &image], &[]);
    builder.node("GlobalAveragePool", &[&image], &[]);
    refused(&builder, &["input 1; expected an initialiser or constant, got a computed value"]);
}

#[test]
fn second_outputs_must_not_be_read() {
    let mut builder = with_node("MaxPool", &[], &[("kernel_shape", Ints(vec![2, 2]))]);
    builder.graph().node[0].output.push("indices".to_owned());
    assert!(import(&builder.bytes(), "test.onnx").is_ok());
    builder.graph().node[1].input[0] = "indices".to_owned();
    refused(&builder, &["outputs; expected only the first one to be read, got `indices`"]);
}

#[test]
fn names_and_order() {
    let valid = || with_node("Conv", &[(&[4, 4, 1, 1], 1.0)], &[]);
    assert!(import(&valid().bytes(), "test.onnx").is_ok());
    let broken = |change: fn(&mut Builder), part: &str| {
        let mut builder = valid();
        change(&mut builder);
        refused(&builder, &[part]);
    };
    broken(|builder| builder.graph().node[0].input[1] = "absent".to_owned(), "input `absent` of node `node0`");
    broken(|builder| builder.graph().node[0].input[0] = "v1".to_owned(), "a cycle, or nodes in another order");
    let swapped = |builder: &mut Builder| {
        builder.graph().node.swap(0, 1);
        builder.graph().output = vec![ValueInfoProto { name: "v1".to_owned(), r#type: None }];
    };
    broken(swapped, "a cycle, or nodes in another order");
    broken(|builder| builder.graph().node[1].output[0] = "v0".to_owned(), "value `v0`; expected to be made once, got twice");
    broken(|builder| builder.graph().node[1].output[0] = "x".to_owned(), "value `x`; expected to be made once");
    broken(
        |builder| {
            let same = builder.graph().initializer[0].clone();
            builder.graph().initializer.push(same);
        },
        "names of initialisers; expected each once",
    );
    let value = |name: &str| ValueInfoProto { name: name.to_owned(), r#type: None };
    let second = |builder: &mut Builder| builder.graph().input.push(ValueInfoProto { name: "y".to_owned(), r#type: None });
    broken(second, "inputs of the graph; expected one batch of images, got 2");
    broken(|builder| builder.graph().input.clear(), "inputs of the graph");
    let mut builder = valid();
    builder.graph().output = vec![value("v0"), value("v1")];
    refused(&builder, &["outputs of the graph; expected one, got 2"]);
    builder.graph().output = vec![value("w0")];
    refused(&builder, &["output `w0`"]);
    // Several pixels are no classes.
    builder.graph().output = vec![value("v0")];
    refused(&builder, &["output of the last node; expected one pixel"]);
}

#[test]
fn the_file_as_a_whole() {
    let valid = || with_node("Conv", &[(&[4, 4, 1, 1], 1.0)], &[]);
    let opset = |versions: &[(&str, i64)], part: &str| {
        let mut builder = valid();
        let set = |(domain, version): &(&str, i64)| OperatorSetIdProto { domain: (*domain).to_owned(), version: *version };
        builder.model.opset_import = versions.iter().map(set).collect();
        refused(&builder, &[part]);
    };
    opset(&[("", 6)], "opset of ONNX's operators; expected one version from 7 to 28, got [6]");
    opset(&[("", 99)], "got [99]");
    opset(&[], "got []");
    opset(&[("", 20), ("ai.onnx", 21)], "got [20, 21]");
    let mut builder = valid();
    builder.graph().initializer[0].data_location = 1;
    refused(&builder, &["values of initialiser `w0`; expected values inside of the model file", "external data"]);
    let mut builder = valid();
    builder.graph().initializer[0].dims[0] = 1 << 40;
    refused(&builder, &["values of tensor `w0`"]);
    let mut builder = valid();
    builder.graph().initializer[0] = TensorProto { name: "w0".to_owned(), data_type: 8, ..Default::default() };
    refused(&builder, &["type of tensor `w0`", "type 8"]);
    let input = |change: fn(&mut leanresnet::internals::onnx_proto::TensorTypeProto), part: &str| {
        let mut builder = valid();
        change(builder.graph().input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap());
        refused(&builder, &["input `x`", part]);
    };
    input(|tensor| tensor.elem_type = 11, "expected f32 (FLOAT, type 1), got type 11");
    input(|tensor| tensor.shape = None, "got []");
    input(|tensor| tensor.shape.as_mut().unwrap().dim[2].value = Some(Extent::Param("h".to_owned())), "got [batch, 4, h, 6]");
    input(|tensor| tensor.shape.as_mut().unwrap().dim[1].value = Some(Extent::Value(0)), "got [batch, 0, 6, 6]");
    let message = import(b"no model", "test.onnx").unwrap_err().to_string();
    assert!(message.starts_with("test.onnx: file; expected an ONNX model"), "{message}");
    let message = import(b"", "test.onnx").unwrap_err().to_string();
    assert!(message.contains("opset of ONNX's operators"), "{message}");
}

/// One weight that thousands of nodes share does not become a thousand weights without bound.
#[test]
fn shared_weights_are_bounded() {
    let mut builder = Builder::new(&[1, 64, 64]);
    let weight = builder.floats(&[1024, 1, 7, 7], &uniform(1, 1024 * 49));
    for _ in 0..200 {
        builder.node("Conv", &["x", &weight], &[]);
    }
    let outputs: Vec<String> = (0..200).map(|index| format!("v{index}")).collect();
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let sum = builder.node("Sum", &names, &[]);
    builder.node("GlobalAveragePool", &[&sum], &[]);
    refused(&builder, &["weights; expected at most", "values more for a file of this size"]);
}
