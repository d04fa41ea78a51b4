//! The container of models and checkpoints: a safetensors file that says what it is and detects damage.
//!
//! The metadata of the file holds one key, `leanresnet`, with a JSON object. Its first member is `checksum`: 16 hexadecimal digits of
//! the CRC-64/XZ of the whole file, with these digits as `0`. They stand at a fixed place because the metadata opens the header.
//! Then come `version` and the members of whoever writes the file.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, View};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::io::atomic;
use crate::io::checksum::Crc64;
use crate::io::header::{Header, LENGTH_BYTES, MAX_HEADER};

/// The version that is written, and the only one that is read.
const VERSION: u64 = 1;
const KEY: &str = "leanresnet";
/// How every file starts after the length of its header.
const OPENING: &[u8] = br#"{"__metadata__":{"leanresnet":"{\"checksum\":\""#;
const ZERO_DIGITS: &str = "0000000000000000";
const DIGITS: Range<usize> = LENGTH_BYTES + OPENING.len()..LENGTH_BYTES + OPENING.len() + ZERO_DIGITS.len();
/// Longest text of the JSON object in bytes.
const MAX_METADATA: usize = 4 << 20;

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    /// The JSON object without `checksum` and `version`.
    pub(crate) metadata: Map<String, Value>,
    pub(crate) tensors: BTreeMap<String, StoredTensor<'a>>,
}

