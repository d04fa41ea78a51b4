//! Reading the header of a safetensors file that may be damaged or hostile.
//!
//! The format: eight bytes with the length of the header (little endian), the header as a JSON object, the data. The object maps names
//! of tensors to type, shape and place in the data, and `__metadata__` to a map of strings. What is accepted here the `safetensors`
//! crate accepts too; its reader is not used because it takes names twice, bounds headers at 100 MB only, and adds sizes unchecked.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as BTreeEntry;
use std::fmt;

use safetensors::Dtype;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// Longest header in bytes; a network of the largest accepted size with its optimiser's state needs less.
pub(crate) const MAX_HEADER: u64 = 16 << 20;
/// Most extents of a shape.
const MAX_RANK: usize = 8;
/// Bytes that hold the header's length.
pub(crate) const LENGTH_BYTES: usize = 8;

/// A checked header: the tensors tile the data without holes or overlaps.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, Entry>,
    /// What follows the header.
    pub(crate) data: &'a [u8],
}

/// One tensor of the header.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) dtype: Dtype,
    #[serde(deserialize_with = "bounded_shape")]
    pub(crate) shape: Vec<usize>,
    /// First byte of the data, and the byte after the last.
    #[serde(rename = "data_offsets")]
    pub(crate) range: [usize; 2],
}

impl<'a> Header<'a> {
    /// Reads and checks the header of `bytes`, a whole file.
    ///
    /// # Errors
    /// [`Error::Model`] with `source_name` for anything that is not a well-formed file.
    pub(crate) fn parse(bytes: &'a [u8], source_name: &str) -> Result<Self> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| {
            Error::model(source_name, "file", "a safetensors file", format!("{} bytes, too few for a header", bytes.len()))
        })?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER || length > rest.len() as u64 {
            let bound = MAX_HEADER.min(rest.len() as u64);
            return Err(Error::model(source_name, "length of the header", format!("at most {bound} bytes"), length));
        }
        let (json, data) = rest.split_at(length as usize);
        if json.first() != Some(&b'{') {
            return Err(Error::model(source_name, "header", "a JSON object that starts with `{`", "something else"));
        }
        let fields: Fields = serde_json::from_slice(json)
            .map_err(|error| Error::model(source_name, "header", "a JSON object of tensors and metadata", error))?;
        check_places(&fields.tensors, data.len(), source_name)?;
        Ok(Self { metadata: fields.metadata, tensors: fields.tensors, data })
    }
}

/// Checks that the tensors, in the order of their places, follow each other from 0 to `length`, each as long as type and shape say.
fn check_places(tensors: &BTreeMap<String, Entry>, length: usize, source_name: &str) -> Result<()> {
    let mut order: Vec<(&String, &Entry)> = tensors.iter().collect();
    order.sort_by_key(|(_, entry)| entry.range);
    let mut position = 0;
    for (name, entry) in order {
        let [start, end] = entry.range;
        if start != position || end > length {
            let expected = format!("data that starts at byte {position} and ends by {length}");
            return Err(Error::model(source_name, format!("tensor `{name}`"), expected, format!("{start} to {end}")));
        }
        let bits = entry.shape.iter().try_fold(entry.dtype.bitsize(), |product, &extent| product.checked_mul(extent));
        if bits.is_none_or(|bits| bits % 8 != 0 || Some(bits / 8) != end.checked_sub(start)) {
            let expected = format!("as many bytes as {:?} of shape {:?} takes", entry.dtype, entry.shape);
            return Err(Error::model(source_name, format!("tensor `{name}`"), expected, format!("bytes {start} to {end}")));
        }
        position = end;
    }
    if position != length {
        return Err(Error::model(
            source_name,
            "data",
            format!("{position} bytes, as the header says"),
            format!("{length} bytes"),
        ));
    }
    Ok(())
}

/// The JSON object.
#[derive(Default)]
struct Fields {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors and metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut has_metadata = false;
        while let Some(key) = map.next_key::<String>()? {
            let repeated = if key == "__metadata__" {
                fields.metadata = map.next_value()?;
                std::mem::replace(&mut has_metadata, true)
            } else {
                match fields.tensors.entry(key) {
                    BTreeEntry::Vacant(place) => {
                        place.insert(map.next_value()?);
                        false
                    }
                    BTreeEntry::Occupied(_) => true,
                }
            };
            if repeated {
                return Err(A::Error::custom("a name that stands twice"));
            }
        }
        Ok(fields)
    }
}

