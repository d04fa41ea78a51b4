//! The walk over the nodes of an ONNX graph.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::onnx::import::draft::Draft;
use crate::onnx::import::node::{Axes, Image, Node, Value};
use crate::onnx::import::operators::Operator;
use crate::onnx::import::refusal::{Refusals, refusal, shown};
use crate::onnx::import::tensor::Tensor;
use crate::onnx::proto::{DataType, Extent, GraphProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto};

/// Most nodes.
const MAX_NODES: usize = 10_000;
/// Largest extent of the input.
const MAX_EXTENT: i64 = 1 << 20;

/// What was read of a graph.
pub(super) struct Read {
    pub(super) draft: Draft,
    /// The node of the draft that is the output.
    pub(super) output: usize,
    /// Number of nodes that the output needs.
    pub(super) nodes: usize,
    /// Number of initialisers that it needs.
    pub(super) loaded: usize,
}

/// Reads all nodes that the output needs, of a file of so many bytes.
pub(super) fn read(graph: GraphProto, file_bytes: usize, source_name: &str) -> Result<Read> {
    let refused = |what: String, expected: &str, got: String| Error::model(source_name, what, expected, got);
    let GraphProto { node: nodes, initializer, input, output, .. } = graph;
    if nodes.len() > MAX_NODES {
        return Err(refused("nodes of the graph".to_owned(), &format!("at most {MAX_NODES}"), nodes.len().to_string()));
    }
    let mut initialisers: HashMap<String, TensorProto> = HashMap::with_capacity(initializer.len());
    for mut tensor in initializer {
        let name = tensor.name.clone();
        if tensor.data_location != 0 || !tensor.external_data.is_empty() {
            let what = format!("values of initialiser `{}`", shown(&name));
            let expected = "values inside of the model file (onnx.save, torch.onnx.export: external data off)";
            return Err(refused(what, expected, "external data, in another file".to_owned()));
        }
        tensor.name = shown(&name);
        if initialisers.insert(name, tensor).is_some() {
            return Err(refused("names of initialisers".to_owned(), "each once", "one of them twice".to_owned()));
        }
    }
    // Writers of old list initialisers among the inputs.
    let inputs: Vec<&ValueInfoProto> = input.iter().filter(|value| !initialisers.contains_key(&value.name)).collect();
    let [input] = inputs[..] else {
        let names: Vec<String> = inputs.iter().take(10).map(|value| shown(&value.name)).collect();
        return Err(refused("inputs of the graph".to_owned(), "one batch of images", format!("{}: {names:?}", inputs.len())));
    };
    let [output] = &output[..] else {
        return Err(refused("outputs of the graph".to_owned(), "one", output.len().to_string()));
    };
    let (draft, axes) = draft_of(input, file_bytes, source_name)?;
    let is_needed = needed(&nodes, &output.name);
    let read = nodes.iter().zip(&is_needed).filter(|(_, is_needed)| **is_needed).flat_map(|(node, _)| &node.input);
    let mut walk = Walk {
        source_name,
        is_read: read.map(String::as_str).chain([output.name.as_str()]).collect(),
        values: HashMap::from([(input.name.as_str(), Some(Value::Image(Image { node: 0, axes })))]),
        made_later: nodes.iter().flat_map(|node| &node.output).map(String::as_str).collect(),
        loaded: 0,
        initialisers,
        draft,
        refusals: Refusals::default(),
    };
    for (node, is_needed) in nodes.iter().zip(&is_needed) {
        walk.node(node, *is_needed)?;
    }
    walk.refusals.check(source_name)?;
    let found = walk.values.get(output.name.as_str());
    let Some(Some(Value::Image(image))) = found else {
        let got = if found.is_some() { "a constant" } else { "a name that no node makes" };
        return Err(refused(format!("output `{}`", shown(&output.name)), "the output of a node", got.to_owned()));
    };
    let (output, nodes) = (image.node, is_needed.into_iter().filter(|is_needed| *is_needed).count());
    Ok(Read { output, nodes, loaded: walk.loaded, draft: walk.draft })
}

/// Which nodes an output needs, in graphs whose nodes come after those that they read.
fn needed(nodes: &[NodeProto], output: &str) -> Vec<bool> {
    let mut names = HashSet::from([output]);
    let mut is_needed = vec![false; nodes.len()];
    for (node, is_needed) in nodes.iter().zip(&mut is_needed).rev() {
        *is_needed = node.output.iter().any(|name| !name.is_empty() && names.contains(name.as_str()));
        if *is_needed {
            names.extend(node.input.iter().map(String::as_str));
        }
    }
    is_needed
}

