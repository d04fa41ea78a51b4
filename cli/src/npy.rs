//! NumPy's array files, row-major: 32-bit floats are read, and written with whatever else models hold.
//!
//! Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, expected};
use crate::whole_file::WholeFile;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy aligns the data to this, and so do we.
const ALIGNMENT: usize = 64;
/// The longest header that is read, bytes; those of plain arrays have about a hundred.
const LONGEST_HEADER: usize = 10_000;

/// An array file of images (four dimensions) or logits (two) that is read part by part.
#[derive(Debug)]
pub struct Reader<const RANK: usize = 4> {
    path: PathBuf,
    file: BufReader<File>,
    shape: [usize; RANK],
}

impl<const RANK: usize> Reader<RANK> {
    /// Opens a file with an array of so many dimensions.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let io = |error| Failure::io("read", path, &error);
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::new(file);
        let (header, data_start) = read_header(&mut file).map_err(|fault| wrong(path, &fault))?;
        let shape = parse_header(&header).map_err(|fault| wrong(path, &fault))?;
        let values = shape.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent as u64));
        let bytes = values.and_then(|values| values.checked_mul(4)).and_then(|bytes| bytes.checked_add(data_start));
        if bytes != Some(length) {
            let wanted = bytes.map_or("fewer values".to_owned(), |bytes| format!("{bytes} bytes, as its header says"));
            return Err(wrong(path, &Fault { what: "length", wanted, got: format!("{length} bytes") }));
        }
        Ok(Self { path: path.to_owned(), file, shape })
    }

    /// The extents of the array.
    pub fn shape(&self) -> [usize; RANK] {
        self.shape
    }

    /// Fills `values` with the next values of the file.
    pub fn read(&mut self, values: &mut [f32]) -> Result<(), Failure> {
        let mut bytes = [0; 4];
        for value in values {
            self.file.read_exact(&mut bytes).map_err(|error| Failure::io("read", &self.path, &error))?;
            *value = f32::from_le_bytes(bytes);
        }
        Ok(())
    }
}

/// What is wrong with a file.
struct Fault {
    what: &'static str,
    wanted: String,
    got: String,
}

fn fault(what: &'static str, wanted: &str, got: impl Into<String>) -> Fault {
    Fault { what, wanted: wanted.to_owned(), got: got.into() }
}

fn wrong(path: &Path, fault: &Fault) -> Failure {
    let message = expected(format!("{}: {}", path.display(), fault.what), &fault.wanted, &fault.got);
    Failure::data(
        message,
        "in Python: numpy.save('x.npy', numpy.ascontiguousarray(x, dtype='<f4')) with images [n, c, h, w] or logits [n, classes]",
    )
}

/// The text of the header, and where the data begins.
fn read_header(file: &mut impl Read) -> Result<(String, u64), Fault> {
    let short = |_| fault("header", "a whole .npy file", "fewer bytes");
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(short)?;
    if &start[..6] != MAGIC {
        return Err(fault("format", "a .npy file", "other bytes at its start"));
    }
    let mut length = [0; 4];
    let bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(fault("version of the format", "1, 2 or 3", version.to_string())),
    };
    file.read_exact(&mut length[..bytes]).map_err(short)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_HEADER {
        return Err(fault("header", "at most 10000 bytes", length.to_string()));
    }
    let mut header = vec![0; length];
    file.read_exact(&mut header).map_err(short)?;
    let header = String::from_utf8(header).map_err(|_| fault("header", "text", "bytes that are no UTF-8"))?;
    Ok((header, (8 + bytes + length) as u64))
}

/// The shape in a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 32, 32), }`.
fn parse_header<const RANK: usize>(header: &str) -> Result<[usize; RANK], Fault> {
    let value = |key: &'static str| {
        let (_, rest) = header.split_once(&format!("'{key}':")).ok_or_else(|| fault("header", key, "none"))?;
        Ok(rest.trim_start())
    };
    let descr = value("descr")?;
    if !descr.starts_with("'<f4'") {
        let got = descr.split([',', '}']).next().unwrap_or_default();
        return Err(fault("type of the values", "'<f4' (float32, little-endian)", got.chars().take(40).collect::<String>()));
    }
    if !value("fortran_order")?.starts_with("False") {
        return Err(fault("order of the values", "row-major ('fortran_order': False)", "another"));
    }
    let shape = value("shape")?;
    let wanted = if RANK == 4 { "four extents: images, channels, height, width" } else { "two extents: images, classes" };
    let inside = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(inside, _)| inside);
    let inside = inside.ok_or_else(|| fault("shape", wanted, "none"))?;
    let extents: Option<Vec<usize>> =
        inside.trim().trim_end_matches(',').split(',').map(|extent| extent.trim().parse().ok()).collect();
    extents
        .and_then(|extents| extents.try_into().ok())
        .ok_or_else(|| fault("shape", wanted, format!("({})", inside.chars().take(80).collect::<String>())))
}

