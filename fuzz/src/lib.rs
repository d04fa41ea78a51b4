//! Fuzz targets as plain functions: they take any bytes, and panic if the library breaks a promise on them.
//!
//! cargo-fuzz calls them through `fuzz_targets/`, and `tests/fuzz_replay.rs` of the library on a corpus that is the same every
//! time. Every reader has to answer with a typed error or with a value that keeps its promises.
#![forbid(unsafe_code)]

mod kernels;

use std::fs;
use std::ops::Range;
use std::path::Path;

use leanresnet::data::cifar::Cifar;
use leanresnet::data::{idx, stl10};
use leanresnet::net::{import as import_state_dict, parameters, parse_name_map};
use leanresnet::npy::{Archive, ElementType, Reader};
use leanresnet::train::{RunConfig, model_of_checkpoint};
use leanresnet::{Error, ErrorKind, Images, Model, Network, Pool, Session, picture};

pub use kernels::kernels;

/// How a model file or checkpoint starts after the 8 bytes with the length of its header; the 16 digits of the checksum follow.
const FILE_OPENING: &[u8] = br#"{"__metadata__":{"leanresnet":"{\"checksum\":\""#;
const CHECKSUM_DIGITS: Range<usize> = 8 + FILE_OPENING.len()..8 + FILE_OPENING.len() + 16;

/// A checkpoint, as the file that it is: as it comes, and with its checksum put right.
pub fn checkpoint(data: &[u8]) {
    with_checksum_repaired(data, checkpoint_file);
}

fn checkpoint_file(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("leanresnet-fuzz-{}.ckpt", std::process::id()));
    fs::write(&path, bytes).expect("write a temporary file");
    let model = model_of_checkpoint(&path);
    fs::remove_file(&path).expect("remove a temporary file");
    match model {
        Ok(model) => drop(model.to_bytes().expect("a model that was made can be written")),
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
}

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