/// An empty draft for the input of a graph, and the axes that the input has.
fn draft_of(input: &ValueInfoProto, file_bytes: usize, source_name: &str) -> Result<(Draft, Axes)> {
    let name = shown(&input.name);
    let refused = |expected: &str, got: String| Err(Error::model(source_name, format!("input `{name}`"), expected, got));
    let Some(tensor) = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()) else {
        return refused("a tensor", "none".to_owned());
    };
    if tensor.elem_type != DataType::Float as i32 {
        return refused("f32 (FLOAT, type 1)", format!("type {}", tensor.elem_type));
    }
    let dims = tensor.shape.as_ref().map_or(&[][..], |TensorShapeProto { dim }| dim);
    let extents: Vec<Option<usize>> = dims
        .iter()
        .map(|dim| match dim.value {
            Some(Extent::Value(extent @ 1..=MAX_EXTENT)) => Some(extent as usize),
            _ => None,
        })
        .collect();
    match extents[..] {
        [batch, Some(channels), Some(height), Some(width)] => {
            Ok((Draft::new([channels, height, width], batch, file_bytes), Axes::Nchw))
        }
        [batch, Some(channels)] => Ok((Draft::new([channels, 1, 1], batch, file_bytes), Axes::Nc)),
        _ => {
            let expected =
                format!("[batch, channels, height, width] or [batch, channels], all but the batch fixed, 1 to {MAX_EXTENT}");
            let shown_dims: Vec<String> = dims
                .iter()
                .take(10)
                .map(|dim| match &dim.value {
                    Some(Extent::Value(extent)) => extent.to_string(),
                    Some(Extent::Param(name)) => shown(name),
                    None => "?".to_owned(),
                })
                .collect();
            refused(&expected, format!("[{}]", shown_dims.join(", ")))
        }
    }
}

struct Walk<'a> {
    source_name: &'a str,
    /// Names that nodes which are needed read.
    is_read: HashSet<&'a str>,
    /// Names so far; `None` for what nodes should have made that were refused.
    values: HashMap<&'a str, Option<Value>>,
    /// Names of all nodes.
    made_later: HashSet<&'a str>,
    /// Number of initialisers that were decoded.
    loaded: usize,
    /// Those that nobody has read so far.
    initialisers: HashMap<String, TensorProto>,
    draft: Draft,
    refusals: Refusals,
}

impl<'a> Walk<'a> {
    fn node(&mut self, proto: &'a NodeProto, is_needed: bool) -> Result<()> {
        let made = if is_needed { self.outcome(proto)? } else { None };
        for (index, name) in proto.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let is_initialiser = self.initialisers.contains_key(name);
            let value = if index == 0 { made.clone() } else { None };
            if is_initialiser || self.values.insert(name, value).is_some() {
                let what = format!("value `{}`", shown(name));
                return Err(Error::model(self.source_name, what, "to be made once", "twice"));
            }
        }
        Ok(())
    }

    /// What a node makes; nothing if it is refused.
    fn outcome(&mut self, proto: &'a NodeProto) -> Result<Option<Value>> {
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            inputs.push(if name.is_empty() { Some(None) } else { self.value(proto, name)?.map(Some) });
        }
        let inputs: Option<Vec<Option<Value>>> = inputs.into_iter().collect();
        let Some(operator) = Operator::named(&proto.op_type, &proto.domain) else {
            self.refusals.add(proto, &refusal("operator", "another one", "one that cannot be run here"));
            return Ok(None);
        };
        let Some(inputs) = inputs else {
            self.refusals.add_unchecked();
            return Ok(None);
        };
        let more = proto.output.iter().skip(1).find(|name| !name.is_empty() && self.is_read.contains(name.as_str()));
        let made = match more {
            Some(name) => Err(refusal("outputs", "only the first one to be read", format!("`{}`", shown(name)))),
            None => operator.import(&Node { proto, inputs }, &mut self.draft),
        };
        match made {
            Ok(value) => Ok(Some(value)),
            Err(reason) => {
                self.refusals.add(proto, &reason);
                Ok(None)
            }
        }
    }

    /// The value of a name that a node reads; `None` if it was refused.
    fn value(&mut self, node: &NodeProto, name: &'a str) -> Result<Option<Value>> {
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        if let Some(tensor) = self.initialisers.remove(name) {
            self.loaded += 1;
            let value = match Tensor::decode(tensor) {
                Ok(tensor) => Some(Value::Constant(tensor)),
                Err(reason) => {
                    self.refusals.add(node, &reason);
                    None
                }
            };
            self.values.insert(name, value.clone());
            return Ok(value);
        }
        let what = format!("input `{}` of node `{}`", shown(name), shown(&node.name));
        let got = if self.made_later.contains(name) {
            "the output of the same node or a later one: a cycle, or nodes in another order"
        } else {
            "a name that nobody makes"
        };
        Err(Error::model(self.source_name, what, "an input, an initialiser or the output of an earlier node", got))
    }
}
