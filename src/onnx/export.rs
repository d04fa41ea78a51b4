//! Models as ONNX files.
#![forbid(unsafe_code)]

use prost::Message;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::net::{Graph, Model};
use crate::onnx::expand::{Expanded, expand};
use crate::onnx::proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};
use crate::onnx::write::write;

/// The version of the file format; it came with [`OPSET`].
const IR_VERSION: i64 = 8;
/// The version of ONNX's operators.
const OPSET: i64 = 17;
/// Most bytes of a file: protocol buffers count them in 31 bits.
const MAX_FILE: usize = i32::MAX as usize;

/// How a model becomes an ONNX file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Whether norms stay operators of their own, as the model has them. Default false: each is folded into the convolution before it, as
    /// sessions do, so that the file has fewer nodes and runs faster.
    pub keep_norm: bool,
}

impl ExportOptions {
    /// The same with another `keep_norm`.
    #[must_use]
    pub fn with_keep_norm(mut self, keep_norm: bool) -> Self {
        self.keep_norm = keep_norm;
        self
    }
}

/// The ONNX file of a model: operators of opset 17, which ONNX Runtime and OpenVINO run.
///
/// The input is `images`, float32, `[batch, channels, height, width]`, normalised as the model expects them; the output is `logits`,
/// float32, `[batch, classes]`; the batch may have any size. A lean convolution is a convolution in groups, a 1x1 convolution of the same
/// image, and their sum. Nodes and tensors have the names of the model's layers and tensors, such as `stages.0.1.conv1.spatial` and
/// `stages.0.1.conv1.spatial.weight`. The second convolution of a symmetric block, the transpose of the first, has weights of its own
/// there, and the scale of a block is in the weights of its second convolution or norm. The metadata have `preprocess` (JSON: mean, std,
/// resize), `class_names` (JSON: a list), `provenance`, and `leanresnet`, the version of this crate.
///
/// # Errors
/// [`Error::Invalid`] for models that are larger than an ONNX file may be, 2 GiB.
///
/// ```
/// use leanresnet::onnx::{ExportOptions, export};
/// use leanresnet::{Model, Network};
///
/// let model = Model::random(&Network::preset("small")?, 1);
/// let bytes = export(&model, &ExportOptions::default())?;
/// assert!(bytes.len() > 4 * 150_000);
/// # Ok::<(), leanresnet::Error>(())
/// ```
pub fn export(model: &Model, options: &ExportOptions) -> Result<Vec<u8>> {
    let expanded = expand(model, options.keep_norm)?;
    let proto = ModelProto {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: "images: (byte / 255 - mean) / std per channel, with mean and std of the metadata `preprocess`".to_owned(),
        graph: Some(write(&expanded, graph_of(&expanded))),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: metadata(model),
        functions: Vec::new(),
    };
    let length = proto.encoded_len();
    if length > MAX_FILE {
        return Err(Error::invalid("size of the ONNX file", format!("at most {MAX_FILE} bytes, as the format has it"), length));
    }
    Ok(proto.encode_to_vec())
}

/// The model as the graph that [`export`] writes, which sessions run too: what one of them computes is what the file says, in the order of
/// this crate's kernels. A norm that is kept is a 1x1 convolution of each channel.
///
/// # Errors
/// [`Error::Invalid`] for networks that are too large for a graph.
pub fn as_graph(model: &Model, options: &ExportOptions) -> Result<Model> {
    expand(model, options.keep_norm).map(|expanded| expanded.model)
}

fn graph_of(expanded: &Expanded) -> &Graph {
    expanded.model.graph().expect("what is expanded is a graph")
}

fn metadata(model: &Model) -> Vec<StringStringEntryProto> {
    let names = if model.class_names().is_empty() { String::new() } else { json(model.class_names()) };
    let entries = [
        ("leanresnet", env!("CARGO_PKG_VERSION").to_owned()),
        ("preprocess", json(model.preprocess())),
        ("class_names", names),
        ("provenance", model.provenance().to_owned()),
    ];
    let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.to_owned(), value };
    entries.into_iter().filter(|(_, value)| !value.is_empty()).map(entry).collect()
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("finite numbers and text are JSON")
}
