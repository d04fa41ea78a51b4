//! The files of a training run.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder of one training run and the names of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes a new folder, and those above it where they are missing.
    ///
    /// # Errors
    /// [`Error::Exists`] if anything is there already, [`Error::Io`] if it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;
        }
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists { path }),
            Err(error) => Err(Error::io("create", &path, error)),
        }
    }

    /// The folder of an earlier run.
    ///
    /// # Errors
    /// [`Error::Io`] if it does not exist or is no folder.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self { path }),
            Ok(_) => Err(Error::io("read", &path, std::io::ErrorKind::NotADirectory.into())),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole configuration of the run.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// One line of results per epoch: [`super::EpochMetrics`].
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// One line of times per epoch: [`super::EpochTiming`].
    pub fn timing(&self) -> PathBuf {
        self.path.join("timing.jsonl")
    }

    /// The model at the end of the run.
    pub fn last_model(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// The model that was best on the validation set; absent without one.
    pub fn best_model(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The file that holds the model of this run: the best one, else the last one, else the last checkpoint; nothing if there is none yet.
    pub fn model(&self) -> Option<PathBuf> {
        [self.best_model(), self.last_model(), self.last_checkpoint()].into_iter().find(|path| path.exists())
    }

    /// The newest state of the whole training.
    pub fn last_checkpoint(&self) -> PathBuf {
        self.path.join("last.ckpt")
    }

    /// The state before [`last_checkpoint`](Self::last_checkpoint).
    pub fn previous_checkpoint(&self) -> PathBuf {
        self.path.join("previous.ckpt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("runs/small-synthetic-1");
        assert!(matches!(RunFolder::open(&path), Err(Error::Io { .. })));
        let folder = RunFolder::create(&path).unwrap();
        assert!(matches!(RunFolder::create(&path), Err(Error::Exists { .. })));
        assert_eq!(RunFolder::open(&path).unwrap(), folder);
        assert_eq!(folder.last_checkpoint(), path.join("last.ckpt"));
        assert_eq!(folder.model(), None);
        for file in [folder.last_checkpoint(), folder.last_model(), folder.best_model()] {
            std::fs::write(&file, "").unwrap();
            assert_eq!(folder.model(), Some(file));
        }
        std::fs::write(folder.config(), "").unwrap();
        assert!(matches!(RunFolder::open(folder.config()), Err(Error::Io { .. })));
    }
}
