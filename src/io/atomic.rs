//! Writing a file so that readers, also after a crash, see the old content or the new, never a part.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Replaces the file at `path` by `chunks`, one after the other.
///
/// The bytes go to a temporary file in the same folder, which is synchronised with the disk and renamed. On any error the
/// temporary file is removed and a file that was at `path` stays as it was.
///
/// # Errors
/// [`Error::Io`] with `path` if the folder does not exist or cannot be written, or the disk is full.
pub(crate) fn write<'a>(path: &Path, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    let failed = |error| Error::io("write", path, error);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut partial = PartialFile::create(folder).map_err(failed)?;
    for chunk in chunks {
        partial.file.write_all(chunk).map_err(failed)?;
    }
    partial.file.sync_all().map_err(failed)?;
    partial.rename(path).map_err(failed)?;
    synchronise_folder(folder).map_err(failed)
}

/// A temporary file, which is removed unless it gets another name. Nothing reads it, and a later run does not trip over one that a
/// killed process left.
struct PartialFile {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl PartialFile {
    fn create(folder: &Path) -> io::Result<Self> {
        let process = std::process::id();
        for number in 0_u64.. {
            let path = folder.join(format!(".{process}-{number}.partial"));
            match File::create_new(&path) {
                Ok(file) => return Ok(Self { path, file, renamed: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("fewer than 2^64 files fit into a folder")
    }

    fn rename(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here is the one to report; this file is harmless.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the rename itself durable, where folders can be synchronised at all.
fn synchronise_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_chunks_and_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write(&path, [&b"one "[..], b"two"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        write(&path, [&b"three"[..]]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn missing_folder_is_an_error_with_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let error = write(&folder.path().join("absent/model"), [&b"x"[..]]).unwrap_err();
        assert!(matches!(&error, Error::Io { action: "write", path, .. } if path.ends_with("absent/model")), "{error}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_left_over_temporary_file_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let left_over = format!(".{}-0.partial", std::process::id());
        fs::write(folder.path().join(&left_over), b"half").unwrap();
        write(&folder.path().join("model"), [&b"whole"[..]]).unwrap();
        assert_eq!(fs::read(folder.path().join("model")).unwrap(), b"whole");
        assert_eq!(names(folder.path()), [left_over.as_str(), "model"]);
    }

    #[test]
    fn failed_rename_leaves_the_target_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("occupied");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"kept").unwrap();
        assert!(matches!(write(&path, [&b"x"[..]]), Err(Error::Io { .. })));
        assert_eq!(names(folder.path()), ["occupied"]);
        assert_eq!(names(&path), ["inside"]);
    }

    #[test]
    fn a_panic_between_chunks_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write(&path, [&b"old"[..]]).unwrap();
        let chunks = (0..3).map(|i| if i < 2 { &b"new"[..] } else { panic!("the producer of the third chunk fails") });
        assert!(std::panic::catch_unwind(|| write(&path, chunks)).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["model"]);
    }
}
