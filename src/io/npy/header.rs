//! The header of an array: a Python dictionary such as `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
#![forbid(unsafe_code)]

use std::io::Read;

use crate::error::Result;

use super::element::Layout;
use super::source::Origin;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy aligns the data to this, and so do we.
const ALIGNMENT: usize = 64;
/// The longest header that is read, bytes; those of plain arrays have about a hundred.
const LONGEST_HEADER: usize = 10_000;
/// The most dimensions of an array, as in NumPy.
const MOST_DIMENSIONS: usize = 64;

/// What the header of an array says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) layout: Layout,
    pub(super) shape: Vec<usize>,
    /// Number of values.
    pub(super) values: u64,
    /// Bytes before the first value.
    pub(super) start: u64,
}

impl Header {
    /// Reads the header at the beginning of an array, which has `length` bytes in all.
    pub(super) fn read(input: &mut impl Read, length: u64, origin: &Origin) -> Result<Self> {
        let (text, start) = read_text(input, origin)?;
        let Dictionary { descr, fortran_order, shape } = Dictionary::parse(&text).ok_or_else(|| {
            let shown: String = text.trim_end().chars().take(120).collect();
            origin.error("header", "the keys descr, fortran_order and shape", format!("`{shown}`"))
        })?;
        let layout = descr.and_then(|descr| Layout::parse(descr).ok_or(descr)).map_err(|got| {
            let wanted = "integers, floats of 32 or 64 bits, or text ('<f4', '|u1', ...; x.astype('float32') makes one)";
            origin.error("type of the values", wanted, format!("`{}`", got.chars().take(60).collect::<String>()))
        })?;
        // One of fewer than two extents above 1 has the same order either way.
        if fortran_order && shape.iter().filter(|&&extent| extent > 1).count() > 1 {
            let wanted = "row-major ('fortran_order': False), as numpy.ascontiguousarray(x) makes them";
            return Err(origin.error("order of the values", wanted, "column-major"));
        }
        let values = shape.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent as u64));
        let end = values.and_then(|values| values.checked_mul(layout.bytes() as u64)?.checked_add(start));
        match values {
            Some(values) if end == Some(length) => Ok(Self { layout, shape, values, start }),
            _ => {
                let wanted = end.map_or("fewer values".to_owned(), |end| format!("{end} bytes, as its header says"));
                Err(origin.error("length", wanted, format!("{length} bytes")))
            }
        }
    }

    /// The bytes before values of the type `descr` and this shape.
    pub(super) fn of(descr: &str, shape: &[usize]) -> Vec<u8> {
        let extents: Vec<String> = shape.iter().map(ToString::to_string).collect();
        // Python's tuples: (), (1,), (1, 2).
        let extents = extents.join(", ") + if shape.len() == 1 { "," } else { "" };
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
        let used = MAGIC.len() + 4 + text.len() + 1;
        text.push_str(&" ".repeat(used.next_multiple_of(ALIGNMENT) - used));
        text.push('\n');
        [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
    }
}

/// The text of the header, and where the values begin.
fn read_text(input: &mut impl Read, origin: &Origin) -> Result<(String, u64)> {
    let mut take = |bytes: &mut [u8]| input.read_exact(bytes).map_err(|error| origin.failed(error));
    let mut start = [0; 8];
    take(&mut start)?;
    if &start[..6] != MAGIC {
        return Err(origin.error("format", "an array of NumPy (.npy)", "other bytes at its start"));
    }
    let mut length = [0; 4];
    let bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(origin.error("version of the format", "1, 2 or 3", version)),
    };
    take(&mut length[..bytes])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_HEADER {
        return Err(origin.error("header", format!("at most {LONGEST_HEADER} bytes"), length));
    }
    let mut text = vec![0; length];
    take(&mut text)?;
    let text = String::from_utf8(text).map_err(|_| origin.error("header", "text", "bytes that are no UTF-8"))?;
    Ok((text, (start.len() + bytes + length) as u64))
}

/// The three keys of a header.
struct Dictionary<'a> {
    /// The type, or the beginning of something else, such as the list of a record's fields.
    descr: std::result::Result<&'a str, &'a str>,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl<'a> Dictionary<'a> {
    /// `None` if it is not one, or a key is missing, repeated or unknown.
    fn parse(text: &'a str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?;
        loop {
            rest = rest.trim_start();
            if let Some(end) = rest.strip_prefix('}') {
                return Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? }).filter(|_| end.is_empty());
            }
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" if descr.is_none() => match quoted(value) {
                    Some((word, after)) => {
                        descr = Some(Ok(word));
                        after
                    }
                    // What such a type means does not matter, as nothing after it is read.
                    None => return Some(Self { descr: Err(value), fortran_order: false, shape: Vec::new() }),
                },
                "fortran_order" if fortran_order.is_none() => {
                    let word = ["False", "True"].into_iter().find(|word| value.starts_with(word))?;
                    fortran_order = Some(word == "True");
                    &value[word.len()..]
                }
                "shape" if shape.is_none() => {
                    let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                    shape = Some(extents(inside)?);
                    after
                }
                _ => return None,
            };
            rest = rest.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after,
                None if rest.starts_with('}') => rest,
                None => return None,
            };
        }
    }
}

