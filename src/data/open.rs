//! Data sets by name, as configuration files and the command line ask for them.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::cifar::Cifar;
use super::idx::Idx;
use super::{Augmentation, Dataset, Split, Synthetic};

const SYNTHETIC: &str = "synthetic";
/// Those that are read from files.
const FILES: [&str; 4] = ["cifar10", "cifar100", "mnist", "fashion-mnist"];
/// Those that the configuration names but this version cannot read.
const LATER: [&str; 3] = ["stl10", "folder", "npz"];

/// The table `[data]` of a configuration file: which data, and what training does with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DataConfig {
    /// `synthetic`, `cifar10`, `cifar100`, `mnist` or `fashion-mnist`.
    pub name: String,
    /// The folder with the files; none for `synthetic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// How many images of the training part are held out for validation.
    pub validation: usize,
    /// Random changes to the training images. Crop by 4 and flip if the table does not say; what it leaves out is off, or as
    /// the recipe of the preset has it.
    pub augment: Augmentation,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            name: SYNTHETIC.to_string(),
            dir: None,
            validation: 0,
            augment: Augmentation::default().with_crop(4).with_flip(true),
        }
    }
}

impl DataConfig {
    /// Takes the data set `name`.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Reads files of the folder `dir`.
    #[must_use]
    pub fn with_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Holds out `validation` images of the training part.
    #[must_use]
    pub fn with_validation(mut self, validation: usize) -> Self {
        self.validation = validation;
        self
    }

    /// Changes the training images by `augment`.
    #[must_use]
    pub fn with_augment(mut self, augment: Augmentation) -> Self {
        self.augment = augment;
        self
    }
}

/// One part of the data set that `config` names. The training part is whole: [`super::split_validation`] holds images out.
///
/// # Errors
/// [`Error::Invalid`] if the name is unknown or not supported yet, or the folder is missing where files are needed or given
/// where none are; the errors of the reader.
pub fn open(config: &DataConfig, split: Split) -> Result<Box<dyn Dataset>> {
    let name = config.name.as_str();
    let known = || format!("one of {SYNTHETIC}, {}", FILES.join(", "));
    if LATER.contains(&name) {
        return Err(Error::invalid("data set (data.name) that is not supported yet", known(), format!("`{name}`")));
    }
    if name != SYNTHETIC && !FILES.contains(&name) {
        return Err(Error::invalid("unknown data set (data.name)", known(), format!("`{name}`")));
    }
    let dir = match (&config.dir, name == SYNTHETIC) {
        (None, true) => return Ok(Box::new(Synthetic::standard(split))),
        (Some(dir), true) => {
            let expected = format!("a data set that has one (data.name = {})", FILES.join(", "));
            return Err(Error::invalid(
                "folder of the data (data.dir)",
                expected,
                format!("`{}` for {SYNTHETIC}", dir.display()),
            ));
        }
        (None, false) => return Err(Error::invalid(format!("data set {name}"), "the folder with its files (data.dir)", "none")),
        (Some(dir), false) => dir,
    };
    Ok(Box::new(match name {
        "cifar10" => Cifar::Cifar10.open(dir, split)?,
        "cifar100" => Cifar::Cifar100.open(dir, split)?,
        "mnist" => Idx::Mnist.open(dir, split)?,
        _ => Idx::FashionMnist.open(dir, split)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(config: &DataConfig) -> Error {
        open(config, Split::Test).err().expect("an error")
    }

    #[test]
    fn the_table_has_exactly_these_keys() {
        let text = toml::to_string(&DataConfig::default().with_dir("DIR")).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table.keys().collect::<Vec<_>>(), ["augment", "dir", "name", "validation"]);
        let table = table["augment"].as_table().unwrap().clone();
        assert_eq!(table.keys().collect::<Vec<_>>(), ["crop", "cutout", "flip", "mixup"]);
        assert_eq!(toml::from_str::<DataConfig>(&text).unwrap(), DataConfig::default().with_dir("DIR"));
        assert_eq!(toml::from_str::<DataConfig>("").unwrap(), DataConfig::default());
        assert!(toml::from_str::<DataConfig>("folder = 'x'").unwrap_err().to_string().contains("folder"));
    }

    #[test]
    fn what_an_augment_table_leaves_out_is_off() {
        let config: DataConfig = toml::from_str("augment = { crop = 2 }").unwrap();
        assert_eq!(config, DataConfig::default().with_augment(Augmentation::default().with_crop(2)));
    }

    #[test]
    fn the_default_needs_no_files() {
        let test = open(&DataConfig::default(), Split::Test).unwrap();
        assert_eq!((test.len(), test.shape(), test.class_names().len()), (2000, [3, 32, 32], 10));
        assert_eq!(open(&DataConfig::default(), Split::Train).unwrap().len(), 8000);
    }

    #[test]
    fn names_are_explained() {
        let known = "expected one of synthetic, cifar10, cifar100, mnist, fashion-mnist, got";
        for (name, word) in
            [("imagenet", "unknown data set"), ("", "unknown"), ("stl10", "not supported yet"), ("npz", "not supported yet")]
        {
            let error = error(&DataConfig::default().with_name(name));
            assert!(matches!(error, Error::Invalid { .. }));
            let message = error.to_string();
            assert!(message.contains(word) && message.contains(known) && message.ends_with(&format!("`{name}`")), "{message}");
        }
    }

    #[test]
    fn a_folder_is_needed_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in FILES {
            let config = DataConfig::default().with_name(name);
            assert!(matches!(error(&config), Error::Invalid { .. }));
            assert!(matches!(error(&config.with_dir(dir.path())), Error::Data { .. }));
        }
        let error = error(&DataConfig::default().with_dir(dir.path()));
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("cifar10"), "{error}");
    }
}
