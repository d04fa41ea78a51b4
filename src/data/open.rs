//! Data sets by name, as configuration files and the command line ask for them.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::cifar::Cifar;
use super::idx::Idx;
use super::{Augmentation, Dataset, InMemory, Split, Synthetic, npz, stl10};

const SYNTHETIC: &str = "synthetic";
const FOLDER: &str = "folder";
/// Those that are read from files.
const FILES: [&str; 7] = ["cifar10", "cifar100", "mnist", "fashion-mnist", "stl10", FOLDER, "npz"];

/// The table `[data]` of a configuration file: which data, and what training does with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DataConfig {
    /// `synthetic`, `cifar10`, `cifar100`, `mnist`, `fashion-mnist`, `stl10`, `folder` (of pictures) or `npz` (arrays of NumPy).
    pub name: String,
    /// The folder with the files; for `npz` it may be one file; none for `synthetic`.
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
/// [`Error::Invalid`] if the name is unknown, the folder is missing where files are needed or given where none are, or the data set has no
/// size of its own (`folder`: see [`open_for`]); the errors of the reader.
pub fn open(config: &DataConfig, split: Split) -> Result<Box<dyn Dataset>> {
    open_sized(config, split, None)
}

/// [`open`] for a network that reads `input`: channels, height, width. The pictures of a `folder` are brought to that size, with
/// `resize` as [`Preprocess::resize`](crate::net::Preprocess::resize) says; all other data sets have their own.
///
/// # Errors
/// Those of [`open`]; [`Error::Invalid`] for a `folder` in a build without the feature `image`.
pub fn open_for(config: &DataConfig, split: Split, input: [usize; 3], resize: Option<usize>) -> Result<Box<dyn Dataset>> {
    open_sized(config, split, Some((input, resize)))
}

fn open_sized(config: &DataConfig, split: Split, size: Option<([usize; 3], Option<usize>)>) -> Result<Box<dyn Dataset>> {
    let name = config.name.as_str();
    if name != SYNTHETIC && !FILES.contains(&name) {
        let known = format!("one of {SYNTHETIC}, {}", FILES.join(", "));
        return Err(Error::invalid("unknown data set (data.name)", known, format!("`{name}`")));
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
        "fashion-mnist" => Idx::FashionMnist.open(dir, split)?,
        "stl10" => stl10::open(dir, split)?,
        FOLDER => open_folder(dir, split, size)?,
        _ => npz::open(dir, split)?,
    }))
}

#[cfg(feature = "image")]
fn open_folder(dir: &Path, split: Split, size: Option<([usize; 3], Option<usize>)>) -> Result<InMemory> {
    let wanted = "the input of the network that its pictures are brought to (data::open_for)";
    let (input, resize) = size.ok_or_else(|| Error::invalid("data set folder", wanted, "none"))?;
    super::folder::open(dir, split, input, resize)
}

#[cfg(not(feature = "image"))]
fn open_folder(_: &Path, _: Split, _: Option<([usize; 3], Option<usize>)>) -> Result<InMemory> {
    Err(Error::invalid("data set folder", "a build with the feature `image`", "one without"))
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
        let known = "expected one of synthetic, cifar10, cifar100, mnist, fashion-mnist, stl10, folder, npz, got";
        for name in ["imagenet", "", "NPZ"] {
            let error = error(&DataConfig::default().with_name(name));
            assert!(matches!(error, Error::Invalid { .. }));
            let message = error.to_string();
            assert!(
                message.starts_with("unknown data set") && message.contains(known) && message.ends_with(&format!("`{name}`")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_folder_is_needed_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in FILES {
            let config = DataConfig::default().with_name(name);
            assert!(matches!(error(&config), Error::Invalid { .. }));
            let error = open_for(&config.with_dir(dir.path()), Split::Test, [3, 8, 8], None).err().expect("an error");
            assert!(matches!(error, Error::Data { .. }), "{name}: {error}");
        }
        let error = error(&DataConfig::default().with_dir(dir.path()));
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("cifar10"), "{error}");
    }

    #[test]
    fn a_folder_of_pictures_needs_a_size() {
        let error = error(&DataConfig::default().with_name(FOLDER).with_dir("absent"));
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("data::open_for"), "{error}");
    }
}
