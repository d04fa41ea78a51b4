//! Writing a file so that readers, also after a crash, see the old content or the new, never a part.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
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
    let mut file = AtomicFile::create(path)?;
    chunks.into_iter().try_for_each(|chunk| file.write_all(chunk)).map_err(|error| Error::io("write", path, error))?;
    file.finish()
}

/// A file that is written part by part and takes its place when it is finished, as [`write()`] describes.
pub(crate) struct AtomicFile<'a> {
    partial: PartialFile,
    path: &'a Path,
    folder: &'a Path,
}

impl<'a> AtomicFile<'a> {
    /// Begins the file that is to be at `path`.
    pub(crate) fn create(path: &'a Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let partial = PartialFile::beside(path, folder).map_err(|error| Error::io("write", path, error))?;
        Ok(Self { partial, path, folder })
    }

    /// Synchronises the content with the disk and gives the file its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        let failed = |error| Error::io("write", self.path, error);
        self.partial.file.sync_all().map_err(failed)?;
        self.partial.rename(self.path).map_err(failed)?;
        synchronise_folder(self.folder).map_err(failed)
    }
}

impl Write for AtomicFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.partial.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.partial.file.flush()
    }
}

/// A file that is removed when it goes out of scope, also by a panic, unless it got its final name.
struct PartialFile {
    file: File,
    path: PathBuf,
    is_renamed: bool,
}

impl PartialFile {
    /// A new file beside `path` under a name that nobody uses: two writers never share one.
    fn beside(path: &Path, folder: &Path) -> std::io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for attempt in 0..1000 {
            let path = folder.join(format!(".{name}.{}.{attempt}.partial", std::process::id()));
            match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return created.map(|file| Self { file, path, is_renamed: false }),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn rename(&mut self, path: &Path) -> std::io::Result<()> {
        fs::rename(&self.path, path)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_renamed {
            // What failed is reported already; that the rest could not be removed either would not help anybody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the rename itself durable, where folders can be synchronised at all.
pub(crate) fn synchronise_folder(folder: &Path) -> std::io::Result<()> {
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
