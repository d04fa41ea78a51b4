//! STL-10, binary version (Coates, Lee and Ng 2011, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning",
//! <https://cs.stanford.edu/~acoates/stl10>).
//!
//! `train_X.bin` and `test_X.bin` hold images of 3 x 96 x 96 bytes without header: the red, then the green, then the blue plane, each
//! column by column. `train_y.bin` and `test_y.bin` hold a byte per image, its class from 1 to 10. The unlabelled images are not used.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::error::{Error, Result};

use super::{InMemory, Split, file};

const SIDE: usize = 96;
const CHANNELS: usize = 3;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = CHANNELS * PLANE;
const CLASSES: [&str; 10] = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];
const FOLDER: &str = "stl10_binary";
const ORIGIN: &str = "the binary version of STL-10 (https://cs.stanford.edu/~acoates/stl10)";

/// Reads one part of the data set; images are 3 x 96 x 96.
///
/// `dir` is the folder with the `.bin` files, or its parent with `stl10_binary` in it. The files may be compressed by gzip.
///
/// # Errors
/// [`Error::Data`] if a file is missing, damaged, or not of this format; [`Error::Io`] if the system cannot read it.
pub fn open(dir: &Path, split: Split) -> Result<InMemory> {
    let find = |content: &str| file::find(dir, &[FOLDER], &[&format!("{split}_{content}.bin")], ORIGIN);
    let path = find("X")?;
    let pixels = parse_images(&file::read(&path)?, &path)?;
    let path = find("y")?;
    let labels = parse_labels(&file::read(&path)?, &path)?;
    let images = pixels.len() / IMAGE;
    if labels.len() != images {
        let expected = format!("{images} labels, one per image");
        return Err(Error::data(&path, "images and labels do not belong together", expected, labels.len()));
    }
    InMemory::new([CHANNELS, SIDE, SIDE], CLASSES.map(String::from).to_vec(), pixels, labels)
}

/// Reads the images of one decompressed file, 96 x 96 x 3 bytes each, channels last; `source` is its name for messages.
///
/// # Errors
/// [`Error::Data`] if `bytes` is empty or not a whole number of images.
pub fn parse_images(bytes: &[u8], source: &Path) -> Result<Vec<u8>> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(IMAGE) {
        let what = if bytes.is_empty() { "the file is empty" } else { "the file is cut off or of another format" };
        return Err(Error::data(source, what, format!("a multiple of {IMAGE} bytes"), format!("{} bytes", bytes.len())));
    }
    let mut pixels = vec![0; bytes.len()];
    for (planes, pixels) in bytes.chunks_exact(IMAGE).zip(pixels.chunks_exact_mut(IMAGE)) {
        for (position, pixel) in pixels.chunks_exact_mut(CHANNELS).enumerate() {
            let (row, column) = (position / SIDE, position % SIDE);
            for (channel, value) in pixel.iter_mut().enumerate() {
                *value = planes[channel * PLANE + column * SIDE + row];
            }
        }
    }
    Ok(pixels)
}

/// Reads the labels of one decompressed file, counted from 0.
///
/// # Errors
/// [`Error::Data`] if `bytes` is empty or has another class than 1 to 10.
pub fn parse_labels(bytes: &[u8], source: &Path) -> Result<Vec<u32>> {
    if bytes.is_empty() {
        return Err(Error::data(source, "the file is empty", "a byte per image", "0 bytes"));
    }
    let class = |(index, &byte): (usize, &u8)| match usize::from(byte) {
        1..=10 => Ok(u32::from(byte) - 1),
        _ => Err(Error::data(source, format!("label {index} is out of range"), "a class from 1 to 10", byte)),
    };
    bytes.iter().enumerate().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::data::file::tests::{assert_data_error, gzip};
    use proptest::prelude::*;

    /// A file of `count` images whose bytes differ per image, channel, row and column.
    fn images(count: usize) -> Vec<u8> {
        let byte = |image, channel, row, column| (image * 13 + channel * 31 + row * 7 + column * 3) as u8;
        let column = move |image, channel, column| (0..SIDE).map(move |row| byte(image, channel, row, column));
        let plane = move |image, channel| (0..SIDE).flat_map(move |at| column(image, channel, at));
        (0..count).flat_map(|image| (0..CHANNELS).flat_map(move |channel| plane(image, channel))).collect()
    }

    #[test]
    fn columns_become_rows() {
        let pixels = parse_images(&images(2), Path::new("x")).unwrap();
        for (image, row, column) in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 95, 3), (1, 7, 94)] {
            let pixel = &pixels[image * IMAGE + (row * SIDE + column) * CHANNELS..][..CHANNELS];
            assert_eq!(pixel, [0, 1, 2].map(|channel| (image * 13 + channel * 31 + row * 7 + column * 3) as u8));
        }
        assert_eq!(parse_labels(&[1, 10, 2], Path::new("y")).unwrap(), [0, 9, 1]);
    }

    #[test]
    fn damaged_bytes_are_typed_errors() {
        let source = Path::new("train_X.bin");
        assert_data_error(parse_images(&[], source), &["train_X.bin", "empty"]);
        for length in [1, IMAGE - 1, IMAGE + 1] {
            assert_data_error(parse_images(&vec![0; length], source), &["cut off", "27648", &format!("got {length} bytes")]);
        }
        assert_data_error(parse_labels(&[], source), &["empty"]);
        assert_data_error(parse_labels(&[1, 0], source), &["label 1", "1 to 10", "got 0"]);
        assert_data_error(parse_labels(&[11], source), &["label 0", "got 11"]);
    }

    #[test]
    fn reads_the_files_from_the_folder_or_its_parent() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(FOLDER);
        std::fs::create_dir(&folder).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        write("train_X.bin", &images(2));
        write("test_X.bin.gz", &gzip(&images(1)));
        write("test_y.bin", &[10]);
        assert_data_error(open(parent.path(), Split::Train), &["missing", "train_y.bin", "STL-10", "stl10_binary"]);
        write("train_y.bin", &[1, 2, 3]);
        assert_data_error(open(parent.path(), Split::Train), &["train_y.bin", "do not belong together", "2 labels", "got 3"]);
        write("train_y.bin", &[1, 2]);
        for dir in [parent.path(), &folder] {
            let train = open(dir, Split::Train).unwrap();
            assert_eq!((train.len(), train.shape(), train.label(1)), (2, [3, 96, 96], 1));
            let mut pixels = vec![0; IMAGE];
            train.image(1, &mut pixels).unwrap();
            assert_eq!(pixels[..], parse_images(&images(2), Path::new("x")).unwrap()[IMAGE..]);
            let test = open(dir, Split::Test).unwrap();
            assert_eq!((test.label(0), test.class_names()[9].as_str()), (9, "truck"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 1..8), images in 0..3_usize, extra in 0..2_usize) {
            let length = images * IMAGE + extra;
            let repeated: Vec<u8> = bytes.iter().copied().cycle().take(length).collect();
            prop_assert_eq!(parse_images(&repeated, Path::new("x")).is_ok(), extra == 0 && images > 0);
            let labels = parse_labels(&bytes, Path::new("y"));
            prop_assert_eq!(labels.is_ok(), bytes.iter().all(|byte| (1..=10).contains(byte)));
        }
    }
}
