//! Model files: what the container's metadata says about a model, and its tensors.
#![forbid(unsafe_code)]

use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::io::container::{self, Contents, StoredTensor};
use crate::io::read::read_file;
use crate::net::graph::Graph;
use crate::net::mismatch::Mismatch;
use crate::net::model::{Description, Model};
use crate::net::parameters::ParameterRole;
use crate::net::preprocess::Preprocess;
use crate::net::table::NetworkTable;

/// Largest model file in bytes: that of the largest accepted network.
const MAX_FILE: u64 = (4 << 31) + (32 << 20);
/// The kind of network that this crate describes itself.
const NETWORK: &str = "leanresnet";
/// The kind of an imported graph.
const GRAPH: &str = "graph";

/// The members of the metadata; others may be there.
#[derive(Deserialize)]
struct Members {
    network: Map<String, Value>,
    preprocess: Preprocess,
    #[serde(default)]
    class_names: Vec<String>,
    #[serde(default)]
    provenance: String,
}

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Model`] for everything that [`Model::from_bytes`] refuses.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        parse(&read_file(path, MAX_FILE)?, &path.display().to_string())
    }

    /// Reads the content of a model file. `bytes` may have any alignment.
    ///
    /// # Errors
    /// [`Error::Model`] if the file is damaged, of another version or kind, a state dict without description, or its tensors are not
    /// exactly those of its network.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        parse(bytes, "bytes")
    }

    /// Writes a model file, whole or not at all; a file that is there already is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, [`Error::Invalid`] if names of classes are too many for a file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let counter = StoredTensor::integer(0);
        container::write(path.as_ref(), self.metadata(), self.stored_tensors(&counter))
    }

    /// The content of a model file.
    ///
    /// # Errors
    /// [`Error::Invalid`] if names of classes are too many for a file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let counter = StoredTensor::integer(0);
        container::to_bytes(self.metadata(), self.stored_tensors(&counter))
    }

    /// The tensors alone, as a PyTorch state dict in a safetensors file: the names and shapes of [`Model::parameters`], without the
    /// description that makes a file a model's. `safetensors.torch.load_file` reads it, and `leanresnet import` reads it back.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the tensors are too many for a file.
    pub fn to_state_dict(&self) -> Result<Vec<u8>> {
        let counter = StoredTensor::integer(0);
        container::state_dict_to_bytes(self.stored_tensors(&counter))
    }

    fn metadata(&self) -> Map<String, Value> {
        let members = json!({
            "network": tagged(self.description()),
            "preprocess": self.preprocess(),
            "class_names": self.class_names(),
            "provenance": self.provenance(),
        });
        match members {
            Value::Object(members) => members,
            _ => unreachable!("the macro was given an object"),
        }
    }

    /// The tensors under their names, with a counter for each batch norm, as PyTorch has it.
    fn stored_tensors<'a>(&'a self, counter: &StoredTensor<'a>) -> Vec<(String, StoredTensor<'a>)> {
        let stored = |name: &str| match self.tensor(name) {
            Some((shape, values)) => StoredTensor::f32(shape, values),
            None => counter.clone(),
        };
        self.parameters().into_iter().map(|spec| (spec.name.clone(), stored(&spec.name))).collect()
    }
}

/// The description with its kind, as it stands in model files and checkpoints.
fn tagged(description: &Description) -> Value {
    let (kind, fields) = match description {
        Description::Network(network) => (NETWORK, serde_json::to_value(network)),
        Description::Graph(graph) => (GRAPH, serde_json::to_value(graph)),
    };
    let mut value = json!({ "kind": kind });
    let fields = fields.expect("a valid description has only finite numbers, strings and tables");
    if let (Value::Object(tagged), Value::Object(fields)) = (&mut value, fields) {
        tagged.extend(fields);
    }
    value
}

/// The inverse of [`tagged`].
fn untagged(mut fields: Map<String, Value>, source_name: &str) -> Result<Description> {
    let damaged = |what: &str, expected: &str, got: String| Error::model(source_name, what, expected, got);
    let kind = fields.remove("kind").unwrap_or_default();
    if kind.as_str() == Some(GRAPH) {
        let graph = Graph::deserialize(Value::Object(fields));
        return graph
            .map(Description::Graph)
            .map_err(|error| damaged("description of the graph", "a valid one", error.to_string()));
    }
    if kind.as_str() != Some(NETWORK) {
        let got = if kind.is_null() { "none".to_owned() } else { kind.to_string() };
        return Err(damaged("kind of the network", "\"leanresnet\" or \"graph\"", got));
    }
    let table = NetworkTable::deserialize(Value::Object(fields))
        .map_err(|error| damaged("description of the network", "the documented keys and values", error.to_string()))?;
    let network = table.resolve();
    network
        .map(Description::Network)
        .map_err(|error| damaged("description of the network", "a network of this version", error.to_string()))
}

fn parse(bytes: &[u8], source_name: &str) -> Result<Model> {
    let Contents { metadata, tensors } = container::read(bytes, source_name)?;
    let members = Members::deserialize(Value::Object(metadata))
        .map_err(|error| Error::model(source_name, "metadata", "network, preprocess, class_names and provenance", error))?;
    let description = untagged(members.network, source_name)?;
    let specs = description.parameters();
    Mismatch::between(&specs, &tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect())
        .check(source_name)?;
    for spec in &specs {
        let expected = if spec.role == ParameterRole::NumBatchesTracked { Dtype::I64 } else { Dtype::F32 };
        let got = tensors[&spec.name].dtype();
        if got != expected {
            let what = format!("type of tensor `{}`", spec.name);
            return Err(Error::model(source_name, what, format!("{expected:?}"), format!("{got:?}")));
        }
    }
    let values = tensors.into_iter().filter_map(|(name, tensor)| Some((name, tensor.shape().to_vec(), tensor.to_f32()?)));
    Model::from_named_tensors(description, values, source_name)?
        .with_preprocess(members.preprocess)
        .and_then(|model| model.with_class_names(members.class_names))
        .and_then(|model| model.with_provenance(members.provenance))
        .map_err(|error| error.in_model(source_name))
}