/// A tensor as bytes, little endian, of any alignment.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor<'a> {
    dtype: Dtype,
    shape: Cow<'a, [usize]>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> StoredTensor<'a> {
    /// A tensor of f32; `shape` has as many values as there are `values`.
    pub(crate) fn f32(shape: &'a [usize], values: &'a [f32]) -> Self {
        let bytes = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        Self { dtype: Dtype::F32, shape: Cow::Borrowed(shape), bytes }
    }

    /// A 64-bit integer of shape [].
    pub(crate) fn integer(value: i64) -> Self {
        Self { dtype: Dtype::I64, shape: Cow::Borrowed(&[]), bytes: Cow::Owned(value.to_le_bytes().to_vec()) }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values of a tensor of f32; nothing for other types.
    pub(crate) fn to_f32(&self) -> Option<Vec<f32>> {
        let (values, rest) = self.bytes.as_chunks::<4>();
        (self.dtype == Dtype::F32 && rest.is_empty()).then(|| values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

impl View for StoredTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Reads a file that [`write`] wrote.
///
/// # Errors
/// [`Error::Model`] with `source_name` if it is damaged, of another version, or a plain state dict.
pub(crate) fn read<'a>(bytes: &'a [u8], source_name: &str) -> Result<Contents<'a>> {
    let header = Header::parse(bytes, source_name)?;
    let Some(text) = header.metadata.get(KEY) else {
        return Err(Error::model(
            source_name,
            "no description of a network in the file",
            "a file that leanresnet wrote (run `leanresnet import FILE --preset P` for weights of other programs)",
            format!("a plain state dict of {} tensors", header.tensors.len()),
        ));
    };
    let metadata = parse_metadata(text, source_name)?;
    verify_checksum(bytes, source_name)?;
    Ok(Contents { metadata, tensors: tensors(header) })
}

/// Reads the tensors of any safetensors file; what its metadata says is ignored.
///
/// # Errors
/// [`Error::Model`] with `source_name` if it is not well-formed.
pub(crate) fn read_state_dict<'a>(bytes: &'a [u8], source_name: &str) -> Result<BTreeMap<String, StoredTensor<'a>>> {
    Header::parse(bytes, source_name).map(tensors)
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// [`Error::Io`] if it cannot be written, [`Error::Invalid`] if metadata or header are longer than a reader accepts.
pub(crate) fn write(path: &Path, metadata: Map<String, Value>, tensors: Vec<(String, StoredTensor<'_>)>) -> Result<()> {
    atomic::write(path, [&to_bytes(metadata, tensors)?[..]])
}

/// The bytes of a file. Names of tensors are distinct.
///
/// # Errors
/// [`Error::Invalid`] if metadata or header are longer than a reader accepts.
pub(crate) fn to_bytes(mut metadata: Map<String, Value>, tensors: Vec<(String, StoredTensor<'_>)>) -> Result<Vec<u8>> {
    metadata.remove("checksum");
    metadata.insert("version".to_owned(), VERSION.into());
    let members = Value::Object(metadata).to_string();
    let text = format!(r#"{{"checksum":"{ZERO_DIGITS}",{}"#, &members[1..]);
    if text.len() > MAX_METADATA {
        return Err(Error::invalid("metadata of the file", format!("at most {MAX_METADATA} bytes"), text.len()));
    }
    let mut bytes = serialize(KEY, text, tensors)?;
    assert!(bytes[LENGTH_BYTES..].starts_with(OPENING), "the metadata must open the header, or the checksum has no fixed place");
    let digits = digits_of(&bytes);
    bytes[DIGITS].copy_from_slice(digits.as_bytes());
    Ok(bytes)
}

/// The bytes of a file that holds tensors and nothing else, in the form that PyTorch's tools write. Names of tensors are distinct.
///
/// # Errors
/// [`Error::Invalid`] if the header is longer than a reader accepts.
pub(crate) fn state_dict_to_bytes(tensors: Vec<(String, StoredTensor<'_>)>) -> Result<Vec<u8>> {
    serialize("format", "pt".to_owned(), tensors)
}

/// A safetensors file with one entry of metadata.
fn serialize(key: &str, text: String, tensors: Vec<(String, StoredTensor<'_>)>) -> Result<Vec<u8>> {
    let bytes = safetensors::serialize(tensors, Some(std::iter::once((key.to_owned(), text)).collect()))
        .map_err(|error| Error::invalid("tensors of the file", "values that fill their shapes, in a short header", error))?;
    let header_length = u64::from_le_bytes(*bytes.first_chunk().expect("serialisation starts with the header's length"));
    if header_length > MAX_HEADER {
        return Err(Error::invalid("header of the file", format!("at most {MAX_HEADER} bytes"), header_length));
    }
    Ok(bytes)
}

fn tensors(header: Header<'_>) -> BTreeMap<String, StoredTensor<'_>> {
    let data = header.data;
    let stored = |(name, entry): (String, crate::io::header::Entry)| {
        let [start, end] = entry.range;
        (name, StoredTensor { dtype: entry.dtype, shape: Cow::Owned(entry.shape), bytes: Cow::Borrowed(&data[start..end]) })
    };
    header.tensors.into_iter().map(stored).collect()
}

/// The JSON object without `checksum` and `version`, the latter checked first: another version may check itself differently.
fn parse_metadata(text: &str, source_name: &str) -> Result<Map<String, Value>> {
    if text.len() > MAX_METADATA {
        return Err(Error::model(source_name, "metadata", format!("at most {MAX_METADATA} bytes"), text.len()));
    }
    let mut metadata: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| Error::model(source_name, "metadata", "a JSON object", error))?;
    metadata.remove("checksum");
    match metadata.remove("version") {
        Some(version) if version.as_u64() == Some(VERSION) => Ok(metadata),
        Some(version) => Err(Error::model(source_name, "version of the file", VERSION, version)),
        None => Err(Error::model(source_name, "version of the file", VERSION, "none")),
    }
}

fn verify_checksum(bytes: &[u8], source_name: &str) -> Result<()> {
    let found = bytes.get(DIGITS).filter(|_| bytes[LENGTH_BYTES..].starts_with(OPENING));
    let Some(found) = found else {
        return Err(Error::model(source_name, "checksum", "a checksum at the start of the header", "none"));
    };
    let expected = digits_of(bytes);
    if found != expected.as_bytes() {
        let got = String::from_utf8_lossy(found);
        return Err(Error::model(source_name, "the file is damaged: checksum", expected, got));
    }
    Ok(())
}

/// The checksum of a whole file as it stands in it.
fn digits_of(bytes: &[u8]) -> String {
    let mut crc = Crc64::new();
    crc.update(&bytes[..DIGITS.start]);
    crc.update(ZERO_DIGITS.as_bytes());
    crc.update(&bytes[DIGITS.end..]);
    format!("{:016x}", crc.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other}"),
        }
    }

    fn sample() -> Vec<u8> {
        let tensors = vec![
            ("weight".to_owned(), StoredTensor::f32(&[2, 3], &[0.5, -1.0, 2.0, -0.0, f32::MIN_POSITIVE, 1e-45])),
            ("steps".to_owned(), StoredTensor::integer(-7)),
            ("empty".to_owned(), StoredTensor::f32(&[0, 4], &[])),
        ];
        to_bytes(object(json!({"answer": 42, "name": "a \"checksum\" \u{e9}"})), tensors).unwrap()
    }

    fn refused(bytes: &[u8]) -> String {
        match read(bytes, "bytes") {
            Err(error @ Error::Model { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn round_trip_keeps_every_bit() {
        let bytes = sample();
        let contents = read(&bytes, "bytes").unwrap();
        assert_eq!(Value::Object(contents.metadata.clone()), json!({"answer": 42, "name": "a \"checksum\" \u{e9}"}));
        let weight = &contents.tensors["weight"];
        assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, &[2, 3][..]));
        let bits: Vec<u32> = weight.to_f32().unwrap().into_iter().map(f32::to_bits).collect();
        assert_eq!(bits, [0.5, -1.0, 2.0, -0.0, f32::MIN_POSITIVE, 1e-45].map(f32::to_bits));
        assert_eq!(*contents.tensors["steps"].bytes, (-7_i64).to_le_bytes());
        assert!(contents.tensors["steps"].to_f32().is_none());
        assert_eq!(contents.tensors["empty"].to_f32().unwrap(), [0.0; 0]);
        assert_eq!(to_bytes(contents.metadata, contents.tensors.into_iter().collect()).unwrap(), bytes);
    }

    #[test]
    fn other_readers_of_the_format_can_read_it() {
        let bytes = sample();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("weight").unwrap().shape(), [2, 3]);
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap().keys().collect::<Vec<_>>(), [KEY]);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_detected() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            refused(&damaged);
        }
        for length in 0..bytes.len() {
            refused(&bytes[..length]);
        }
        let mut longer = bytes.clone();
        longer.push(0);
        refused(&longer);
    }

    #[test]
    fn other_versions_are_refused_before_their_checksum() {
        let text = String::from_utf8_lossy(&sample()).into_owned();
        assert!(text.contains(r#"\"version\":1"#));
        let mut bytes = sample();
        let at =
            text.find(r#"version\":1"#).map(|_| bytes.windows(11).position(|w| w == br#"version\":1"#).unwrap() + 10).unwrap();
        bytes[at] = b'2';
        assert_eq!(refused(&bytes), "bytes: version of the file; expected 1, got 2");
    }

    #[test]
    fn state_dicts_of_others_name_the_import() {
        let tensors = vec![("weight".to_owned(), StoredTensor::f32(&[1], &[1.0]))];
        let bytes = safetensors::serialize(tensors.clone(), None).unwrap();
        let message = refused(&bytes);
        assert!(message.contains("run `leanresnet import FILE --preset P`"), "{message}");
        assert_eq!(read_state_dict(&bytes, "bytes").unwrap()["weight"].to_f32().unwrap(), [1.0]);
        let other = std::iter::once((KEY.to_owned(), "{\"version\":1}".to_owned())).collect();
        let message = refused(&safetensors::serialize(tensors, Some(other)).unwrap());
        assert!(message.contains("a checksum at the start of the header, got none"), "{message}");
    }
}
