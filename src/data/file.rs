//! Files of data sets: finding them, and reading them with bounded memory.
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};
use crate::io::data_file;

/// The largest file that a reader takes, and the largest content of a compressed one. The largest real one is CIFAR-100's
/// training part with 154 MB.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

/// The first of `names`, plain or with `.gz` appended, that exists in `dir` or in one of its `subfolders`.
///
/// `origin` says where such files come from; it is part of the error message.
pub(crate) fn find(dir: &Path, subfolders: &[&str], names: &[&str], origin: &str) -> Result<PathBuf> {
    let expected = || format!("{} (or .gz) of {origin}", names.join(" or "));
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(Error::data(dir, "not a folder", format!("the folder with {}", expected()), "a file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::data(dir, "no such folder", format!("the folder with {}", expected()), "a path where nothing is"));
        }
        Err(error) => return Err(Error::io("read", dir, error)),
    }
    let folders = std::iter::once(dir.to_path_buf()).chain(subfolders.iter().map(|subfolder| dir.join(subfolder)));
    for folder in folders {
        for name in names {
            for path in [folder.join(name), folder.join(format!("{name}.gz"))] {
                if path.exists() {
                    return Ok(path);
                }
            }
        }
    }
    let places = if subfolders.is_empty() { String::new() } else { format!(", here or in {}", subfolders.join(", ")) };
    Err(Error::data(dir, "a file is missing", format!("{}{places}", expected()), "a folder without it"))
}

/// The content of the file at `path`, decompressed if it is a gzip stream; file and content have at most [`MAX_BYTES`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = data_file::read(path, MAX_BYTES)?;
    if is_gzip(&bytes) { Gzip::new(&bytes, path).read_all(MAX_BYTES) } else { Ok(bytes) }
}

/// True if `bytes` start as gzip streams do (RFC 1952).
pub(crate) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The content of a gzip stream, decompressed on demand, so that a reader can stop at the size that it expects.
pub(crate) struct Gzip<'a> {
    decoder: MultiGzDecoder<&'a [u8]>,
    source: &'a Path,
    content: Vec<u8>,
}

impl<'a> Gzip<'a> {
    /// The gzip stream in `bytes`, which came from the file `source`.
    pub(crate) fn new(bytes: &'a [u8], source: &'a Path) -> Self {
        Self { decoder: MultiGzDecoder::new(bytes), source, content: Vec::new() }
    }

    /// Decompresses until there are `length` bytes or the stream ends, and gives all the bytes that there are.
    pub(crate) fn read_up_to(&mut self, length: u64) -> Result<&[u8]> {
        let missing = length.saturating_sub(self.content.len() as u64);
        self.decoder.by_ref().take(missing).read_to_end(&mut self.content).map_err(|error| {
            Error::data(
                self.source,
                "the gzip stream is damaged",
                "a complete gzip stream",
                format!("one that fails with: {error}"),
            )
        })?;
        Ok(&self.content)
    }

    /// All of the content.
    ///
    /// # Errors
    /// [`Error::Data`] if it is longer than `limit` bytes or damaged.
    pub(crate) fn read_all(mut self, limit: u64) -> Result<Vec<u8>> {
        if self.read_up_to(limit.saturating_add(1))?.len() as u64 > limit {
            return Err(Error::data(self.source, "the content is too large", format!("at most {limit} bytes"), "more"));
        }
        Ok(self.content)
    }

    /// The bytes that were decompressed so far.
    pub(crate) fn into_content(self) -> Vec<u8> {
        self.content
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    pub(crate) use crate::io::data_file::tests::assert_data_error;

    /// `content` as a gzip stream.
    pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn decompresses_no_more_than_asked() {
        let bytes = gzip(&vec![7; 100_000]);
        let source = Path::new("x.gz");
        let mut stream = Gzip::new(&bytes, source);
        assert_eq!(stream.read_up_to(10).unwrap(), [7; 10]);
        assert_eq!(stream.read_up_to(12).unwrap(), [7; 12]);
        assert_eq!(stream.into_content(), [7; 12]);
        assert_eq!(Gzip::new(&bytes, source).read_all(100_000).unwrap().len(), 100_000);
        assert_data_error(Gzip::new(&bytes, source).read_all(99_999), &["x.gz", "too large", "at most 99999 bytes"]);
        for length in 2..bytes.len() {
            assert_data_error(Gzip::new(&bytes[..length], source).read_all(100_000), &["gzip stream is damaged"]);
        }
    }

    #[test]
    fn finds_files_in_the_folder_or_below() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/a.bin.gz"), b"").unwrap();
        let look = |dir: &Path, name| find(dir, &["below"], &[name], "the A data set");
        assert_eq!(look(dir.path(), "a.bin").unwrap(), dir.path().join("below/a.bin.gz"));
        std::fs::write(dir.path().join("a.bin"), b"").unwrap();
        assert_eq!(look(dir.path(), "a.bin").unwrap(), dir.path().join("a.bin"));
        assert_data_error(look(dir.path(), "b.bin"), &["missing", "b.bin", "the A data set", "here or in below"]);
        assert_data_error(look(&dir.path().join("none"), "a.bin"), &["no such folder", "a.bin"]);
        assert_data_error(look(&dir.path().join("a.bin"), "a.bin"), &["not a folder"]);
    }
}
