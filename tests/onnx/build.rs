//! ONNX models node by node.
#![forbid(unsafe_code)]

use leanresnet::internals::onnx_proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, Extent, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use prost::Message;

/// The value of an attribute.
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(&'static str),
    Tensor(TensorProto),
}

use Attribute::{Float, Int, Ints, Tensor, Text};

/// A model with one input `x`, [batch, ...], and the last node's first output.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) model: ModelProto,
}

impl Builder {
    /// Images or vectors of these extents; the number of them is called `batch`.
    pub(crate) fn new(extents: &[usize]) -> Self {
        let batch = DimensionProto { value: Some(Extent::Param("batch".to_owned())) };
        let fixed = extents.iter().map(|&extent| DimensionProto { value: Some(Extent::Value(extent as i64)) });
        let shape = TensorShapeProto { dim: std::iter::once(batch).chain(fixed).collect() };
        let tensor = TensorTypeProto { elem_type: DataType::Float as i32, shape: Some(shape) };
        let input = ValueInfoProto { name: "x".to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) };
        let graph = GraphProto { name: "test".to_owned(), input: vec![input], ..Default::default() };
        let opset = OperatorSetIdProto { domain: String::new(), version: 20 };
        Builder { model: ModelProto { ir_version: 9, opset_import: vec![opset], graph: Some(graph), ..Default::default() } }
    }

    pub(crate) fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().unwrap()
    }

    /// Adds a node; the name of its output.
    pub(crate) fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let attribute = |(name, value): &(&str, Attribute)| {
            let mut attribute = AttributeProto { name: (*name).to_owned(), ..Default::default() };
            let kind = match value {
                Int(value) => {
                    attribute.i = *value;
                    AttributeType::Int
                }
                Ints(values) => {
                    attribute.ints.clone_from(values);
                    AttributeType::Ints
                }
                Float(value) => {
                    attribute.f = *value;
                    AttributeType::Float
                }
                Text(value) => {
                    attribute.s = value.as_bytes().to_vec();
                    AttributeType::String
                }
                Tensor(value) => {
                    attribute.t = Some(value.clone());
                    AttributeType::Tensor
                }
            };
            attribute.r#type = kind as i32;
            attribute
        };
        let number = self.graph().node.len();
        let output = format!("v{number}");
        self.graph().node.push(NodeProto {
            name: format!("node{number}"),
            op_type: operator.to_owned(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.clone()],
            attribute: attributes.iter().map(attribute).collect(),
            ..Default::default()
        });
        output
    }

    /// Adds an initialiser; its name.
    pub(crate) fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = format!("w{}", self.graph().initializer.len());
        assert_eq!(dims.iter().product::<usize>(), values.len());
        self.graph().initializer.push(floats(&name, dims, values));
        name
    }

    /// Adds an initialiser of integers; its name.
    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        let name = format!("w{}", self.graph().initializer.len());
        self.graph().initializer.push(TensorProto {
            name: name.clone(),
            dims: vec![values.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: values.to_vec(),
            ..Default::default()
        });
        name
    }

    /// The file, whose output is the last node's.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut model = self.model.clone();
        let graph = model.graph.as_mut().unwrap();
        if graph.output.is_empty() {
            let name = graph.node.last().map_or("x".to_owned(), |node| node.output[0].clone());
            graph.output = vec![ValueInfoProto { name, r#type: None }];
        }
        model.encode_to_vec()
    }
}

/// A tensor of floats.
pub(crate) fn floats(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&extent| extent as i64).collect(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ..Default::default()
    }
}
