//! Fuzz targets as plain functions: they take any bytes, and panic if the library breaks a promise on them.
//!
//! cargo-fuzz calls them through `fuzz_targets/`, and `tests/fuzz_replay.rs` of the library on a corpus that is the same every
//! time. Every reader has to answer with a typed error or with a value that keeps its promises.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::data::cifar::Cifar;
use leanresnet::data::idx;
use leanresnet::{Error, ErrorKind};

/// The records of a CIFAR file; the first byte chooses between the two formats.
pub fn cifar(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let (format, classes) = if choice % 2 == 0 { (Cifar::Cifar10, 10) } else { (Cifar::Cifar100, 100) };
    match format.parse(bytes, Path::new("input")) {
        Ok(records) => {
            assert!(!records.labels.is_empty());
            assert_eq!(records.pixels.len(), 3 * 32 * 32 * records.labels.len());
            assert!(records.labels.iter().all(|&label| label < classes));
        }
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
}

/// Images and labels of an IDX file, which may be compressed.
pub fn idx(data: &[u8]) {
    let source = Path::new("input");
    let bytes = match idx::decompress(data.to_vec(), source) {
        Ok(bytes) => bytes,
        Err(error) => return assert_refusal(&error, ErrorKind::Data),
    };
    match idx::parse_images(&bytes, source) {
        Ok(images) => {
            assert!(images.count > 0);
            assert_eq!(Some(images.pixels.len()), images.count.checked_mul(images.rows * images.columns));
        }
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
    match idx::parse_labels(&bytes, 10, source) {
        Ok(labels) => assert!(!labels.is_empty() && labels.iter().all(|&label| label < 10)),
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
}

/// An error about the input has the class that its reader documents, and a message that says what came instead of what.
fn assert_refusal(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    assert!(message.contains("expected ") && message.contains(", got "), "{message}");
}
