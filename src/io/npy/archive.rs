//! Archives of arrays.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::DeflateDecoder;
use rawzip::{
    CompressionMethod, RECOMMENDED_BUFFER_SIZE, RangeReader, ReaderAt, ZipArchive, ZipArchiveEntryWayfinder, ZipLocator,
};

use crate::error::{Error, Result};

use super::reader::Reader;
use super::source::{Origin, Source};

/// What zip files begin with.
const ZIP_MAGIC: &[u8] = b"PK";
/// Deflate cannot make more of a byte: 258 bytes of 2 bits.
const LARGEST_EXPANSION: u64 = 1032;

/// Opens the array of a `.npy` file, or in a `.npz` archive the array `name` or the only one; the content tells which of both it is.
///
/// # Errors
/// Those of [`Reader::open`] and [`Archive::array`]; [`Error::Data`] if the archive has several arrays and none of that name.
pub fn open(path: impl AsRef<Path>, name: &str) -> Result<Reader> {
    let path = path.as_ref();
    let (source, length) = Source::open(path)?;
    let source = Arc::new(source);
    let mut start = [0; ZIP_MAGIC.len()];
    let count = source.read_at(&mut start, 0).map_err(|error| Error::io("read", path, error))?;
    if start[..count] != *ZIP_MAGIC {
        return Reader::of_source(source, length, Origin::file(path));
    }
    let archive = Archive::of_source(source, length, Origin::file(path))?;
    match &archive.members[..] {
        [only] => archive.array(&only.name),
        _ => archive.array(name),
    }
}

/// The arrays of a `.npz` file.
pub struct Archive {
    zip: ZipArchive<Arc<Source>>,
    members: Vec<Member>,
    origin: Origin,
}

/// An array as the directory of the archive lists it.
struct Member {
    name: String,
    method: CompressionMethod,
    is_encrypted: bool,
    /// Bytes when decompressed.
    length: u64,
    checksum: u32,
    place: ZipArchiveEntryWayfinder,
}

impl Archive {
    /// Opens an archive and reads its directory. Members that are no arrays are left out.
    ///
    /// # Errors
    /// [`Error::Data`] if it is no zip archive, damaged, or has two arrays of a name; [`Error::Io`] if the system cannot read it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let (source, length) = Source::open(path.as_ref())?;
        Self::of_source(Arc::new(source), length, Origin::file(path.as_ref()))
    }

    /// Reads the content of a `.npz` file; `source_name` stands for its path in messages.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn from_bytes(bytes: Vec<u8>, source_name: &str) -> Result<Self> {
        let length = bytes.len() as u64;
        Self::of_source(Arc::new(Source::Bytes(bytes)), length, Origin::file(source_name))
    }

    fn of_source(source: Arc<Source>, length: u64, origin: Origin) -> Result<Self> {
        let wrong = |error: rawzip::Error| damaged(&origin, error);
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let zip = ZipLocator::new().locate_in_reader(source, &mut buffer, length).map_err(|(_, error)| wrong(error))?;
        let mut members: Vec<Member> = Vec::new();
        let mut entries = zip.entries(&mut buffer);
        while let Some(entry) = entries.next_entry().map_err(wrong)? {
            let file_name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
            let Some(name) = file_name.strip_suffix(".npy") else { continue };
            members.push(Member {
                name: name.to_owned(),
                method: entry.compression_method(),
                is_encrypted: entry.flags().is_encrypted(),
                length: entry.uncompressed_size_hint(),
                checksum: entry.crc32(),
                place: entry.wayfinder(),
            });
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(origin.error(format!("array `{}`", pair[0].name), "one array of a name", "two"));
        }
        Ok(Self { zip, members, origin })
    }

    /// The names of the arrays, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// True if there is an array `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|other| other == name)
    }

    /// Begins to read the array `name`.
    ///
    /// # Errors
    /// [`Error::Data`] if there is none, if it is compressed in another way than by deflate, encrypted, damaged, says that it is larger than
    /// its compressed bytes can be, or cannot be read (see [the module](super)); [`Error::Io`] if the system cannot read it.
    pub fn array(&self, name: &str) -> Result<Reader> {
        let Some(member) = self.members.iter().find(|member| member.name == name) else {
            let shown: Vec<String> = self.names().take(20).map(|name| format!("`{name}`")).collect();
            let got = if shown.is_empty() { "no array".to_owned() } else { shown.join(", ") };
            return Err(self.origin.error("arrays of the archive", format!("`{name}`"), got));
        };
        let origin = self.origin.member(name);
        if member.is_encrypted {
            return Err(origin.error("encryption", "an archive without", "an encrypted member"));
        }
        let entry = self.zip.get_entry(member.place).map_err(|error| damaged(&origin, error))?;
        let (begin, end) = entry.compressed_data_range();
        let compressed = end.saturating_sub(begin);
        let (largest, smallest) = match member.method {
            CompressionMethod::STORE => (compressed, compressed),
            CompressionMethod::DEFLATE => (compressed.saturating_mul(LARGEST_EXPANSION), 0),
            other => return Err(origin.error("compression", "none or deflate, as numpy.savez_compressed", other)),
        };
        if !(smallest..=largest).contains(&member.length) {
            let wanted = format!("at most {largest} bytes, as {compressed} stored ones can hold");
            return Err(origin.error("length", wanted, format!("{} bytes", member.length)));
        }
        let stored = BufReader::new(RangeReader::new(self.zip.get_ref().clone(), begin..end));
        let input: Box<dyn Read + Send> = match member.method {
            CompressionMethod::STORE => Box::new(stored),
            _ => Box::new(DeflateDecoder::new(stored)),
        };
        Reader::new(input, member.length, Some(member.checksum), origin)
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().collect();
        formatter.debug_struct("Archive").field("origin", &self.origin).field("names", &names).finish_non_exhaustive()
    }
}

