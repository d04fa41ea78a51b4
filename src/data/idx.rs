//! IDX files, as of MNIST and its relatives (LeCun, Cortes and Burges, "The MNIST database", which describes the format).
//!
//! A file starts with 4 bytes: 0, 0, the type of the values (8: unsigned bytes, the only one here) and the number of dimensions.
//! Then comes each dimension as a big-endian 32-bit number, then the values, the last dimension fastest. Images have the
//! dimensions count, rows, columns; labels have the dimension count. Files are `train-images-idx3-ubyte`,
//! `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, plain or compressed by gzip; the spelling
//! `train-images.idx3-ubyte` is common, too.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::data_file;

use super::file::{self, Gzip, MAX_BYTES};
use super::{InMemory, Split, numbered_classes};

const SIDE: usize = 28;
const CLASSES: usize = 10;
const MAGIC_BYTES: usize = 4;

const FASHION_CLASSES: [&str; CLASSES] =
    ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

/// Which data set of the family: they differ in the names of their classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idx {
    /// MNIST: handwritten digits.
    Mnist,
    /// Fashion-MNIST: articles of clothing (Xiao, Rasul and Vollgraf 2017).
    FashionMnist,
}

impl Idx {
    /// Reads one part of the data set; images are 1 x 28 x 28.
    ///
    /// # Errors
    /// [`Error::Data`] if a file is missing, damaged, or not of this format; [`Error::Io`] if the system cannot read it.
    pub fn open(self, dir: &Path, split: Split) -> Result<InMemory> {
        let image_bytes = self.read(dir, split, "images", "idx3")?;
        let images = parse_images(&image_bytes.content, &image_bytes.path)?;
        if [images.rows, images.columns] != [SIDE, SIDE] {
            let got = format!("{} x {}", images.rows, images.columns);
            return Err(Error::data(&image_bytes.path, "size of the images", format!("{SIDE} x {SIDE}"), got));
        }
        let label_bytes = self.read(dir, split, "labels", "idx1")?;
        let labels = parse_labels(&label_bytes.content, CLASSES, &label_bytes.path)?;
        if labels.len() != images.count {
            return Err(Error::data(
                &label_bytes.path,
                "images and labels do not belong together",
                format!("{} labels, one per image", images.count),
                labels.len(),
            ));
        }
        let labels = labels.iter().map(|&label| u32::from(label)).collect();
        InMemory::new([1, SIDE, SIDE], self.class_names(), images.pixels.to_vec(), labels)
    }

    fn read(self, dir: &Path, split: Split, content: &str, rank: &str) -> Result<IdxFile> {
        let part = match split {
            Split::Train => "train",
            Split::Test => "t10k",
        };
        let names = [format!("{part}-{content}-{rank}-ubyte"), format!("{part}-{content}.{rank}-ubyte")];
        let path = file::find(dir, &[], &[&names[0], &names[1]], self.origin())?;
        let content = decompress(data_file::read(&path, MAX_BYTES)?, &path)?;
        Ok(IdxFile { path, content })
    }

    fn class_names(self) -> Vec<String> {
        match self {
            Idx::Mnist => numbered_classes(CLASSES),
            Idx::FashionMnist => FASHION_CLASSES.map(String::from).to_vec(),
        }
    }

    fn origin(self) -> &'static str {
        match self {
            Idx::Mnist => "MNIST (http://yann.lecun.com/exdb/mnist)",
            Idx::FashionMnist => "Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist)",
        }
    }
}

struct IdxFile {
    path: std::path::PathBuf,
    content: Vec<u8>,
}

/// The images of an IDX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images<'a> {
    /// Number of images.
    pub count: usize,
    /// Height of every image.
    pub rows: usize,
    /// Width of every image.
    pub columns: usize,
    /// The images one after the other, rows x columns bytes each.
    pub pixels: &'a [u8],
}

