//! Files of data, which may be anything: opened and read with bounds.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Opens the regular file at `path`; gives its length in bytes as well.
///
/// Devices, pipes and folders are refused, as is a file of more than `limit` bytes, before anything is read.
///
/// # Errors
/// [`Error::Data`] for what is refused, [`Error::Io`] if the system cannot open it.
pub(crate) fn open(path: &Path, limit: u64) -> Result<(File, u64)> {
    // Asked before opening as well, because opening a pipe waits for its other end.
    check(path, &std::fs::metadata(path).map_err(|error| Error::io("read", path, error))?, limit)?;
    let file = File::open(path).map_err(|error| Error::io("read", path, error))?;
    let metadata = file.metadata().map_err(|error| Error::io("read", path, error))?;
    check(path, &metadata, limit)?;
    Ok((file, metadata.len()))
}

/// The bytes of the regular file at `path`, of at most `limit` bytes.
///
/// # Errors
/// Those of [`open`]; [`Error::Data`] if the file grows or shrinks while it is read.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = open(path, limit)?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length as usize + 1)
        .map_err(|_| Error::data(path, "not enough memory to read the file", "a smaller file", size(length)))?;
    file.take(length + 1).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 != length {
        return Err(Error::data(path, "the file changed while it was read", size(length), size(bytes.len() as u64)));
    }
    Ok(bytes)
}

fn check(path: &Path, metadata: &Metadata, limit: u64) -> Result<()> {
    if !metadata.is_file() {
        let got = if metadata.is_dir() { "a folder" } else { "a device, pipe or socket" };
        return Err(Error::data(path, "not a regular file", "a regular file", got));
    }
    if metadata.len() > limit {
        return Err(Error::data(path, "the file is too large", format!("at most {limit} bytes"), size(metadata.len())));
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    format!("{bytes} bytes")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Asserts that `result` is [`Error::Data`] and that its message has all of `words`.
    pub(crate) fn assert_data_error<T>(result: Result<T>, words: &[&str]) {
        let error = result.err().expect("an error");
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
        }
    }

    #[test]
    fn reads_regular_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        assert_eq!(read(&path, 7).unwrap(), b"content");
        assert_data_error(read(&path, 6), &["too large", "at most 6 bytes", "7 bytes"]);
        assert_data_error(read(dir.path(), 7), &["not a regular file", "a folder"]);
        assert!(matches!(read(&dir.path().join("none"), 7), Err(Error::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn never_waits_for_a_device_or_a_pipe() {
        assert_data_error(read(Path::new("/dev/zero"), 7), &["not a regular file", "device"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        if std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()) {
            assert_data_error(read(&path, 7), &["not a regular file", "pipe"]);
        }
    }

    /// Files of the system say that they hold 0 bytes and then give more.
    #[cfg(target_os = "linux")]
    #[test]
    fn notices_a_file_that_grows() {
        assert_data_error(read(Path::new("/proc/self/status"), 7), &["changed while it was read", "0 bytes", "1 bytes"]);
    }

    #[test]
    fn refuses_a_large_sparse_file_before_reading() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 30).unwrap();
        assert_data_error(read(file.path(), (1 << 30) - 1), &["too large"]);
    }
}