/// What comes before the values of an array: `descr` is NumPy's word for their type.
pub fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let extents: String = match shape {
        [extent] => format!("{extent},"),
        extents => extents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    let used = MAGIC.len() + 4 + text.len() + 1;
    text.push_str(&" ".repeat(used.next_multiple_of(ALIGNMENT) - used));
    text.push('\n');
    [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
}

/// An array file that is written part by part, and appears when it is finished.
pub struct Writer {
    file: WholeFile,
}

impl Writer {
    /// Begins a file with an array of `rows` x `columns`.
    pub fn create(path: &Path, [rows, columns]: [usize; 2]) -> Result<Self, Failure> {
        let mut file = WholeFile::create(path)?;
        file.write(&header("<f4", &[rows, columns]))?;
        Ok(Self { file })
    }

    /// Appends values.
    pub fn write(&mut self, values: &[f32]) -> Result<(), Failure> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write(&bytes)
    }

    /// Gives the file its name.
    pub fn finish(self) -> Result<(), Failure> {
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), &vec![0; data]].concat()
    }

    fn open(bytes: &[u8]) -> Result<Reader, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        std::fs::write(&path, bytes).unwrap();
        Reader::open(&path)
    }

    #[test]
    fn arrays_are_read_in_parts() {
        let mut bytes = file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 1, 3), }\n", 0);
        bytes.extend((0..6_u8).flat_map(|value| f32::from(value).to_le_bytes()));
        let mut reader = open(&bytes).unwrap();
        assert_eq!(reader.shape(), [2, 1, 1, 3]);
        let mut values = [0.0; 4];
        reader.read(&mut values).unwrap();
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0]);
        reader.read(&mut values[..2]).unwrap();
        assert_eq!(values[..2], [4.0, 5.0]);
    }

    #[test]
    fn written_arrays_have_numpys_layout() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y.npy");
        let mut writer = Writer::create(&path, [2, 2]).unwrap();
        writer.write(&[1.0, 2.0]).unwrap();
        assert!(!path.exists());
        writer.write(&[3.0, 4.0]).unwrap();
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        assert_eq!((bytes[..8].to_vec(), (10 + length) % ALIGNMENT), (b"\x93NUMPY\x01\x00".to_vec(), 0));
        let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }") && header.ends_with('\n'));
        assert_eq!(bytes[10 + length..], [1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat());
    }

    #[test]
    fn headers_have_shapes_of_any_rank() {
        let of = |shape: &[usize]| {
            let bytes = header("<i8", shape);
            assert_eq!(bytes.len() % ALIGNMENT, 0);
            String::from_utf8(bytes[10..].to_vec()).unwrap()
        };
        assert!(of(&[]).starts_with("{'descr': '<i8', 'fortran_order': False, 'shape': (), }"));
        assert!(of(&[7]).contains("'shape': (7,), }"));
        assert!(of(&[4, 1, 3, 3]).contains("'shape': (4, 1, 3, 3), }"));
    }

    #[test]
    fn logits_have_two_extents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y.npy");
        std::fs::write(&path, file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24)).unwrap();
        assert_eq!(Reader::<2>::open(&path).unwrap().shape(), [2, 3]);
        assert!(Reader::<4>::open(&path).unwrap_err().message().contains("four extents"));
        std::fs::write(&path, file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n", 24)).unwrap();
        assert!(Reader::<2>::open(&path).unwrap_err().message().contains("two extents: images, classes, got (6,)"));
    }

    #[test]
    fn hostile_files_are_refused() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 1, 3), }";
        assert!(open(&file(good, 24)).is_ok());
        let long = [MAGIC, &[2, 0], &u32::MAX.to_le_bytes()].concat();
        for bytes in [
            b"".to_vec(),
            b"P6 1 1".to_vec(),
            file(good, 23),
            file(good, 25),
            file(good, 24)[..40].to_vec(),
            file(&good.replace("<f4", "<f8"), 48),
            file(&good.replace("<f4", "|O"), 24),
            file(&good.replace("False", "True"), 24),
            file(&good.replace("(2, 1, 1, 3)", "(2, 3)"), 24),
            file(&good.replace("(2, 1, 1, 3)", "(2, 1, -1, 3)"), 24),
            file(&good.replace("(2, 1, 1, 3)", "(18446744073709551615, 9, 9, 9)"), 24),
            file(&good.replace("(2, 1, 1, 3)", "(2, 1, 1, 3"), 24),
            file("{}", 24),
            long,
        ] {
            let failure = open(&bytes).unwrap_err();
            assert!(failure.exit_code() == 3 && failure.message().contains("; expected "), "{}", failure.message());
        }
    }

    /// Any byte of the header changed, or the file cut anywhere: an array or an error of the right kind.
    #[test]
    fn damage_anywhere_is_no_panic() {
        let whole = file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 1, 3), }", 24);
        let check = |bytes: &[u8]| {
            if let Err(failure) = open(bytes) {
                assert!(failure.exit_code() == 3 && failure.message().contains("; expected "), "{}", failure.message());
            }
        };
        for position in 0..whole.len() - 24 {
            check(&whole[..position]);
            for byte in [0, 0xff, b'9', b'(', b'\'', b','] {
                let mut damaged = whole.clone();
                damaged[position] = byte;
                check(&damaged);
            }
        }
    }
}