/// A configuration file, read for its network alone and as a whole.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match RunConfig::from_toml(text) {
        Ok(config) => {
            let again = RunConfig::from_toml(&config.to_toml()).expect("what was written can be read");
            assert_eq!(again, config);
        }
        Err(error) => assert_refusal(&error, ErrorKind::Usage),
    }
    match Network::from_toml(text) {
        Ok(network) => {
            // Sizes of an accepted network do not overflow.
            let values = parameters(&network).iter().try_fold(0_usize, |sum, spec| sum.checked_add(spec.values()));
            assert!(values.is_some_and(|values| values > 0));
            let again = Network::from_toml(&network.to_toml()).expect("what was written can be read");
            assert_eq!(again, network);
        }
        Err(error) => assert_refusal(&error, ErrorKind::Usage),
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

/// A state dict for [`small_network`], behind a byte with the length of a map of names, and that map.
pub fn import(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else { return };
    let Some((map, bytes)) = rest.split_at_checked(usize::from(length)) else { return };
    let Ok(map) = std::str::from_utf8(map) else { return };
    let map = match parse_name_map(map) {
        Ok(map) => map,
        Err(error) => return assert_refusal(&error, ErrorKind::Usage),
    };
    match import_state_dict(bytes, "input", &small_network(), &map) {
        Ok(report) => {
            let fits = report.missing.is_empty() && report.unexpected.is_empty() && report.misshaped.is_empty();
            assert_eq!(report.model.is_some(), fits);
        }
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
}

/// A model file: as it comes, and with its checksum put right.
pub fn model(data: &[u8]) {
    with_checksum_repaired(data, model_file);
}

fn model_file(bytes: &[u8]) {
    match Model::from_bytes(bytes) {
        Ok(model) => {
            let written = model.to_bytes().expect("what was read can be written");
            let again = Model::from_bytes(&written).expect("what was written can be read");
            assert!(again.to_bytes().is_ok_and(|bytes| bytes == written), "a model changes when it is written and read");
        }
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
}

/// An array of NumPy, read as what it says it is.
pub fn npy(data: &[u8]) {
    array(Reader::from_bytes(data.to_vec(), "input"), data.len() as u64);
}

/// An archive of arrays; deflated ones may be 1032 times as long as what is there.
pub fn npz(data: &[u8]) {
    match Archive::from_bytes(data.to_vec(), "input") {
        Ok(archive) => archive.names().for_each(|name| array(archive.array(name), 1032 * data.len() as u64)),
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
}

/// An ONNX model: what is imported can be written and read, and small models run.
pub fn onnx(data: &[u8]) {
    match leanresnet::onnx::import(data, "input") {
        Ok(report) => {
            let model = report.model;
            let written = model.to_bytes().expect("a model that was made can be written");
            let again = Model::from_bytes(&written).expect("what was written can be read");
            assert!(again.to_bytes().is_ok_and(|bytes| bytes == written), "a model changes when it is written and read");
            let [channels, height, width] = model.input();
            let largest = model.layers().iter().map(|layer| layer.output.iter().product::<usize>()).max().unwrap_or(0);
            let macs: u64 = model.layers().iter().fold(0, |sum, layer| sum.saturating_add(layer.macs));
            let is_small = (channels * height * width).max(largest) <= 1 << 14 && macs <= 1 << 20 && model.layers().len() <= 64;
            if is_small {
                let mut session = Session::builder(&model).pool(Pool::inline()).max_batch(1).build().expect("a session");
                let pixels = vec![0.5; channels * height * width];
                let images = Images::nchw_f32(&pixels, [1, channels, height, width]).expect("an image");
                assert_eq!(session.run(images).expect("logits").classes(), model.classes());
            }
        }
        Err(error) => assert_refusal(&error, ErrorKind::Data),
    }
}

/// Reads an array in parts, of which there are at most `most` bytes.
fn array(opened: leanresnet::Result<Reader>, most: u64) {
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(error) => return assert_refusal(&error, ErrorKind::Data),
    };
    let values = reader.shape().iter().product::<usize>();
    assert!(values as u64 <= most, "{:?}", reader.shape());
    let part = values.min(1000);
    let read = match reader.element() {
        ElementType::Unsigned(8) => reader.read_u8(&mut vec![0; part]),
        ElementType::Float(_) => reader.read_f32(&mut vec![0.0; part]),
        ElementType::Text(_) => reader.read_text(&mut vec![String::new(); part]),
        _ => reader.read_i64(&mut vec![0; part]),
    };
    if let Err(error) = read {
        assert_refusal(&error, ErrorKind::Data);
    }
}

/// A picture, brought to two sizes.
pub fn picture(data: &[u8]) {
    for (input, resize) in [([3, 4, 4], None), ([1, 4, 6], Some(8))] {
        // Those that are as large as can be take too long to scale.
        match picture::from_bytes_within(data, Path::new("input"), input, resize, 1 << 18) {
            Ok(pixels) => assert_eq!(pixels.len(), input.iter().product::<usize>()),
            Err(error) => assert_refusal(&error, ErrorKind::Data),
        }
    }
}

/// Images, or after an odd byte labels, of an STL-10 file.
pub fn stl10(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let source = Path::new("input");
    if choice % 2 == 0 {
        match stl10::parse_images(bytes, source) {
            Ok(pixels) => assert!(!pixels.is_empty() && pixels.len() == bytes.len()),
            Err(error) => assert_refusal(&error, ErrorKind::Data),
        }
    } else {
        match stl10::parse_labels(bytes, source) {
            Ok(labels) => assert!(labels.len() == bytes.len() && labels.iter().all(|&label| label < 10)),
            Err(error) => assert_refusal(&error, ErrorKind::Data),
        }
    }
}

/// The network that [`import`] reads state dicts for.
pub fn small_network() -> Network {
    Network::builder().with_input([1, 4, 4]).with_classes(2).with_stage(2, 1).build().expect("a valid network")
}

/// Calls `reader` with `data`, and once more with the right checksum, so that damage reaches what is behind the checksum.
fn with_checksum_repaired(data: &[u8], reader: fn(&[u8])) {
    reader(data);
    if data.get(8..).is_some_and(|text| text.starts_with(FILE_OPENING)) && data.len() >= CHECKSUM_DIGITS.end {
        let mut repaired = data.to_vec();
        repaired[CHECKSUM_DIGITS].fill(b'0');
        let checksum = format!("{:016x}", crc64(&repaired));
        repaired[CHECKSUM_DIGITS].copy_from_slice(checksum.as_bytes());
        reader(&repaired);
    }
}

/// CRC-64/XZ bit by bit, as its definition says.
fn crc64(bytes: &[u8]) -> u64 {
    let shift = |remainder: u64, _| (remainder >> 1) ^ (0xC96C_5795_D787_0F42 * (remainder & 1));
    !bytes.iter().fold(!0, |remainder, &byte| (0..8).fold(remainder ^ u64::from(byte), shift))
}

/// An error about the input has the class that its reader documents, and a message that says what came instead of what.
fn assert_refusal(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    assert!(message.contains("expected ") && message.contains(", got "), "{message}");
}
