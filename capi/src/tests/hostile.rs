//! Bytes that are no model, damaged, or made to do harm.

use std::ptr;

use super::{from_memory, made, model};
use crate::model::leanresnet_model_from_memory;
use crate::status::Status;

/// A file with this header, whatever it says of its length.
fn file(length: u64, header: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), header].concat()
}

fn refused(bytes: &[u8]) -> String {
    match from_memory(bytes) {
        Ok(_) => panic!("{} bytes were taken for a model", bytes.len()),
        Err((status, message)) => {
            assert_eq!(status, Status::Data, "{message}");
            message
        }
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    for bytes in [
        &b""[..],
        b"x",
        b"\x89PNG\r\n\x1a\n",
        &file(u64::MAX, b"{}"),
        &file(1 << 40, b"{}"),
        &file(2, b"{}"),
        &file(4, b"null"),
        &file(3, b"\xff\xff\xff"),
        &file(nested.len() as u64, &nested),
        &[0; 4096],
    ] {
        refused(bytes);
    }
}

#[test]
fn no_bytes_may_be_null() {
    // SAFETY: C1: no bytes, and places for one handle and one text.
    let failure = made(|model, error| unsafe { leanresnet_model_from_memory(ptr::null(), 0, model, error) }).unwrap_err();
    assert_eq!(failure.0, Status::Data);
}

#[test]
fn lengths_beyond_memory_are_refused_unread() {
    let byte = 0;
    for length in [usize::MAX, isize::MAX as usize + 1] {
        // SAFETY: of such a length, no byte is read.
        let failure = made(|model, error| unsafe { leanresnet_model_from_memory(&raw const byte, length, model, error) });
        let (status, message) = failure.unwrap_err();
        assert_eq!(status, Status::Usage);
        assert_eq!(message, format!("shape of bytes; expected a length that fits memory, got {length} values"));
    }
}

#[test]
fn a_part_of_a_model_is_refused() {
    let whole = model().to_bytes().unwrap();
    let step = whole.len() / 200 + 1;
    for length in (0..200).chain((200..whole.len()).step_by(step)).chain([whole.len() - 1]) {
        refused(&whole[..length]);
    }
    refused(&[&whole[..], b"more"].concat());
}

#[test]
fn a_damaged_header_is_refused_or_means_the_same() {
    let whole = model().to_bytes().unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (mut taken, mut kept_out) = (0, 0);
    for at in (0..header).step_by(header / 300 + 1) {
        for flip in [0x01, 0x20, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            // A letter of a class's name may change; what may never happen is another status, or none.
            match from_memory(&bytes) {
                Ok(_) => taken += 1,
                Err((status, message)) => {
                    assert_eq!(status, Status::Data, "byte {at}: {message}");
                    kept_out += 1;
                }
            }
        }
    }
    assert!(kept_out > 10 * taken, "{kept_out} refused, {taken} taken");
}
