//! The values of one array, part by part.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::Crc;
use rawzip::RangeReader;

use crate::error::{Error, Result};

use super::element::{ElementType, Layout};
use super::header::Header;
use super::source::{Origin, Source};

/// Bytes that are decoded at once.
const CHUNK_BYTES: usize = 1 << 16;

/// An array that is read part by part, in row-major order.
pub struct Reader {
    input: Box<dyn Read + Send>,
    /// The checksum of what was read so far, and what it has to become; files outside of archives have none.
    checksum: Option<(Crc, u32)>,
    layout: Layout,
    shape: Vec<usize>,
    /// Values that were not read yet.
    left: u64,
    origin: Origin,
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens a `.npy` file.
    ///
    /// # Errors
    /// [`Error::Data`] if it is another kind of file, damaged, longer or shorter than its header says, or an array that cannot be
    /// read (see [the module](super)); [`Error::Io`] if the system cannot read it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let (source, length) = Source::open(path.as_ref())?;
        Self::of_source(Arc::new(source), length, Origin::file(path.as_ref()))
    }

    /// Reads the content of a `.npy` file; `source_name` stands for its path in messages.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn from_bytes(bytes: Vec<u8>, source_name: &str) -> Result<Self> {
        let length = bytes.len() as u64;
        Self::of_source(Arc::new(Source::Bytes(bytes)), length, Origin::file(source_name))
    }

    pub(super) fn of_source(source: Arc<Source>, length: u64, origin: Origin) -> Result<Self> {
        Self::new(Box::new(BufReader::new(RangeReader::new(source, 0..length))), length, None, origin)
    }

    /// An array of `length` bytes with its header, whose checksum is `checksum`.
    pub(super) fn new(mut input: Box<dyn Read + Send>, length: u64, checksum: Option<u32>, origin: Origin) -> Result<Self> {
        let mut crc = Crc::new();
        let mut head = Head { input: &mut input, crc: &mut crc };
        let Header { layout, shape, values, .. } = Header::read(&mut head, length, &origin)?;
        let checksum = checksum.map(|expected| (crc, expected));
        let mut reader = Self { input, checksum, layout, shape, left: values, origin, buffer: Vec::new() };
        reader.check_end()?;
        Ok(reader)
    }

    /// The extents of the array.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of the values.
    pub fn element(&self) -> ElementType {
        self.layout.element
    }

    /// The file that the array comes from, as it was given.
    pub fn path(&self) -> &Path {
        self.origin.path()
    }

    /// The extents as images: number, channels, height, width. An array of three dimensions holds images of one channel.
    ///
    /// # Errors
    /// [`Error::Data`] if there are neither four nor three dimensions, or an image has no pixel.
    pub fn image_shape(&self) -> Result<[usize; 4]> {
        let shape = match self.shape[..] {
            [images, channels, height, width] => [images, channels, height, width],
            [images, height, width] => [images, 1, height, width],
            _ => return Err(self.wrong("shape of images", "[n, channels, height, width]", format!("{:?}", self.shape))),
        };
        if shape[1..].contains(&0) {
            return Err(self.wrong("shape of images", "images of at least one pixel", format!("{shape:?}")));
        }
        Ok(shape)
    }

    /// Fills `values` with the next values, which are bytes.
    ///
    /// # Errors
    /// [`Error::Data`] for another type of values, or if the content is damaged; [`Error::Shape`] if fewer values are left;
    /// [`Error::Io`] if the system cannot read.
    pub fn read_u8(&mut self, values: &mut [u8]) -> Result<()> {
        self.expect(self.element() == ElementType::Unsigned(8), "uint8")?;
        self.read_values(values, |_, bytes| Some(bytes[0]))
    }

    /// Fills `values` with the next values, which are floats; those of 64 bits are rounded to the nearest.
    ///
    /// # Errors
    /// Those of [`read_u8`](Self::read_u8).
    pub fn read_f32(&mut self, values: &mut [f32]) -> Result<()> {
        self.expect(self.element().is_float(), "float32 or float64")?;
        self.read_values(values, |layout, bytes| Some(layout.f32(bytes)))
    }

    /// Fills `values` with the next values, which are integers of any size.
    ///
    /// # Errors
    /// Those of [`read_u8`](Self::read_u8); [`Error::Data`] for values of 2^63 and more.
    pub fn read_i64(&mut self, values: &mut [i64]) -> Result<()> {
        self.expect(self.element().is_integer(), "integers")?;
        self.read_values(values, |layout, bytes| layout.integer(bytes).try_into().ok())
    }

    /// Fills `values` with the next values, which are text.
    ///
    /// # Errors
    /// Those of [`read_u8`](Self::read_u8); [`Error::Data`] for characters that do not exist.
    pub fn read_text(&mut self, values: &mut [String]) -> Result<()> {
        self.expect(matches!(self.element(), ElementType::Text(_)), "text")?;
        self.read_values(values, Layout::text)
    }

    /// An [`Error::Data`] about this array.
    pub(crate) fn wrong(&self, what: impl ToString, expected: impl ToString, got: impl ToString) -> Error {
        self.origin.error(what, expected, got)
    }

    fn expect(&self, fits: bool, wanted: &str) -> Result<()> {
        if fits { Ok(()) } else { Err(self.wrong("type of the values", wanted, self.element())) }
    }

    fn read_values<T>(&mut self, values: &mut [T], decode: impl Fn(Layout, &[u8]) -> Option<T>) -> Result<()> {
        if values.len() as u64 > self.left {
            return Err(Error::shape(
                "part of an array",
                format!("at most the {} values that are left", self.left),
                values.len(),
            ));
        }
        let size = self.layout.bytes();
        let mut buffer = std::mem::take(&mut self.buffer);
        for values in values.chunks_mut((CHUNK_BYTES / size).max(1)) {
            buffer.resize(values.len() * size, 0);
            self.input.read_exact(&mut buffer).map_err(|error| self.origin.failed(error))?;
            if let Some((crc, _)) = &mut self.checksum {
                crc.update(&buffer);
            }
            for (value, bytes) in values.iter_mut().zip(buffer.chunks_exact(size)) {
                let wrong =
                    || self.origin.error("value", format!("one of {}", self.layout.element), format!("the bytes {bytes:?}"));
                *value = decode(self.layout, bytes).ok_or_else(wrong)?;
            }
            self.left -= values.len() as u64;
        }
        self.buffer = buffer;
        self.check_end()
    }

    /// Once all values are read: nothing follows, and the checksum is right.
    fn check_end(&mut self) -> Result<()> {
        if self.left > 0 {
            return Ok(());
        }
        if self.input.read(&mut [0]).map_err(|error| self.origin.failed(error))? > 0 {
            return Err(self.wrong("the content goes on", "the end of the array", "more bytes"));
        }
        match &self.checksum {
            Some((crc, expected)) if crc.sum() != *expected => {
                Err(self.wrong("the content is damaged", format!("the checksum {expected:08x}"), format!("{:08x}", crc.sum())))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reader")
            .field("origin", &self.origin)
            .field("layout", &self.layout)
            .field("shape", &self.shape)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Passes the header through the checksum.
struct Head<'a> {
    input: &'a mut dyn Read,
    crc: &'a mut Crc,
}

impl Read for Head<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.crc.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::data_file::tests::assert_data_error;

    fn file(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn open(bytes: &[u8]) -> Result<Reader> {
        Reader::from_bytes(bytes.to_vec(), "x.npy")
    }

    #[test]
    fn arrays_are_read_in_parts() {
        let data: Vec<u8> = (0..40_000).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let bytes = file("<f4", "(2, 4, 5000)", &data);
        let mut reader = open(&bytes).unwrap();
        assert_eq!((reader.shape(), reader.element().to_string().as_str()), (&[2, 4, 5000][..], "float32"));
        assert_eq!(reader.image_shape().unwrap(), [2, 1, 4, 5000]);
        let mut values = vec![0.0; 30_000];
        reader.read_f32(&mut values).unwrap();
        assert_eq!([values[0], values[29_999]], [0.0, 29_999.0]);
        assert!(matches!(reader.read_f32(&mut values), Err(Error::Shape { .. })));
        reader.read_f32(&mut values[..10_000]).unwrap();
        assert_eq!(values[9_999], 39_999.0);
        reader.read_f32(&mut []).unwrap();
    }

    #[test]
    fn types_are_asked_for() {
        let integers = file(">i2", "(2,)", &[0, 1, 0xff, 0xff]);
        let mut values = [0; 2];
        open(&integers).unwrap().read_i64(&mut values).unwrap();
        assert_eq!(values, [1, -1]);
        assert_data_error(open(&integers).unwrap().read_f32(&mut [0.0]), &["x.npy: type", "float32 or float64", "got int16"]);
        assert_data_error(open(&integers).unwrap().read_u8(&mut [0]), &["uint8, got int16"]);
        assert_data_error(open(&integers).unwrap().read_text(&mut [String::new()]), &["text, got int16"]);
        let large = file("<u8", "(1,)", &[0xff; 8]);
        assert_data_error(open(&large).unwrap().read_i64(&mut values[..1]), &["value", "uint64"]);
        assert_data_error(open(&file("<f4", "(1,)", &[0; 4])).unwrap().read_i64(&mut values[..1]), &["integers, got float32"]);
        assert_data_error(open(&file("<f4", "(1,)", &[0; 4])).unwrap().image_shape(), &["[n, channels, height, width]", "[1]"]);
        assert_data_error(open(&file("<f4", "(2, 0, 1, 1)", &[])).unwrap().image_shape(), &["at least one pixel"]);
    }

    /// Any byte changed, or the file cut anywhere: an array or an error of the right kind.
    #[test]
    fn damage_anywhere_is_no_panic() {
        let whole = file("<f4", "(2, 1, 1, 3)", &[0; 24]);
        let check = |bytes: &[u8]| {
            let read = open(bytes).and_then(|mut reader| {
                let count: usize = reader.shape().iter().product();
                assert!(count <= bytes.len());
                reader.read_f32(&mut vec![0.0; count])
            });
            if let Err(error) = read {
                assert!(matches!(error, Error::Data { .. }) && error.to_string().contains("; expected "), "{error}");
            }
        };
        for position in 0..whole.len() {
            check(&whole[..position]);
            for byte in [0, 0xff, b'9', b'(', b'\'', b',', b'L', b'}', whole[position] ^ 1] {
                check(&[&whole[..position], &[byte], &whole[position + 1..]].concat());
            }
        }
    }

    #[test]
    fn files_are_opened_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        assert!(matches!(Reader::open(&path), Err(Error::Io { .. })));
        assert_data_error(Reader::open(folder.path()), &["not a regular file"]);
        std::fs::write(&path, file("|u1", "(3,)", &[1, 2, 3])).unwrap();
        let mut values = [0; 3];
        Reader::open(&path).unwrap().read_u8(&mut values).unwrap();
        assert_eq!(values, [1, 2, 3]);
        std::fs::write(&path, file("|u1", "(100000,)", &vec![1; 100_000])).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(50_000).unwrap();
        assert_data_error(reader.read_u8(&mut vec![0; 100_000]), &["cut off"]);
    }
}
