//! Files that NumPy 2 made, read back; and data sets of them.
//!
//! ```python
//! import numpy as np
//! np.save('float32.npy', np.arange(24, dtype='<f4').reshape(2, 3, 2, 2) / 8 - 1)
//! np.save('int32-big-endian.npy', np.array([3, -1, 2**31 - 1], '>i4'))
//! np.save('column-major.npy', np.asfortranarray(np.arange(6.0).reshape(2, 3)))
//! np.save('object.npy', np.array([{}], dtype=object), allow_pickle=True)
//! x = (np.arange(4 * 3 * 2 * 2) % 251).astype('uint8').reshape(4, 3, 2, 2)
//! np.savez_compressed('uint8-deflated.npz', x=x, y=np.array([0, 2, 1, 2]), class_names=np.array(['cat', 'dog', 'café']))
//! np.savez('float64-stored.npz', x=x / 255, y=np.array([[0], [2], [1], [2]], 'uint8'))
//! ```
#![forbid(unsafe_code)]

mod datasets;

use std::path::{Path, PathBuf};

use leanresnet::npy::{self, Archive, Reader};
use leanresnet::{Error, ErrorKind};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npy").join(name)
}

fn refusal(error: &Error, words: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::Data);
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn arrays_have_numpys_values() {
    let mut array = Reader::open(fixture("float32.npy")).unwrap();
    assert_eq!(array.image_shape().unwrap(), [2, 3, 2, 2]);
    let mut values = [0.0; 24];
    array.read_f32(&mut values).unwrap();
    assert!(values.iter().enumerate().all(|(at, &value)| value == at as f32 / 8.0 - 1.0), "{values:?}");
    let mut integers = [0; 3];
    Reader::open(fixture("int32-big-endian.npy")).unwrap().read_i64(&mut integers).unwrap();
    assert_eq!(integers, [3, -1, i64::from(i32::MAX)]);
}

#[test]
fn archives_have_numpys_values() {
    let deflated = Archive::open(fixture("uint8-deflated.npz")).unwrap();
    assert_eq!(deflated.names().collect::<Vec<_>>(), ["class_names", "x", "y"]);
    let mut bytes = [0; 48];
    deflated.array("x").unwrap().read_u8(&mut bytes).unwrap();
    assert!(bytes.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at), "{bytes:?}");
    let mut names = [const { String::new() }; 3];
    deflated.array("class_names").unwrap().read_text(&mut names).unwrap();
    assert_eq!(names, ["cat", "dog", "café"]);
    let mut shares = [0.0; 48];
    npy::open(fixture("float64-stored.npz"), "x").unwrap().read_f32(&mut shares).unwrap();
    assert!(shares.iter().enumerate().all(|(at, &share)| share == (at as f64 / 255.0) as f32), "{shares:?}");
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    refusal(&Reader::open(fixture("column-major.npy")).unwrap_err(), &["column-major.npy", "numpy.ascontiguousarray"]);
    refusal(&Reader::open(fixture("object.npy")).unwrap_err(), &["type of the values", "`|O`", "astype"]);
    refusal(&Reader::open(fixture("uint8-deflated.npz")).unwrap_err(), &["format", ".npy"]);
    refusal(&Archive::open(fixture("float32.npy")).unwrap_err(), &["not a whole zip archive", "numpy.savez"]);
}
