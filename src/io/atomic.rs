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
    let failed = |error| Error::io("write", path, error);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (temporary, mut file) = create_beside(path, folder).map_err(failed)?;
    let written = chunks.into_iter().try_for_each(|chunk| file.write_all(chunk)).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // What failed is reported; that the rest could not be removed either would not help anybody.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    synchronise_folder(folder).map_err(failed)
}

/// A new file beside `path` under a name that nobody uses: two writers never share one.
fn create_beside(path: &Path, folder: &Path) -> std::io::Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for attempt in 0..1000 {
        let temporary = folder.join(format!(".{name}.{}.{attempt}.partial", std::process::id()));
        match File::create_new(&temporary) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (temporary, file)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Makes the rename itself durable, where folders can be synchronised at all.
fn synchronise_folder(folder: &Path) -> std::io::Result<()> {
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