/// The error of the archive's structure, or of the system.
fn damaged(origin: &Origin, error: rawzip::Error) -> Error {
    match error.into_kind() {
        rawzip::ErrorKind::IO(error) => origin.failed(error),
        kind => origin.error("not a whole zip archive", "a .npz file, as numpy.savez makes them", kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::data_file::tests::assert_data_error;
    use crate::io::npy::{Values, write_npz};
    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use rawzip::ZipArchiveWriter;
    use std::io::Write;

    fn array(values: usize) -> Vec<u8> {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({values},), }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &vec![7; values]].concat()
    }

    /// A zip archive of members, deflated where the method says so; the method alone may be wrong.
    fn archive(members: &[(&str, CompressionMethod, &[u8])]) -> Vec<u8> {
        let mut archive = ZipArchiveWriter::new(Vec::new());
        for (name, method, content) in members {
            let (mut entry, config) = archive.new_file(*name).compression_method(*method).start().unwrap();
            let descriptor = if *method == CompressionMethod::DEFLATE {
                let mut data = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
                data.write_all(content).unwrap();
                let (encoder, descriptor) = data.finish().unwrap();
                encoder.finish().unwrap();
                descriptor
            } else {
                let mut data = config.wrap(&mut entry);
                data.write_all(content).unwrap();
                data.finish().unwrap().1
            };
            entry.finish(descriptor).unwrap();
        }
        archive.finish().unwrap()
    }

    fn read(bytes: &[u8], name: &str) -> Result<Vec<u8>> {
        let mut array = Archive::from_bytes(bytes.to_vec(), "x.npz")?.array(name)?;
        let mut values = vec![0; array.shape().iter().product()];
        array.read_u8(&mut values)?;
        Ok(values)
    }

    const STORE: CompressionMethod = CompressionMethod::STORE;
    const DEFLATE: CompressionMethod = CompressionMethod::DEFLATE;

    #[test]
    fn members_are_found_by_name() {
        let bytes = archive(&[("y.npy", STORE, &array(2)), ("x.npy", DEFLATE, &array(70_000)), ("notes.txt", STORE, b"text")]);
        let opened = Archive::from_bytes(bytes.clone(), "x.npz").unwrap();
        assert_eq!(opened.names().collect::<Vec<_>>(), ["x", "y"]);
        assert!(opened.contains("y") && !opened.contains("notes"));
        assert_eq!(read(&bytes, "x").unwrap(), vec![7; 70_000]);
        assert_eq!(read(&bytes, "y").unwrap(), [7, 7]);
        assert_data_error(opened.array("z"), &["x.npz", "`z`", "got `x`, `y`"]);
        assert_data_error(Archive::from_bytes(archive(&[]), "x.npz").unwrap().array("z"), &["got no array"]);
    }

    #[test]
    fn open_takes_both_kinds_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any");
        std::fs::write(&path, array(3)).unwrap();
        assert_eq!(open(&path, "x").unwrap().shape(), [3]);
        std::fs::write(&path, archive(&[("images.npy", STORE, &array(4))])).unwrap();
        assert_eq!(open(&path, "x").unwrap().shape(), [4]);
        std::fs::write(&path, archive(&[("images.npy", STORE, &array(4)), ("x.npy", STORE, &array(5))])).unwrap();
        assert_eq!(open(&path, "x").unwrap().shape(), [5]);
        assert_data_error(open(&path, "y"), &["`y`", "got `images`, `x`"]);
        std::fs::write(&path, b"P").unwrap();
        assert_data_error(open(&path, "x"), &["cut off"]);
        assert_data_error(open(folder.path(), "x"), &["a folder"]);
    }

    #[test]
    fn archives_that_lie_are_refused() {
        let content = array(3);
        assert_data_error(
            read(&archive(&[("x.npy", STORE, &content), ("x.npy", STORE, &content)]), "x"),
            &["one array of a name"],
        );
        let zstd = archive(&[("x.npy", CompressionMethod::ZSTD, &content)]);
        assert_data_error(read(&zstd, "x"), &["array `x`: compression", "savez_compressed"]);
        // A member that says it is stored, and that its content is longer than what is there.
        let stored = archive(&[("x.npy", STORE, &content)]);
        let size = (content.len() as u32).to_le_bytes();
        let place = stored.windows(4).rposition(|window| window == size).unwrap();
        let mut longer = stored.clone();
        longer[place..place + 4].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        assert_data_error(read(&longer, "x"), &["array `x`: length", &(1_u32 << 30).to_string()]);
        let mut damaged = stored.clone();
        let value = damaged.windows(3).position(|window| window == [7; 3]).unwrap();
        damaged[value] = 8;
        assert_data_error(read(&damaged, "x"), &["array `x`: the content is damaged", "checksum"]);
        let header = archive(&[("x.npy", DEFLATE, b"no array")]);
        assert_data_error(read(&header, "x"), &["array `x`: format"]);
        assert_data_error(read(b"PK no archive", "x"), &["not a whole zip archive", "numpy.savez"]);
    }

    /// 20 MB that take 20 kB, of which the directory says that they become 2 GB.
    #[test]
    fn a_bomb_is_refused_by_its_size() {
        let content = array(20_000_000);
        let mut bytes = archive(&[("x.npy", DEFLATE, &content)]);
        assert!(bytes.len() < 30_000);
        assert_eq!(read(&bytes, "x").unwrap().len(), 20_000_000);
        let place = bytes.windows(4).rposition(|window| window == (content.len() as u32).to_le_bytes()).unwrap();
        bytes[place..place + 4].copy_from_slice(&(2_000_000_000_u32).to_le_bytes());
        assert_data_error(Archive::from_bytes(bytes, "x.npz").unwrap().array("x"), &["length", "2000000000 bytes"]);
    }

    #[test]
    fn damage_anywhere_is_no_panic() {
        let whole = archive(&[("x.npy", DEFLATE, &array(40)), ("y.npy", STORE, &array(5))]);
        for position in 0..whole.len() {
            let damaged =
                [0, 0xff, b'9', whole[position] ^ 1].map(|byte| [&whole[..position], &[byte], &whole[position + 1..]].concat());
            for bytes in damaged.into_iter().chain([whole[..position].to_vec()]) {
                for name in ["x", "y"] {
                    match read(&bytes, name) {
                        Ok(values) => assert!(values == vec![7; values.len()], "damage at {position} goes unnoticed"),
                        Err(error) => assert!(matches!(error, Error::Data { .. }), "{error}"),
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let b = Values::F32(&[1.0, -0.0, f32::MIN, 0.1]);
        let arrays = [
            ("b", &[2, 2][..], b),
            ("a", &[], Values::F32(&[3.0])),
            ("c", &[0, 5], Values::U8(&[])),
            ("d", &[2], Values::I64(&[-1, 1 << 40])),
        ];
        write_npz(&path, &arrays).unwrap();
        let archive = Archive::open(&path).unwrap();
        let read = |name: &str, count| {
            let mut values = vec![0.0; count];
            archive.array(name).unwrap().read_f32(&mut values).unwrap();
            values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(archive.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(read("b", 4), [1.0, -0.0, f32::MIN, 0.1].map(f32::to_bits));
        assert_eq!((read("a", 1), archive.array("c").unwrap().shape()), (vec![3.0_f32.to_bits()], &[0, 5][..]));
        let mut integers = [0; 2];
        archive.array("d").unwrap().read_i64(&mut integers).unwrap();
        assert_eq!(integers, [-1, 1 << 40]);
    }
}