/// A shape of at most [`MAX_RANK`] extents, so that a long list cannot take more memory than it has bytes.
fn bounded_shape<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<usize>, D::Error> {
    struct Shape;

    impl<'de> Visitor<'de> for Shape {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_RANK} extents")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vec<usize>, A::Error> {
            let mut shape = Vec::new();
            while let Some(extent) = list.next_element()? {
                if shape.len() == MAX_RANK {
                    return Err(A::Error::invalid_length(MAX_RANK + 1, &self));
                }
                shape.push(extent);
            }
            Ok(shape)
        }
    }

    deserializer.deserialize_seq(Shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn refused(bytes: &[u8]) -> String {
        match Header::parse(bytes, "bytes") {
            Err(error @ Error::Model { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn tensor(name: &str, shape: &str, start: u64, end: u64) -> String {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    }

    #[test]
    fn reads_tensors_and_metadata() {
        let json = format!(r#"{{"__metadata__":{{"key":"value"}},{},{}}}  "#, tensor("b", "[2]", 0, 8), tensor("a", "[]", 8, 12));
        let bytes = file(&json, 12);
        let header = Header::parse(&bytes, "bytes").unwrap();
        assert_eq!(header.metadata["key"], "value");
        assert_eq!(header.tensors["b"].shape, [2]);
        assert_eq!(header.tensors["a"].range, [8, 12]);
        assert_eq!(header.data.len(), 12);
        assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = file(&format!("{{{}}}", tensor("a", "[1]", 0, 4)), 4);
        let right = u64::from_le_bytes(good[..8].try_into().unwrap());
        for length in [0, 1, 8, right - 1, right + 1, good.len() as u64, 100_000_000, u64::MAX - 7, u64::MAX] {
            let mut bytes = good.clone();
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            refused(&bytes);
        }
        for length in 0..good.len() {
            refused(&good[..length]);
        }
        let mut long = 100_000_000_u64.to_le_bytes().to_vec();
        long.resize(100_000_008, b' ');
        assert!(refused(&long).contains("at most 16777216 bytes, got 100000000"));
    }

    #[test]
    fn places_that_do_not_tile_the_data_are_refused() {
        let pair = |first: (u64, u64), second: (u64, u64), data| {
            let json = format!("{{{},{}}}", tensor("a", "[2]", first.0, first.1), tensor("b", "[2]", second.0, second.1));
            file(&json, data)
        };
        assert!(Header::parse(&pair((0, 8), (8, 16), 16), "bytes").is_ok());
        assert!(Header::parse(&pair((8, 16), (0, 8), 16), "bytes").is_ok());
        for (first, second, data) in [
            ((0, 8), (4, 12), 12),
            ((0, 8), (0, 8), 8),
            ((0, 8), (12, 20), 20),
            ((4, 12), (12, 20), 20),
            ((0, 8), (8, 16), 15),
            ((0, 8), (8, 16), 17),
            ((0, 8), (16, 8), 16),
            ((0, 4), (4, 16), 16),
        ] {
            refused(&pair(first, second, data));
        }
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        for shape in ["[4194305,4194305,1048576]", "[18446744073709551615]", "[9223372036854775808,2]", "[4294967296,4294967296]"]
        {
            refused(&file(&format!("{{{}}}", tensor("a", shape, 0, 4)), 4));
        }
        // Sizes that fit one by one but not in sum.
        let step = 1_u64 << 60;
        let entries: Vec<String> =
            (0..15).map(|i| tensor(&i.to_string(), &format!("[{}]", step / 4), i * step, (i + 1) * step)).collect();
        refused(&file(&format!("{{{}}}", entries.join(",")), 8));
        refused(&file(&format!("{{{}}}", tensor("a", "[18446744073709551616]", 0, 4)), 4));
        refused(&file(&format!("{{{}}}", tensor("a", "[-1]", 0, 4)), 4));
        refused(&file(&format!("{{{}}}", tensor("a", "[1,1,1,1,1,1,1,1,1]", 0, 4)), 4));
    }

    #[test]
    fn malformed_json_is_refused() {
        for json in [
            "",
            " {}",
            "{",
            "[]",
            "null",
            "{}{}",
            r#"{"a":1}"#,
            r#"{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}"#,
            r#"{"__metadata__":{"a":1}}"#,
            r#"{"__metadata__":{},"__metadata__":{}}"#,
        ] {
            refused(&file(json, 0));
            refused(&file(json, 4));
        }
        let twice = format!("{{{},{}}}", tensor("a", "[0]", 0, 0), tensor("a", "[0]", 0, 0));
        assert!(refused(&file(&twice, 0)).contains("stands twice"));
        let deep = format!(r#"{{"a":{}}}"#, "[".repeat(100_000));
        refused(&file(&deep, 0));
        refused(&file("{\"\u{fffd}\":", 0));
        let mut not_text = file(r#"{"a":"b"}"#, 0);
        not_text[10] = 0xFF;
        refused(&not_text);
    }
}
