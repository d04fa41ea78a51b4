//! A walk over the bytes of a file before they are decoded: how much memory that would take.
//!
//! A message of two bytes, its tag and the length 0, becomes a struct of some hundred bytes, and a number of one byte one of eight. So
//! messages and numbers are counted first, without allocating anything; everything else is as large in memory as in the file.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Most bytes of a file: what protocol buffers allow a message.
const MAX_BYTES: usize = 1 << 31;
/// Most messages and texts in repeated fields, at all depths together. A ResNet of 152 layers has some 8,000.
const MAX_ELEMENTS: usize = 1 << 17;
/// Most 64-bit integers in tensors and attributes: shapes and axes, in models without integer data.
const MAX_INTEGERS: usize = 1 << 20;

/// Fields that are worth counting.
enum Field {
    Message(&'static [(u64, Field)]),
    Text,
    Integers,
}

use Field::{Integers, Message, Text};

const ENTRY: &[(u64, Field)] = &[];
const TENSOR: &[(u64, Field)] = &[(1, Integers), (7, Integers), (13, Message(ENTRY))];
const ATTRIBUTE: &[(u64, Field)] = &[(5, Message(TENSOR)), (8, Integers), (9, Text)];
const NODE: &[(u64, Field)] = &[(1, Text), (2, Text), (5, Message(ATTRIBUTE))];
const SHAPE: &[(u64, Field)] = &[(1, Message(&[]))];
const TYPE: &[(u64, Field)] = &[(1, Message(&[(2, Message(SHAPE))]))];
const VALUE: &[(u64, Field)] = &[(2, Message(TYPE))];
const GRAPH: &[(u64, Field)] =
    &[(1, Message(NODE)), (5, Message(TENSOR)), (11, Message(VALUE)), (12, Message(VALUE)), (13, Message(VALUE))];
const MODEL: &[(u64, Field)] = &[(7, Message(GRAPH)), (8, Message(&[])), (14, Message(ENTRY)), (25, Message(&[]))];

/// Refuses files that would take much more memory than they have bytes.
///
/// # Errors
/// [`Error::Model`] for too many bytes, messages or integers, and for what is no protocol buffer.
pub(super) fn check(bytes: &[u8], source_name: &str) -> Result<()> {
    let refused = |what: &str, most: usize, got: usize| Err(Error::model(source_name, what, format!("at most {most}"), got));
    if bytes.len() > MAX_BYTES {
        return refused("bytes of the file", MAX_BYTES, bytes.len());
    }
    let mut count = Count::default();
    if count.message(bytes, MODEL).is_none() {
        return Err(Error::model(source_name, "file", "an ONNX model (the protocol buffer of onnx.proto3)", "other bytes"));
    }
    if count.elements > MAX_ELEMENTS {
        return refused("messages in the file", MAX_ELEMENTS, count.elements);
    }
    if count.integers > MAX_INTEGERS {
        return refused("integers in the file", MAX_INTEGERS, count.integers);
    }
    Ok(())
}

#[derive(Default)]
struct Count {
    elements: usize,
    integers: usize,
}

impl Count {
    /// Counts a message; nothing if it is none. Messages within messages are as deep as [`MODEL`] says, whatever the bytes are.
    fn message(&mut self, mut bytes: &[u8], fields: &[(u64, Field)]) -> Option<()> {
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let field = fields.iter().find(|(number, _)| *number == key >> 3).map(|(_, field)| field);
            let length = match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                    self.integers += usize::from(matches!(field, Some(Integers)));
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut bytes)?).ok()?,
                5 => 4,
                _ => return None,
            };
            let content = bytes.get(..length)?;
            bytes = &bytes[length..];
            match field {
                Some(Message(inner)) if key & 7 == 2 => {
                    self.elements += 1;
                    self.message(content, inner)?;
                }
                Some(Text) => self.elements += 1,
                // A number ends with the first byte below 128.
                Some(Integers) => self.integers += content.iter().filter(|byte| **byte < 128).count(),
                _ => {}
            }
        }
        Some(())
    }
}

/// A number of at most ten bytes, seven bits each.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for position in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << (7 * position);
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
    use prost::Message as _;

    #[test]
    fn elements_are_small_in_memory() {
        // What the bounds above promise: 2^17 messages of at most 512 bytes, twice that while a list grows.
        for size in [size_of::<AttributeProto>(), size_of::<NodeProto>(), size_of::<TensorProto>(), size_of::<ValueInfoProto>()] {
            assert!(size <= 512, "{size}");
        }
    }

    #[test]
    fn floods_of_small_parts_are_refused() {
        let refused = |bytes: &[u8], part: &str| {
            let message = check(bytes, "flood").unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        let with = |graph: GraphProto| ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec();
        let node = NodeProto { attribute: vec![AttributeProto::default(); 100], ..Default::default() };
        assert!(check(&with(GraphProto { node: vec![node.clone(); 1000], ..Default::default() }), "file").is_ok());
        refused(&with(GraphProto { node: vec![node; 1300], ..Default::default() }), "messages in the file");
        refused(&with(GraphProto { input: vec![ValueInfoProto::default(); 140_000], ..Default::default() }), "messages");
        let names = NodeProto { input: vec![String::new(); 140_000], ..Default::default() };
        refused(&with(GraphProto { node: vec![names], ..Default::default() }), "messages in the file");
        let integers = TensorProto { int64_data: vec![1; 1 << 21], ..Default::default() };
        refused(&with(GraphProto { initializer: vec![integers], ..Default::default() }), "integers in the file");
        // The same, a key before each.
        let unpacked: Vec<u8> = [0x38, 1].repeat(1 << 21);
        let mut tensor = vec![0x2a, 0x80, 0x80, 0x80, 0x02];
        tensor.extend(unpacked);
        let mut model = vec![0x3a, 0x85, 0x80, 0x80, 0x02];
        model.extend(tensor);
        refused(&model, "integers in the file");
    }

    #[test]
    fn other_bytes_are_no_model() {
        for bytes in [&b"no model"[..], &[0x3a, 5, 1], &[0x3a, 0xff, 0xff], &[0xff; 20], &[0x0b, 0x0c]] {
            let message = check(bytes, "file").unwrap_err().to_string();
            assert!(message.starts_with("file: file; expected an ONNX model"), "{message}");
        }
        assert!(check(&[], "file").is_ok());
    }
}
