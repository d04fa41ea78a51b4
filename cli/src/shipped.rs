//! The models that come with the tool, inside of its program.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::Model;

use crate::failure::Failure;

/// A model that needs no file.
#[derive(Debug)]
pub struct ShippedModel {
    /// What it is called on the command line: the name of the preset that it was trained from.
    pub name: &'static str,
    /// The data set that it was trained on.
    pub data: &'static str,
    file: &'static [u8],
}

/// Statics, because a constant with its file would be in the program more than once.
static MODELS: [ShippedModel; 1] =
    [ShippedModel { name: "cifar10-s", data: "cifar10", file: include_bytes!("../models/cifar10-s.safetensors") }];

/// The one that answers where the command line names none.
pub static DEFAULT: &ShippedModel = &MODELS[0];

impl ShippedModel {
    /// The one that MODEL means, unless there is a file or a folder of that name.
    pub fn named(model: &Path) -> Option<&'static Self> {
        MODELS.iter().find(|shipped| model == Path::new(shipped.name)).filter(|_| !model.exists())
    }

    /// The model itself.
    pub fn load(&self) -> Result<Model, Failure> {
        Model::from_bytes(self.file).map_err(|error| Failure::bug(format!("shipped model {}: {error}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leanresnet::Network;

    #[test]
    fn every_shipped_model_is_its_preset_with_names_and_a_history() {
        for shipped in &MODELS {
            let model = shipped.load().unwrap();
            assert_eq!(model.network().unwrap(), &Network::preset(shipped.name).unwrap(), "{}", shipped.name);
            assert_eq!(model.class_names().len(), model.classes());
            assert_eq!(model.preprocess().mean.len(), model.input()[0]);
            assert!(model.provenance().contains(&format!("on {}", shipped.data)), "{}", model.provenance());
        }
    }

    #[test]
    fn every_shipped_model_has_a_checksum() {
        for shipped in &MODELS {
            let mut damaged = shipped.file.to_vec();
            *damaged.last_mut().unwrap() ^= 1;
            let error = Model::from_bytes(&damaged).unwrap_err().to_string();
            assert!(error.contains("checksum"), "{error}");
        }
    }

    #[test]
    fn names_are_whole_words() {
        assert_eq!(ShippedModel::named(Path::new("cifar10-s")).unwrap().name, "cifar10-s");
        for other in ["cifar10", "./cifar10-s", "runs/cifar10-s", "cifar10-s.safetensors", ""] {
            assert!(ShippedModel::named(Path::new(other)).is_none(), "{other}");
        }
    }
}