/// Reads the bytes of a decompressed image file; `source` is its name for messages.
///
/// # Errors
/// [`Error::Data`] if the header is not that of 3-dimensional bytes, a dimension is 0, or the length differs from what it states.
pub fn parse_images<'a>(bytes: &'a [u8], source: &Path) -> Result<Images<'a>> {
    let ([count, rows, columns], pixels) = parse::<3>(bytes, source)?;
    Ok(Images { count, rows, columns, pixels })
}

/// Reads the bytes of a decompressed label file; every label is less than `classes`.
///
/// # Errors
/// [`Error::Data`] if the header is not that of 1-dimensional bytes, there is no label, the length differs from what the header
/// states, or a label is out of range.
pub fn parse_labels<'a>(bytes: &'a [u8], classes: usize, source: &Path) -> Result<&'a [u8]> {
    let ([_], labels) = parse::<1>(bytes, source)?;
    if let Some(position) = labels.iter().position(|&label| usize::from(label) >= classes) {
        let what = format!("label {position} is out of range");
        return Err(Error::data(source, what, format!("a label below {classes}"), labels[position]));
    }
    Ok(labels)
}

/// Decompresses a file if it is compressed by gzip.
///
/// The header inside states the size of the content, so no more than that and one byte is ever decompressed: the byte lets
/// [`parse_images`] and [`parse_labels`] see that there is too much.
///
/// # Errors
/// [`Error::Data`] if the gzip stream is damaged, its content is not IDX of bytes, or too large.
pub fn decompress(bytes: Vec<u8>, source: &Path) -> Result<Vec<u8>> {
    if !file::is_gzip(&bytes) {
        return Ok(bytes);
    }
    let mut stream = Gzip::new(&bytes, source);
    let magic = stream.read_up_to(MAGIC_BYTES as u64)?;
    let dimensions = match magic {
        [0, 0, 8, dimensions @ (1 | 3)] => usize::from(*dimensions),
        _ => return Err(wrong_magic(magic, "0 0 8 3 or 0 0 8 1", source)),
    };
    let header = MAGIC_BYTES + 4 * dimensions;
    let sides = dimensions_of(stream.read_up_to(header as u64)?, dimensions, source)?;
    let values = value_count(&sides, source)?;
    stream.read_up_to((header + values + 1) as u64)?;
    Ok(stream.into_content())
}

/// The dimensions and the values of a file of `N`-dimensional bytes.
fn parse<'a, const N: usize>(bytes: &'a [u8], source: &Path) -> Result<([usize; N], &'a [u8])> {
    if bytes.get(..MAGIC_BYTES) != Some(&[0, 0, 8, N as u8]) {
        return Err(wrong_magic(bytes, &format!("0 0 8 {N}"), source));
    }
    let sides = dimensions_of(bytes, N, source)?;
    let expected = value_count(&sides, source)?;
    let values = &bytes[MAGIC_BYTES + 4 * N..];
    if values.len() != expected {
        let what = if values.len() < expected { "the file is cut off" } else { "there are bytes after the end" };
        return Err(Error::data(source, what, format!("{expected} bytes after the header"), format!("{}", values.len())));
    }
    let mut fixed = [0; N];
    fixed.copy_from_slice(&sides);
    Ok((fixed, values))
}

/// The dimensions that the header of `bytes` states.
fn dimensions_of(bytes: &[u8], count: usize, source: &Path) -> Result<Vec<usize>> {
    let header = MAGIC_BYTES + 4 * count;
    let Some(sides) = bytes.get(MAGIC_BYTES..header) else {
        return Err(Error::data(source, "the header is cut off", format!("{header} bytes"), format!("{} bytes", bytes.len())));
    };
    Ok(sides.chunks_exact(4).map(|side| u32::from_be_bytes([side[0], side[1], side[2], side[3]]) as usize).collect())
}

/// The number of values in a file of these dimensions.
fn value_count(sides: &[usize], source: &Path) -> Result<usize> {
    let product = sides.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
    match product {
        Some(count) if count > 0 && count as u64 <= MAX_BYTES => Ok(count),
        _ => {
            let expected = format!("at least 1 each and at most {MAX_BYTES} values");
            Err(Error::data(source, "dimensions in the header", expected, format!("{sides:?}")))
        }
    }
}

