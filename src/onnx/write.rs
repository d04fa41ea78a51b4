//! The nodes of a graph as ONNX nodes.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::net::{Graph, Node, Operation};
use crate::onnx::expand::{BatchNorm, Expanded};
use crate::onnx::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, Extent, GraphProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The images, float32, `[batch, channels, height, width]`.
const INPUT: &str = "images";
/// The logits, float32, `[batch, classes]`.
const OUTPUT: &str = "logits";
/// The extent that may be any number.
const BATCH: &str = "batch";

/// The ONNX graph of a model. Every node is called as its output; the parts of a lean convolution as their tensors.
pub(super) fn write(expanded: &Expanded, graph: &Graph) -> GraphProto {
    let [channels, height, width] = graph.input();
    let proto = GraphProto {
        name: "leanresnet".to_owned(),
        input: vec![value_info(INPUT, &[channels, height, width])],
        output: vec![value_info(OUTPUT, &[graph.classes()])],
        ..GraphProto::default()
    };
    let images = Value { name: INPUT.to_owned(), is_flat: false };
    let names = [INPUT, OUTPUT].map(str::to_owned).into();
    let mut writer = Writer { expanded, graph, proto, names, values: vec![images] };
    for (index, node) in graph.nodes().iter().enumerate() {
        let value = writer.node(node, index + 1);
        writer.values.push(value);
    }
    writer.finish()
}

/// The output of a node.
#[derive(Clone)]
struct Value {
    name: String,
    /// Whether it is `[batch, channels]`; otherwise `[batch, channels, height, width]`.
    is_flat: bool,
}

struct Writer<'a> {
    expanded: &'a Expanded,
    graph: &'a Graph,
    proto: GraphProto,
    /// The names that are taken.
    names: HashSet<String>,
    /// The image, and what comes out of every node of the graph so far.
    values: Vec<Value>,
}