/// The text between quotation marks, and what follows. Types and keys have no escapes.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mark = text.chars().next().filter(|mark| ['\'', '"'].contains(mark))?;
    text[1..].split_once(mark)
}

/// The numbers of a tuple without its brackets: nothing, `3,` or `3, 4`.
fn extents(inside: &str) -> Option<Vec<usize>> {
    let inside = inside.trim();
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let inside = inside.strip_suffix(',').unwrap_or(inside);
    let extent = |text: &str| {
        // Python 2 wrote 3L.
        let digits = text.trim().strip_suffix('L').unwrap_or(text.trim());
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let extents: Vec<usize> = inside.split(',').map(extent).collect::<Option<_>>()?;
    (extents.len() <= MOST_DIMENSIONS).then_some(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::data_file::tests::assert_data_error;

    fn read(text: &str, data: u64) -> Result<Header> {
        let length = (text.len() as u16).to_le_bytes();
        let bytes = [MAGIC, &[1, 0], &length, text.as_bytes()].concat();
        Header::read(&mut &bytes[..], bytes.len() as u64 + data, &Origin::file("x.npy"))
    }

    #[test]
    fn dictionaries_are_read_as_python_writes_them() {
        let shape = |text: &str, data| read(text, data).unwrap().shape;
        assert_eq!(shape("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", 24), [2, 3]);
        assert_eq!(shape("{\"shape\":(2,),\"fortran_order\":False,\"descr\":\"|u1\"}", 2), [2]);
        assert_eq!(shape("{'shape': (2L, 3L), 'fortran_order': False, 'descr': '<i8'}", 48), [2, 3]);
        assert!(shape("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", 8).is_empty());
        assert_eq!(shape("{'descr': '<f4', 'fortran_order': True, 'shape': (7, 1, 1), }", 28), [7, 1, 1]);
    }

    #[test]
    fn what_cannot_be_read_is_explained() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert!(read(good, 24).is_ok());
        assert_data_error(read(good, 23), &["x.npy: length", "as its header says"]);
        assert_data_error(read(&good.replace("False", "True"), 24), &["order of the values", "ascontiguousarray"]);
        for descr in ["'|O'", "'<f2'", "'<c8'", "[('a', '<f4')]", "77"] {
            assert_data_error(
                read(&good.replace("'<f4'", descr), 24),
                &["type of the values", "astype", &descr[1..descr.len() - 1]],
            );
        }
        assert_data_error(read(&good.replace("(2, 3)", "(4294967296, 4294967296, 2)"), 24), &["length", "fewer values"]);
        for shape in ["(2, -3)", "(2, +3)", "(2, 3", "2, 3", "(2,, 3)", "(,)", "(99999999999999999999)", "[2, 3]"] {
            assert_data_error(read(&good.replace("(2, 3)", shape), 24), &["header", "fortran_order and shape"]);
        }
        let twice = good.replace("'shape'", "'shape': (1,), 'shape'");
        for text in ["", "{", "{}", "{'descr': '<f4'}", &good[1..], &good[..good.len() - 1], &format!("{good}}}"), &twice] {
            assert_data_error(read(text, 24), &["header"]);
        }
        let dimensions = format!("({})", "1, ".repeat(MOST_DIMENSIONS + 1));
        assert_data_error(read(&good.replace("(2, 3)", &dimensions), 4), &["header"]);
    }

    #[test]
    fn beginnings_are_checked() {
        let read = |bytes: &[u8]| Header::read(&mut &bytes[..], 100, &Origin::file("x.npy"));
        assert_data_error(read(b""), &["cut off"]);
        assert_data_error(read(b"P6 1 1 255 123"), &["format", ".npy"]);
        assert_data_error(read(b"\x93NUMPY\x04\x00aaaaaa"), &["version of the format", "got 4"]);
        assert_data_error(read(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"), &["header", "at most 10000 bytes"]);
        assert_data_error(read(b"\x93NUMPY\x01\x00\x02\x00\xff\xff"), &["UTF-8"]);
    }

    #[test]
    fn headers_are_written_as_numpy_writes_them() {
        for (shape, text) in [(&[][..], "()"), (&[5], "(5,)"), (&[2, 3], "(2, 3)"), (&[1; 30], "")] {
            let bytes = Header::of("<f4", shape);
            assert_eq!((bytes.len() % ALIGNMENT, bytes.last()), (0, Some(&b'\n')));
            let written = String::from_utf8_lossy(&bytes[10..]);
            assert!(written.contains(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {text}")), "{written}");
            let values: usize = shape.iter().product();
            let header = Header::read(&mut &bytes[..], (bytes.len() + 4 * values) as u64, &Origin::file("x")).unwrap();
            assert_eq!((header.shape.as_slice(), header.start), (shape, bytes.len() as u64));
        }
    }
}