fn wrong_magic(bytes: &[u8], expected: &str, source: &Path) -> Error {
    let start = &bytes[..bytes.len().min(MAGIC_BYTES)];
    let got = if start.is_empty() { "an empty file".to_string() } else { format!("{start:?}") };
    Error::data(source, "not an IDX file of this kind", format!("a start with the bytes {expected}"), got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::data::file::tests::{assert_data_error, gzip};
    use proptest::prelude::*;

    fn source() -> &'static Path {
        Path::new("some-ubyte")
    }

    /// An IDX file of these dimensions, whatever `values` are.
    fn idx(sides: &[u32], values: &[u8]) -> Vec<u8> {
        let header = [0, 0, 8, sides.len() as u8].into_iter().chain(sides.iter().flat_map(|side| side.to_be_bytes()));
        header.chain(values.iter().copied()).collect()
    }

    fn image_file(count: u32) -> Vec<u8> {
        let pixels: Vec<u8> = (0..count * 784).map(|position| (position % 251) as u8).collect();
        idx(&[count, 28, 28], &pixels)
    }

    #[test]
    fn reads_dimensions_and_values() {
        let bytes = idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let expected = Images { count: 2, rows: 1, columns: 3, pixels: &[1, 2, 3, 4, 5, 6] };
        assert_eq!(parse_images(&bytes, source()).unwrap(), expected);
        assert_eq!(parse_labels(&idx(&[3], &[0, 9, 1]), 10, source()).unwrap(), [0, 9, 1]);
    }

    #[test]
    fn damaged_bytes_are_typed_errors() {
        let images = idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        assert_data_error(parse_images(&[], source()), &["some-ubyte", "not an IDX file", "0 0 8 3", "an empty file"]);
        for length in 1..images.len() {
            let word =
                ["not an IDX file", "header is cut off", "file is cut off"][usize::from(length >= 4) + usize::from(length >= 16)];
            assert_data_error(parse_images(&images[..length], source()), &["some-ubyte", word]);
        }
        assert_data_error(parse_images(&[&images[..], &[0]].concat(), source()), &["bytes after the end", "6 bytes", "got 7"]);
        assert_data_error(parse_images(&idx(&[3], &[1, 2, 3]), source()), &["0 0 8 3", "[0, 0, 8, 1]"]);
        assert_data_error(parse_labels(&images, 10, source()), &["0 0 8 1", "[0, 0, 8, 3]"]);
        assert_data_error(parse_images(b"\x1f\x8b\x08\x00", source()), &["not an IDX file"]);
        assert_data_error(parse_labels(&idx(&[3], &[0, 10, 1]), 10, source()), &["label 1", "below 10", "got 10"]);
    }

    #[test]
    fn impossible_dimensions_are_typed_errors() {
        for sides in [[0, 28, 28], [1, 0, 28], [1 << 20, 1 << 10, 1], [u32::MAX; 3]] {
            for bytes in [idx(&sides, &[1, 2]), decompress(idx(&sides, &[1, 2]), source()).unwrap()] {
                assert_data_error(parse_images(&bytes, source()), &["dimensions in the header", "at most 268435456"]);
            }
            assert_data_error(decompress(gzip(&idx(&sides, &[1, 2])), source()), &["dimensions in the header"]);
        }
    }

    #[test]
    fn decompresses_what_the_header_states() {
        let images = image_file(2);
        assert_eq!(decompress(images.clone(), source()).unwrap(), images);
        assert_eq!(decompress(gzip(&images), source()).unwrap(), images);
        // A header that states less than follows: a megabyte of zeros is not decompressed.
        let bomb = gzip(&[idx(&[1, 2, 2], &[1, 2, 3, 4]), vec![0; 1 << 20]].concat());
        let content = decompress(bomb, source()).unwrap();
        assert_eq!(content.len(), 16 + 4 + 1);
        assert_data_error(parse_images(&content, source()), &["bytes after the end"]);
        // One that states more: what there is, is too short.
        let short = decompress(gzip(&idx(&[1000, 1000, 100], &[1])), source()).unwrap();
        assert!(short.capacity() < 1 << 16);
        assert_data_error(parse_images(&short, source()), &["file is cut off", "100000000 bytes"]);
        let packed = gzip(&images);
        for length in 2..packed.len() {
            assert_data_error(decompress(packed[..length].to_vec(), source()), &["gzip stream is damaged"]);
        }
        assert_data_error(decompress(gzip(b"text"), source()), &["not an IDX file"]);
        assert_data_error(decompress(gzip(&images[..10]), source()), &["header is cut off"]);
    }

    fn write(dir: &Path, name: &str, bytes: &[u8]) {
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    #[test]
    fn reads_all_spellings() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "train-images-idx3-ubyte", &image_file(3));
        write(dir.path(), "train-labels.idx1-ubyte.gz", &gzip(&idx(&[3], &[5, 0, 9])));
        write(dir.path(), "t10k-images.idx3-ubyte", &image_file(1));
        write(dir.path(), "t10k-labels-idx1-ubyte.gz", &gzip(&idx(&[1], &[2])));
        let train = Idx::FashionMnist.open(dir.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.shape(), train.label(2)), (3, [1, 28, 28], 9));
        assert_eq!(train.class_names()[9], "ankle boot");
        let mut pixels = [0; 784];
        train.image(1, &mut pixels).unwrap();
        assert_eq!(pixels[..], image_file(3)[16 + 784..16 + 2 * 784]);
        let test = Idx::Mnist.open(dir.path(), Split::Test).unwrap();
        assert_eq!((test.len(), test.label(0), test.class_names()[2].as_str()), (1, 2, "2"));
    }

    #[test]
    fn files_that_do_not_fit_are_typed_errors() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Idx::Mnist.open(dir.path(), Split::Test);
        assert_data_error(open(), &["missing", "t10k-images-idx3-ubyte", "MNIST"]);
        write(dir.path(), "t10k-images-idx3-ubyte", &idx(&[1, 2, 2], &[1, 2, 3, 4]));
        assert_data_error(open(), &["size of the images", "28 x 28", "2 x 2"]);
        write(dir.path(), "t10k-images-idx3-ubyte", &image_file(2));
        assert_data_error(open(), &["missing", "t10k-labels-idx1-ubyte"]);
        write(dir.path(), "t10k-labels-idx1-ubyte", &idx(&[3], &[1, 2, 3]));
        assert_data_error(open(), &["t10k-labels-idx1-ubyte", "do not belong together", "2 labels", "got 3"]);
        write(dir.path(), "t10k-labels-idx1-ubyte", &idx(&[2], &[1, 10]));
        assert_data_error(open(), &["t10k-labels-idx1-ubyte", "label 1", "below 10"]);
        std::fs::remove_file(dir.path().join("t10k-images-idx3-ubyte")).unwrap();
        std::fs::create_dir(dir.path().join("t10k-images-idx3-ubyte")).unwrap();
        assert_data_error(open(), &["not a regular file", "a folder"]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..64), dimensions in 0..5_u8, magic: bool) {
            let bytes = if magic { [&[0, 0, 8, dimensions], &tail[..]].concat() } else { tail };
            let _ = parse_images(&bytes, source());
            let _ = parse_labels(&bytes, 10, source());
            let _ = decompress([&[0x1f, 0x8b, 8, 0], &bytes[..]].concat(), source());
            if let Ok(content) = decompress(gzip(&bytes), source()) {
                prop_assert!(bytes.starts_with(&content));
            }
        }

        #[test]
        fn small_files_round_trip(count in 1..4_u32, rows in 1..4_u32, columns in 1..4_u32, fill: u8) {
            let pixels = vec![fill; (count * rows * columns) as usize];
            let content = decompress(gzip(&idx(&[count, rows, columns], &pixels)), source()).unwrap();
            let images = parse_images(&content, source()).unwrap();
            prop_assert_eq!([images.count, images.rows, images.columns], [count, rows, columns].map(|side| side as usize));
            prop_assert_eq!(images.pixels, pixels);
        }
    }
}
