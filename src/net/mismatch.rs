//! Comparing the tensors that are there with those that a network has.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::net::parameters::ParameterSpec;

/// Most entries of a list that an error message spells out.
const MAX_LISTED: usize = 5;

/// A tensor whose shape is not that of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misshaped {
    /// Name of the tensor.
    pub name: String,
    /// Its shape in the network.
    pub expected: Vec<usize>,
    /// The shape that came.
    pub got: Vec<usize>,
}

/// What is wrong with a set of tensors.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Names that the network has and the set does not, in forward order.
    pub(crate) missing: Vec<String>,
    /// Names that the set has and the network does not, in alphabetical order.
    pub(crate) unexpected: Vec<String>,
    pub(crate) misshaped: Vec<Misshaped>,
}

impl Mismatch {
    /// Compares the shapes that were `found` under their names with those of `specs`.
    pub(crate) fn between(specs: &[ParameterSpec], found: &BTreeMap<&str, &[usize]>) -> Self {
        let mut mismatch = Self::default();
        for spec in specs {
            match found.get(spec.name.as_str()) {
                None => mismatch.missing.push(spec.name.clone()),
                Some(&shape) if shape != spec.shape => mismatch.misshaped.push(Misshaped {
                    name: spec.name.clone(),
                    expected: spec.shape.clone(),
                    got: shape.to_vec(),
                }),
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        mismatch.unexpected = found.keys().filter(|name| !known.contains(*name)).map(ToString::to_string).collect();
        mismatch
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// An error that lists what is wrong, if anything is.
    ///
    /// # Errors
    /// [`Error::Model`] with `source_name`.
    pub(crate) fn check(&self, source_name: &str) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let misshaped: Vec<String> =
            self.misshaped.iter().map(|one| format!("{} {:?} instead of {:?}", one.name, one.got, one.expected)).collect();
        let lists = [("missing", &self.missing), ("unexpected", &self.unexpected), ("misshaped", &misshaped)];
        let got: Vec<String> = lists
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", list(names)))
            .collect();
        let what = "the tensors do not fit the network";
        Err(Error::model(source_name, what, "exactly the network's tensors", got.join("; ")))
    }
}

fn list(names: &[String]) -> String {
    let shown = &names[..names.len().min(MAX_LISTED)];
    let rest = names.len() - shown.len();
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Network;
    use crate::net::parameters::parameters;

    #[test]
    fn lists_what_is_missing_unexpected_and_misshaped() {
        let specs = parameters(&Network::builder().with_stage(4, 1).build().unwrap());
        let mut found: BTreeMap<&str, &[usize]> = specs.iter().map(|spec| (spec.name.as_str(), &spec.shape[..])).collect();
        assert!(Mismatch::between(&specs, &found).is_empty());
        found.remove("head.bias");
        found.insert("head.weight", &[4, 10]);
        found.insert("fc.bias", &[10]);
        let error = Mismatch::between(&specs, &found).check("file").unwrap_err().to_string();
        assert_eq!(
            error,
            "file: the tensors do not fit the network; expected exactly the network's tensors, \
             got missing: head.bias; unexpected: fc.bias; misshaped: head.weight [4, 10] instead of [10, 4]"
        );
        let error = Mismatch::between(&specs, &BTreeMap::new()).check("file").unwrap_err().to_string();
        assert!(error.ends_with(&format!("stem.norm.running_var and {} more", specs.len() - 5)), "{error}");
    }
}
