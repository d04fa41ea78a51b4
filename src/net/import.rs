//! Models from the state dicts of other programs.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::io::container::{self, StoredTensor};
use crate::net::mismatch::{Mismatch, Misshaped};
use crate::net::model::{Description, Model};
use crate::net::network::Network;
use crate::net::parameters::{ParameterRole, ParameterSpec, parameters};
use crate::net::rename::renamed;

/// What an import found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportReport {
    /// The model, if nothing is missing, unexpected or misshaped.
    pub model: Option<Model>,
    /// Number of tensors that have the name and shape of one of the network's.
    pub loaded: usize,
    /// Number of tensors that were left out: counters of batches, and those that the map leaves out.
    pub ignored: usize,
    /// Tensors of the network that the file does not have, in forward order.
    pub missing: Vec<String>,
    /// Tensors of the file (under the names that the map gives) that the network does not have.
    pub unexpected: Vec<String>,
    /// Tensors of another shape than the network's.
    pub misshaped: Vec<Misshaped>,
}

/// Reads a safetensors file with the state dict of a PyTorch module, or of any program that uses the names and shapes of
/// [`parameters`].
///
/// `map` has pairs of (their name, our name), as [`crate::net::parse_name_map`] reads them. `source_name` stands in messages.
///
/// # Errors
/// [`Error::Model`] if the file is damaged, two tensors get one name, a tensor is not of 32-bit floats, or a spatial weight has a value
/// other than 0 outside of its stencil; the message names the smallest stencil that fits.
pub fn import(bytes: &[u8], source_name: &str, network: &Network, map: &[(String, String)]) -> Result<ImportReport> {
    let mut ignored = 0;
    let mut tensors: BTreeMap<String, StoredTensor<'_>> = BTreeMap::new();
    for (theirs, tensor) in container::read_state_dict(bytes, source_name)? {
        let Some(name) = renamed(&theirs, map).filter(|name| !name.ends_with(".num_batches_tracked")) else {
            ignored += 1;
            continue;
        };
        if tensors.contains_key(&name) {
            return Err(Error::model(source_name, format!("tensor `{name}`"), "one tensor of a name after the map", "two"));
        }
        tensors.insert(name, tensor);
    }
    let specs: Vec<ParameterSpec> =
        parameters(network).into_iter().filter(|spec| spec.role != ParameterRole::NumBatchesTracked).collect();
    let mismatch = Mismatch::between(&specs, &tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect());
    let loaded = specs.len() - mismatch.missing.len() - mismatch.misshaped.len();
    let model = if mismatch.is_empty() { Some(model(network, tensors, source_name)?) } else { None };
    let Mismatch { missing, unexpected, misshaped } = mismatch;
    Ok(ImportReport { model, loaded, ignored, missing, unexpected, misshaped })
}

fn model(network: &Network, tensors: BTreeMap<String, StoredTensor<'_>>, source_name: &str) -> Result<Model> {
    let mut values = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let Some(floats) = tensor.to_f32() else {
            let what = format!("type of tensor `{name}`");
            return Err(Error::model(source_name, what, "F32 (convert with `.float()`)", format!("{:?}", tensor.dtype())));
        };
        values.push((name, tensor.shape().to_vec(), floats));
    }
    Model::from_named_tensors(Description::Network(network.clone()), values, source_name)?
        .with_provenance(format!("imported from {source_name}"))
}