impl Writer<'_> {
    /// A node of the graph, whose output has this number.
    fn node(&mut self, node: &Node, output: usize) -> Value {
        let Node { name, inputs, operation } = node;
        let input = inputs[0];
        if let Some(norm) = self.expanded.norms.get(name) {
            return self.batch_norm(name, input, norm);
        }
        match *operation {
            Operation::Conv { kernel, stride, padding, dilation, groups, .. } => {
                if self.is_linear(input, operation) {
                    return self.linear(name, input, output);
                }
                let x = self.image(input);
                let window = attributes(kernel, stride, padding);
                let more = [integers("dilations", &[dilation; 2]), integer("group", groups)];
                self.convolution(name, x, window.into_iter().chain(more).collect())
            }
            Operation::Lean { stencil, group_size, .. } => {
                let (x, channels) = (self.image(input), self.graph.shape(output)[0]);
                let window = attributes([stencil.side(); 2], 1, [stencil.radius(); 4]).into_iter();
                let window = window.chain([integer("group", channels / group_size)]).collect();
                let [spatial, pointwise] = ["spatial", "pointwise"].map(|part| format!("{name}.{part}"));
                let spatial = self.convolution(&spatial, x.clone(), window).name;
                let pointwise = self.convolution(&pointwise, x, attributes([1; 2], 1, [0; 4])).name;
                Value { name: self.push("Add", name, vec![spatial, pointwise], Vec::new()), is_flat: false }
            }
            Operation::MaxPool { kernel, stride, padding } => {
                self.on_image("MaxPool", name, input, attributes(kernel, stride, padding))
            }
            Operation::AveragePool { kernel, stride, padding, counts_padding } => {
                let mut window = attributes(kernel, stride, padding);
                window.push(integer("count_include_pad", counts_padding.into()));
                self.on_image("AveragePool", name, input, window)
            }
            Operation::GlobalAveragePool => self.on_image("GlobalAveragePool", name, input, Vec::new()),
            Operation::Flatten => self.flatten(name, input),
            Operation::Relu => {
                let Value { name: x, is_flat } = self.values[input].clone();
                Value { name: self.push("Relu", name, vec![x], Vec::new()), is_flat }
            }
            Operation::Add => {
                let is_flat = inputs.iter().any(|&input| self.values[input].is_flat);
                let summands =
                    inputs.iter().map(|&input| if is_flat { self.flat(name, input) } else { self.image(input) }).collect();
                Value { name: self.push("Add", name, summands, Vec::new()), is_flat }
            }
        }
    }

    /// Gives the last output its name.
    fn finish(mut self) -> GraphProto {
        let last = self.values.len() - 1;
        let logits = self.flatten("flatten", last).name;
        for node in &mut self.proto.node {
            for name in node.input.iter_mut().chain(&mut node.output).filter(|name| **name == logits) {
                OUTPUT.clone_into(name);
            }
        }
        self.proto
    }

    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        for number in 2.. {
            if self.names.insert(unique.clone()) {
                break;
            }
            unique = format!("{name}_{number}");
        }
        unique
    }

    /// Appends a node; returns the name of its output.
    fn push(&mut self, op_type: &str, name: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let name = self.unique(name);
        let output = vec![name.clone()];
        let node =
            NodeProto { input, output, name: name.clone(), op_type: op_type.to_owned(), attribute, ..NodeProto::default() };
        self.proto.node.push(node);
        name
    }

    /// Appends a tensor of values; returns its name.
    fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let name = self.unique(name);
        self.proto.initializer.push(TensorProto {
            name: name.clone(),
            dims: dims.iter().map(|&extent| extent as i64).collect(),
            data_type: DataType::Float.into(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        name
    }

    fn on_image(&mut self, op_type: &str, name: &str, input: usize, attributes: Vec<AttributeProto>) -> Value {
        let x = self.image(input);
        Value { name: self.push(op_type, name, vec![x], attributes), is_flat: false }
    }

    /// A convolution of `x` with the tensors `name`.weight and, if there is one, `name`.bias.
    fn convolution(&mut self, name: &str, x: String, attributes: Vec<AttributeProto>) -> Value {
        let mut inputs = vec![x];
        for part in ["weight", "bias"] {
            let tensor = format!("{name}.{part}");
            if let Some((shape, values)) = self.expanded.model.tensor(&tensor) {
                inputs.push(self.constant(&tensor, shape, values));
            }
        }
        Value { name: self.push("Conv", name, inputs, attributes), is_flat: false }
    }

    fn batch_norm(&mut self, name: &str, input: usize, norm: &BatchNorm) -> Value {
        let mut inputs = vec![self.image(input)];
        let tensors =
            [("weight", &norm.weight), ("bias", &norm.bias), ("running_mean", &norm.mean), ("running_var", &norm.variance)];
        for (part, values) in tensors {
            inputs.push(self.constant(&format!("{name}.{part}"), &[values.len()], values));
        }
        let epsilon = AttributeProto { f: norm.epsilon, ..attribute("epsilon", AttributeType::Float) };
        Value { name: self.push("BatchNormalization", name, inputs, vec![epsilon]), is_flat: false }
    }

    /// Whether a convolution is a matrix that multiplies what comes out of a global pool or is flat already.
    fn is_linear(&self, input: usize, operation: &Operation) -> bool {
        let Operation::Conv { kernel: [1, 1], padding: [0, 0, 0, 0], groups: 1, .. } = *operation else { return false };
        let is_pooled = input > 0 && self.graph.nodes()[input - 1].operation == Operation::GlobalAveragePool;
        self.values[input].is_flat || is_pooled
    }

    fn linear(&mut self, name: &str, input: usize, output: usize) -> Value {
        let mut inputs = vec![self.flat(name, input)];
        let (classes, channels) = (self.graph.shape(output)[0], self.graph.shape(input)[0]);
        for (part, shape) in [("weight", &[classes, channels][..]), ("bias", &[classes])] {
            let tensor = format!("{name}.{part}");
            if let Some((_, values)) = self.expanded.model.tensor(&tensor) {
                inputs.push(self.constant(&tensor, shape, values));
            }
        }
        Value { name: self.push("Gemm", name, inputs, vec![integer("transB", 1)]), is_flat: true }
    }

    /// A value as `[batch, values]`, by a node of this name if it is not already.
    fn flatten(&mut self, name: &str, input: usize) -> Value {
        let value = self.values[input].clone();
        if value.is_flat {
            return value;
        }
        Value { name: self.push("Flatten", name, vec![value.name], vec![integer("axis", 1)]), is_flat: true }
    }

    /// The name of a value as `[batch, channels]`, for the node `reader`.
    fn flat(&mut self, reader: &str, input: usize) -> String {
        self.flatten(&format!("{reader}.flatten"), input).name
    }

    /// The name of a value as `[batch, channels, height, width]`.
    fn image(&mut self, input: usize) -> String {
        let Value { name, is_flat } = self.values[input].clone();
        if !is_flat {
            return name;
        }
        let shape = self.unique(&format!("{name}.shape"));
        // 0 takes the extent of the input, here the batch; what is flat has one pixel.
        let extents = [0, self.graph.shape(input)[0] as i64, 1, 1];
        self.proto.initializer.push(TensorProto {
            name: shape.clone(),
            dims: vec![extents.len() as i64],
            data_type: DataType::Int64.into(),
            raw_data: extents.iter().flat_map(|extent| extent.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        self.push("Reshape", &format!("{name}.image"), vec![name, shape], Vec::new())
    }
}

/// What all windows have: kernel, stride, and pixels of padding (above, left, below, right).
fn attributes(kernel: [usize; 2], stride: usize, padding: [usize; 4]) -> Vec<AttributeProto> {
    vec![integers("kernel_shape", &kernel), integers("strides", &[stride; 2]), integers("pads", &padding)]
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: kind.into(), ..AttributeProto::default() }
}

fn integer(name: &str, value: usize) -> AttributeProto {
    AttributeProto { i: value as i64, ..attribute(name, AttributeType::Int) }
}

fn integers(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { ints: values.iter().map(|&value| value as i64).collect(), ..attribute(name, AttributeType::Ints) }
}

/// A tensor of f32 with a batch of any size.
fn value_info(name: &str, extents: &[usize]) -> ValueInfoProto {
    let known = extents.iter().map(|&extent| Extent::Value(extent as i64));
    let dim = [Extent::Param(BATCH.to_owned())].into_iter().chain(known).map(|extent| DimensionProto { value: Some(extent) });
    let tensor_type = TensorTypeProto { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim: dim.collect() }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
