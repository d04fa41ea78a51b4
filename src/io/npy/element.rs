//! The types of values, and their bytes.
#![forbid(unsafe_code)]

use std::fmt;

/// The longest text of an array, characters.
const LONGEST_TEXT: usize = 1024;

/// The type of an array's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementType {
    /// Integers of 0 and more with so many bits: 8, 16, 32, 64.
    Unsigned(u8),
    /// Integers with so many bits: 8, 16, 32, 64.
    Signed(u8),
    /// Floats with so many bits: 32, 64.
    Float(u8),
    /// Text of at most so many characters.
    Text(usize),
}

impl ElementType {
    /// True for integers.
    pub fn is_integer(self) -> bool {
        matches!(self, ElementType::Unsigned(_) | ElementType::Signed(_))
    }

    /// True for floats.
    pub fn is_float(self) -> bool {
        matches!(self, ElementType::Float(_))
    }
}

/// In NumPy's words: `uint8`, `float32`.
impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ElementType::Unsigned(bits) => write!(formatter, "uint{bits}"),
            ElementType::Signed(bits) => write!(formatter, "int{bits}"),
            ElementType::Float(bits) => write!(formatter, "float{bits}"),
            ElementType::Text(characters) => write!(formatter, "text of {characters} characters"),
        }
    }
}

/// How a value lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) element: ElementType,
    pub(super) big_endian: bool,
}

impl Layout {
    /// Reads a type such as `<f4`, `|u1` or `>i8`; `None` for those that cannot be read.
    pub(super) fn parse(descr: &str) -> Option<Self> {
        let mut characters = descr.chars();
        let (order, kind, size) = (characters.next()?, characters.next()?, characters.as_str());
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let size: usize = size.parse().ok()?;
        let element = match (kind, size) {
            ('u', 1 | 2 | 4 | 8) => ElementType::Unsigned(8 * size as u8),
            ('i', 1 | 2 | 4 | 8) => ElementType::Signed(8 * size as u8),
            ('f', 4 | 8) => ElementType::Float(8 * size as u8),
            ('U', 1..=LONGEST_TEXT) => ElementType::Text(size),
            _ => return None,
        };
        let big_endian = match order {
            '<' => false,
            '>' => true,
            '=' => cfg!(target_endian = "big"),
            '|' if size == 1 && kind != 'U' => false,
            _ => return None,
        };
        Some(Self { element, big_endian })
    }

    /// Bytes of a value.
    pub(super) fn bytes(self) -> usize {
        match self.element {
            ElementType::Unsigned(bits) | ElementType::Signed(bits) | ElementType::Float(bits) => usize::from(bits) / 8,
            // UTF-32, padded with zeros.
            ElementType::Text(characters) => 4 * characters,
        }
    }

    /// The bits of an integer or float, without its sign: zeros above.
    fn bits(self, bytes: &[u8]) -> u64 {
        let push = |bits: u64, &byte: &u8| bits << 8 | u64::from(byte);
        if self.big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
    }

    /// A float, rounded to the nearest.
    pub(super) fn f32(self, bytes: &[u8]) -> f32 {
        let bits = self.bits(bytes);
        if bytes.len() == 4 { f32::from_bits(bits as u32) } else { f64::from_bits(bits) as f32 }
    }

    /// An integer.
    pub(super) fn integer(self, bytes: &[u8]) -> i128 {
        let bits = self.bits(bytes);
        let unused = 64 - 8 * bytes.len() as u32;
        if let ElementType::Signed(_) = self.element { i128::from((bits << unused) as i64 >> unused) } else { i128::from(bits) }
    }

    /// Text without its padding; `None` if a character does not exist.
    pub(super) fn text(self, bytes: &[u8]) -> Option<String> {
        let characters = bytes.chunks_exact(4).map(|character| char::from_u32(self.bits(character) as u32));
        characters.collect::<Option<String>>().map(|text| text.trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_apart() {
        for (descr, name, bytes, big_endian) in [
            ("|u1", "uint8", 1, false),
            ("<u2", "uint16", 2, false),
            (">i8", "int64", 8, true),
            ("<f4", "float32", 4, false),
            (">f8", "float64", 8, true),
            ("<U3", "text of 3 characters", 12, false),
        ] {
            let layout = Layout::parse(descr).unwrap();
            assert_eq!((layout.element.to_string().as_str(), layout.bytes(), layout.big_endian), (name, bytes, big_endian));
        }
        for descr in
            ["", "<", "<f", "<f2", "<f16", "|O", "<c8", "|b1", "|f4", "<u+1", "<M8[ns]", "<U0", "<U4294967295", "|V8", "é4"]
        {
            assert_eq!(Layout::parse(descr), None, "{descr}");
        }
    }

    #[test]
    fn bytes_become_values() {
        let layout = |descr| Layout::parse(descr).unwrap();
        assert_eq!(layout("<i2").integer(&[0xfe, 0xff]), -2);
        assert_eq!(layout(">i2").integer(&[0xff, 0xfe]), -2);
        assert_eq!(layout("|i1").integer(&[0x80]), -128);
        assert_eq!(layout("|u1").integer(&[0x80]), 128);
        assert_eq!(layout("<i8").integer(&i64::MIN.to_le_bytes()), i128::from(i64::MIN));
        assert_eq!(layout(">u8").integer(&u64::MAX.to_be_bytes()), i128::from(u64::MAX));
        assert_eq!(layout(">f4").f32(&(-1.5_f32).to_be_bytes()), -1.5);
        assert_eq!(layout("<f8").f32(&0.1_f64.to_le_bytes()), 0.1);
        assert_eq!(layout("<U3").text(&[0x63, 0, 0, 0, 0xe9, 0, 0, 0, 0, 0, 0, 0]).as_deref(), Some("cé"));
        assert_eq!(layout(">U1").text(&[0, 0, 0xd8, 0]), None);
    }
}
