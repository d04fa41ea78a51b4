//! Models of other programs, from ONNX files.

mod draft;
mod emit;
mod graph;
mod lean;
mod metadata;
mod node;
mod operators;
mod refusal;
mod simplify;
mod tensor;
mod window;
mod wire;

use prost::Message as _;

use crate::error::{Error, Result};
use crate::net::Model;
use crate::net::model::Description;
use crate::onnx::import::refusal::shown;
use crate::onnx::proto::{ModelProto, OperatorSetIdProto};

/// Versions of ONNX's operators that can be read: those in which they have the form of today, or an older one that is understood too.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

/// What an import made, and of what.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportReport {
    /// The model, a [`crate::net::Graph`] with weights.
    pub model: Model,
    /// Version of ONNX's operators that the file uses.
    pub opset: i64,
    /// The program that wrote the file, and its version, in the file's own words.
    pub producer: String,
    /// Number of ONNX nodes that the output needs.
    pub nodes: usize,
    /// Number of initialisers that the output needs.
    pub loaded: usize,
    /// Number of initialisers that it does not.
    pub ignored: usize,
}

/// Reads an ONNX model: a network of the operators that the module's page lists, from a batch of images (f32, NCHW) or of vectors to one
/// number per class. `source_name` stands in messages.
///
/// Norms go into the convolutions before them, padding into the convolutions and pools after it, and a depth-wise convolution and a
/// 1x1 convolution of the same image whose outputs are summed become one lean convolution, however the sums are nested. Weights of
/// 16 and 64 bits become f32. The number of images is free, whatever the file says; all else has to be fixed.
///
/// # Errors
/// [`Error::Model`]. One error lists all nodes that cannot be imported, each with its operator, its attributes and the reason. Others are
/// about files that are damaged or no ONNX, operators of an unknown version, values in other files (external data), names that are missing,
/// given twice or used before they are made, and a size beyond a bound.
///
/// # Memory
/// Bytes of the file are bounded at 2^31. Before anything is decoded, its messages and texts are counted, at most 2^17 (512 bytes in
/// memory each), and its integers, at most 2^20; the rest is as large in memory as in the file. Weights that several nodes share are
/// stored for each, at most 4 values per byte of the file and 2^22 values more.
pub fn import(bytes: &[u8], source_name: &str) -> Result<ImportReport> {
    wire::check(bytes, source_name)?;
    let damaged = |error| Error::model(source_name, "file", "an ONNX model (the protocol buffer of onnx.proto3)", error);
    let proto = ModelProto::decode(bytes).map_err(damaged)?;
    let opset = opset(&proto.opset_import, source_name)?;
    let producer = shown(format!("{} {}", proto.producer_name, proto.producer_version).trim());
    let Some(graph) = proto.graph else {
        return Err(Error::model(source_name, "file", "an ONNX model with a graph", "none"));
    };
    let nodes_before = graph.initializer.len();
    let graph::Read { mut draft, output, nodes, loaded } = graph::read(graph, bytes.len(), source_name)?;
    let output = simplify::simplify(&mut draft, output);
    let (graph, tensors) = emit::emit(&draft, output).map_err(|error| about_graph(error, source_name))?;
    drop(draft);
    let by = if producer.is_empty() { String::new() } else { format!(", written by {producer}") };
    let model = Model::from_named_tensors(Description::Graph(graph), tensors, source_name)?
        .with_provenance(format!("imported from {source_name}, ONNX with opset {opset}{by}"))?;
    let model = metadata::apply(model, &proto.metadata_props, source_name)?;
    Ok(ImportReport { model, opset, producer, nodes, loaded, ignored: nodes_before - loaded })
}

/// The version of ONNX's own operators.
fn opset(imports: &[OperatorSetIdProto], source_name: &str) -> Result<i64> {
    let own: Vec<i64> =
        imports.iter().filter(|set| ["", "ai.onnx"].contains(&set.domain.as_str())).map(|set| set.version).collect();
    match own[..] {
        [version] if OPSETS.contains(&version) => Ok(version),
        _ => {
            let expected = format!("one version from {} to {}", OPSETS.start(), OPSETS.end());
            Err(Error::model(source_name, "opset of ONNX's operators", expected, format!("{own:?}")))
        }
    }
}

/// An error about the graph that a file describes, which is the file's fault and not the caller's.
fn about_graph(error: Error, source_name: &str) -> Error {
    match error {
        Error::Invalid { what, expected, got } => Error::Model { source_name: source_name.to_owned(), what, expected, got },
        other => other,
    }
}
