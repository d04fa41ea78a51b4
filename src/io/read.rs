//! Reading a whole file that may be anything.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Model`] if it is a folder, pipe or device, or too large.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", path, error);
    let refused = |expected: String, got: String| Err(Error::model(path.display(), "file", expected, got));
    // Asked before opening, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return refused("a regular file".to_owned(), "a folder, pipe or device".to_owned());
    }
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > limit {
        return refused(format!("at most {limit} bytes"), format!("{size} bytes"));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size as usize).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
    // The file may grow meanwhile.
    file.take(size).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read_file(&path, 100).unwrap(), [7; 100]);
        let error = read_file(&path, 99).unwrap_err().to_string();
        assert!(error.ends_with("file; expected at most 99 bytes, got 100 bytes"), "{error}");
        assert!(matches!(read_file(folder.path(), 100), Err(Error::Model { .. })));
        assert!(matches!(read_file(&folder.path().join("absent"), 100), Err(Error::Io { action: "read", .. })));
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_refused_at_once() {
        let error = read_file(Path::new("/dev/zero"), 100).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero: file; expected a regular file, got a folder, pipe or device");
    }
}
