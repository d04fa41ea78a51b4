//! Where arrays come from, and how messages name it.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use rawzip::{FileReader, ReaderAt};

use crate::error::{Error, Result};
use crate::io::data_file;

/// A file, or its content in memory, that several readers share.
pub(super) enum Source {
    File(FileReader),
    Bytes(Vec<u8>),
}

impl Source {
    /// The regular file at `path`, and its length in bytes.
    pub(super) fn open(path: &Path) -> Result<(Self, u64)> {
        // What is read stays in a buffer of fixed size: a file may have any length.
        let (file, length) = data_file::open(path, u64::MAX)?;
        Ok((Self::File(file.into()), length))
    }
}

impl ReaderAt for Source {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Source::File(file) => file.read_at(buffer, offset),
            Source::Bytes(bytes) => bytes.read_at(buffer, offset),
        }
    }
}

/// The name of an array in messages: the file, and the name in its archive.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    path: PathBuf,
    member: Option<String>,
}

impl Origin {
    /// A file as a whole.
    pub(super) fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), member: None }
    }

    /// An array of an archive.
    pub(super) fn member(&self, name: &str) -> Self {
        Self { path: self.path.clone(), member: Some(name.to_owned()) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers hand over what they have: literals, numbers, formatted text")]
    pub(super) fn error(&self, what: impl ToString, expected: impl ToString, got: impl ToString) -> Error {
        let what = what.to_string();
        let what = self.member.as_ref().map_or(what.clone(), |name| format!("array `{name}`: {what}"));
        Error::data(&self.path, what, expected, got)
    }

    /// The error of a read that failed: by the content, or by the system.
    pub(super) fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.error("the content is cut off", "a whole array", "fewer bytes"),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                self.error("the content is damaged", "a stream that can be decompressed", error)
            }
            _ => Error::io("read", &self.path, error),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
