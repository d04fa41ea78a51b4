//! Scalars for `TensorBoard`: the results of every epoch in an event file beside `metrics.jsonl`.
//!
//! An event file is a sequence of records (`tensorflow/core/lib/io/record_writer.h`), each an `Event` message of
//! `tensorflow/core/util/event.proto`. Every process of a run writes a file of its own; `TensorBoard` shows them as one.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics::{EpochMetrics, EpochTiming};
use crate::error::{Error, Result};

/// One event file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventFile {
    path: PathBuf,
}

impl EventFile {
    /// Makes a new event file in the folder of a run that begins after `step` steps: what an earlier file says of later ones is void.
    pub(super) fn create(folder: &Path, step: u64) -> Result<Self> {
        let now = seconds();
        let mut beginning = record(&event(now, step, &string_field(field::FILE_VERSION, "brain.Event:2")));
        // The results of the step itself stay.
        beginning.extend(record(&event(now, step + 1, &bytes_field(field::SESSION_LOG, &varint_field(1, SESSION_START)))));
        let mut number = 0;
        loop {
            let path = folder.join(format!("events.out.tfevents.{}.leanresnet.{number}", now as u64));
            let made =
                OpenOptions::new().create_new(true).write(true).open(&path).and_then(|mut file| file.write_all(&beginning));
            match made {
                Ok(()) => return Ok(EventFile { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::io("write", &path, error)),
            }
        }
    }

    /// Adds the results of an epoch.
    pub(super) fn append(&self, metrics: &EpochMetrics, timing: &EpochTiming) -> Result<()> {
        let mut scalars = vec![
            ("loss/train", metrics.train_loss),
            ("top1/train", metrics.train_top1),
            ("learning_rate", f64::from(metrics.learning_rate)),
            ("images_per_second", timing.images_per_second),
        ];
        let validation = [("loss/validation", metrics.val_loss), ("top1/validation", metrics.val_top1)];
        scalars.extend(validation.into_iter().filter_map(|(tag, value)| value.map(|value| (tag, value))));
        let bytes = record(&event(seconds(), metrics.step, &bytes_field(field::SUMMARY, &summary(&scalars))));
        let appended = OpenOptions::new().append(true).open(&self.path).and_then(|mut file| file.write_all(&bytes));
        appended.map_err(|error| Error::io("write", &self.path, error))
    }
}

/// Numbers of the fields of `Event`.
mod field {
    pub(super) const WALL_TIME: u64 = 1;
    pub(super) const STEP: u64 = 2;
    pub(super) const FILE_VERSION: u64 = 3;
    pub(super) const SUMMARY: u64 = 5;
    pub(super) const SESSION_LOG: u64 = 7;
}

/// `SessionLog.START`: the reader drops what it knows of this step and later ones.
const SESSION_START: u64 = 1;

/// Seconds since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An `Event` with one of its contents, encoded already.
fn event(wall_time: f64, step: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = key(field::WALL_TIME, FIXED64);
    bytes.extend(wall_time.to_le_bytes());
    bytes.extend(varint_field(field::STEP, step));
    bytes.extend(content);
    bytes
}

/// A `Summary` of scalars: values of a tag (1) and a simple value (2) each.
fn summary(scalars: &[(&str, f64)]) -> Vec<u8> {
    let value = |&(tag, number): &(&str, f64)| {
        let mut value = string_field(1, tag);
        value.extend(key(2, FIXED32));
        value.extend((number as f32).to_le_bytes());
        bytes_field(1, &value)
    };
    scalars.iter().flat_map(value).collect()
}

// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

fn key(field: u64, wire_type: u64) -> Vec<u8> {
    varint(field << 3 | wire_type)
}

/// Seven bits per byte, the lowest first; the highest bit says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn varint_field(field: u64, value: u64) -> Vec<u8> {
    [key(field, VARINT), varint(value)].concat()
}

fn bytes_field(field: u64, value: &[u8]) -> Vec<u8> {
    [&key(field, LENGTH), &varint(value.len() as u64), value].concat()
}

fn string_field(field: u64, value: &str) -> Vec<u8> {
    bytes_field(field, value.as_bytes())
}

/// A record: length, checksum of the length, data, checksum of the data.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_checksum(&length), data, &masked_checksum(data)].concat()
}

/// CRC-32C, turned and shifted so that checksums of data that hold checksums stay good ones.
fn masked_checksum(data: &[u8]) -> [u8; 4] {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32 with the polynomial of Castagnoli. The records are short: bit by bit is fast enough.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    };
    !data.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    /// The record that `tensorboard.summary.writer` 2.21 writes for the same event.
    const EVENT: &str = "2100000000000000017becf609000000000000f83f10ac022a130a110a0a6c6f73732f747261696e150000003f9c63fd94";

    #[test]
    fn events_are_those_of_tensorboard() {
        let event = event(1.5, 300, &bytes_field(field::SUMMARY, &summary(&[("loss/train", 0.5)])));
        assert_eq!(hex(&record(&event)), EVENT);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    #[test]
    fn every_process_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (EventFile::create(folder.path(), 0).unwrap(), EventFile::create(folder.path(), 7).unwrap());
        assert_ne!(first, second);
        let before = std::fs::read(&second.path).unwrap();
        let metrics = EpochMetrics {
            epoch: 1,
            step: 10,
            learning_rate: 0.1,
            train_loss: 1.0,
            train_top1: 0.5,
            val_loss: Some(2.0),
            val_top1: None,
            val_top5: None,
        };
        let timing =
            EpochTiming { epoch: 1, train_seconds: 1.0, train_images: 10, images_per_second: 10.0, evaluate_seconds: 0.0 };
        second.append(&metrics, &timing).unwrap();
        let after = std::fs::read(&second.path).unwrap();
        assert!(after.starts_with(&before));
        let text = String::from_utf8_lossy(&after[before.len()..]).into_owned();
        assert!(
            ["loss/train", "top1/train", "learning_rate", "images_per_second", "loss/validation"]
                .iter()
                .all(|tag| text.contains(tag))
        );
        assert!(!text.contains("top1/validation"));
    }
}
