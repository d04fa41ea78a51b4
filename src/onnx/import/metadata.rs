//! What this crate's own files say beside their graph: how images become inputs, and the names of the classes.
#![forbid(unsafe_code)]

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::net::{Model, Preprocess};
use crate::onnx::proto::StringStringEntryProto;

/// The key that files of this crate have.
const MARK: &str = "leanresnet";

/// The model with what the metadata of its file says; of other programs' files nothing is read.
pub(super) fn apply(mut model: Model, entries: &[StringStringEntryProto], source_name: &str) -> Result<Model> {
    if !entries.iter().any(|entry| entry.key == MARK) {
        return Ok(model);
    }
    if let Some(preprocess) = parsed::<Preprocess>(entries, "preprocess", source_name)? {
        model = model.with_preprocess(preprocess).map_err(|error| error.in_model(source_name))?;
    }
    if let Some(names) = parsed::<Vec<String>>(entries, "class_names", source_name)? {
        model = model.with_class_names(names).map_err(|error| error.in_model(source_name))?;
    }
    Ok(model)
}

/// The value of a key, which is JSON; `None` if it is not there.
fn parsed<T: DeserializeOwned>(entries: &[StringStringEntryProto], key: &str, source_name: &str) -> Result<Option<T>> {
    let Some(entry) = entries.iter().find(|entry| entry.key == key) else { return Ok(None) };
    let damaged = |error| Error::model(source_name, format!("metadata `{key}`"), "the JSON that leanresnet writes", error);
    serde_json::from_str(&entry.value).map(Some).map_err(damaged)
}
