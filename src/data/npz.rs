//! Data sets as arrays of NumPy.
//!
//! A folder holds `train.npz` and `test.npz`, or in place of the second one `val.npz` or `valid.npz`. In each of them
//!
//! | array | shape | values |
//! |---|---|---|
//! | `x` | \[n, channels, height, width\], or \[n, height, width\] for one channel | uint8, float32, or float64, which is rounded to float32 |
//! | `y` | \[n\] or \[n, 1\] | integers of any size: the classes from 0 on |
//! | `class_names` | \[classes\] | text; may be missing, and then classes are called by their numbers |
//!
//! or a single file, given in place of the folder, has both parts as `x_train`, `y_train`, `x_test` and `y_test`, as Keras'
//! `mnist.npz`. Without `class_names` there are as many classes as the largest label of both parts says.
//!
//! Bytes are normalised like those of other data sets. Floats are what the network reads, and nothing normalises them.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::npy::{Archive, ElementType, Reader};

use super::{InMemory, MAX_SET_BYTES, Split, numbered_classes};

/// Most classes, as of a network.
const MAX_CLASSES: i64 = 65_536;
/// The array with the names of classes.
const CLASS_NAMES: &str = "class_names";

/// Reads one part of the data set in the folder or file `dir`.
///
/// The pixels may take 8 GiB: as bytes or, for floats, as 4 bytes each.
///
/// # Errors
/// [`Error::Data`] if a file or array is missing, damaged, too large, or not as [the module](self) says, and for numbers that are not
/// finite; [`Error::Io`] if the system cannot read it.
pub fn open(dir: &Path, split: Split) -> Result<InMemory> {
    let part = Part::find(dir, split)?.map_or_else(|| Err(missing(dir, split)), Ok)?;
    let labels = part.labels()?;
    // The other part knows classes that this one may lack.
    let other = Part::find(dir, if split == Split::Train { Split::Test } else { Split::Train })?;
    let class_names = class_names(&part, &labels, other.as_ref())?;
    let wrong = |error| Error::data(&part.path, "arrays that do not fit together", "a class and a name for every image", error);
    let mut images = part.archive.array(part.images)?;
    let [count, channels, height, width] = part.image_shape(&images, labels.len())?;
    let shape = [channels, height, width];
    if images.element() == ElementType::Unsigned(8) {
        let pixels = read_images(&mut images, count, shape, Reader::read_u8)?;
        InMemory::new(shape, class_names, pixels, labels).map_err(wrong)
    } else {
        let pixels = read_images(&mut images, count, shape, Reader::read_f32)?;
        if let Some(position) = pixels.iter().position(|pixel| !pixel.is_finite()) {
            let what = format!("number of image {}", position / (channels * height * width));
            return Err(images.wrong(what, "finite numbers", pixels[position]));
        }
        InMemory::from_f32(shape, class_names, pixels, labels).map_err(wrong)
    }
}

/// The names of the classes: those that the part says, or the other one, or numbers.
fn class_names(part: &Part, labels: &[u32], other: Option<&Part>) -> Result<Vec<String>> {
    for part in [Some(part), other].into_iter().flatten() {
        if let Some(names) = part.class_names()? {
            return Ok(names);
        }
    }
    let others = other.map_or(Ok(Vec::new()), Part::labels)?;
    let largest = labels.iter().chain(&others).max();
    Ok(numbered_classes(largest.map_or(0, |&label| label as usize + 1)))
}

/// One part of a data set: an archive, and what its arrays are called.
struct Part {
    path: PathBuf,
    archive: Archive,
    images: &'static str,
    labels: &'static str,
}

impl Part {
    /// `None` if there is none.
    fn find(dir: &Path, split: Split) -> Result<Option<Self>> {
        let (path, images, labels) = if dir.is_file() {
            let [images, labels] = if split == Split::Train { ["x_train", "y_train"] } else { ["x_test", "y_test"] };
            (dir.to_path_buf(), images, labels)
        } else {
            let mut paths = split.names().iter().map(|name| dir.join(format!("{name}.npz")));
            let Some(path) = paths.find(|path| path.exists()) else { return Ok(None) };
            (path, "x", "y")
        };
        let archive = Archive::open(&path)?;
        Ok(Some(Self { path, archive, images, labels }))
    }

    /// The class of every image.
    fn labels(&self) -> Result<Vec<u32>> {
        let mut array = self.archive.array(self.labels)?;
        let ([count] | [count, 1]) = *array.shape() else {
            let got = format!("{:?}", array.shape());
            return Err(array.wrong("shape of the labels", "[n], a class per image (y.argmax(1) of one-hot rows)", got));
        };
        let mut labels = reserve(&array, count)?;
        labels.resize(count, 0);
        array.read_i64(&mut labels)?;
        let class = |(index, label): (usize, i64)| match label {
            0..MAX_CLASSES => Ok(label as u32),
            _ => Err(array.wrong(
                format!("label {index} is out of range"),
                format!("a class from 0 to {}", MAX_CLASSES - 1),
                label,
            )),
        };
        labels.into_iter().enumerate().map(class).collect()
    }

    fn class_names(&self) -> Result<Option<Vec<String>>> {
        if !self.archive.contains(CLASS_NAMES) {
            return Ok(None);
        }
        let mut array = self.archive.array(CLASS_NAMES)?;
        let [count @ 1..=65_536] = *array.shape() else {
            let got = format!("{:?}", array.shape());
            return Err(array.wrong("shape of the names", format!("[classes], at most {MAX_CLASSES}"), got));
        };
        let mut names = vec![String::new(); count];
        array.read_text(&mut names)?;
        Ok(Some(names))
    }

    /// The shape of `images`, which belong to so many labels.
    fn image_shape(&self, images: &Reader, labels: usize) -> Result<[usize; 4]> {
        let shape = images.image_shape()?;
        let [count, channels, height, width] = shape;
        if count != labels {
            let what = format!("images and the labels `{}` do not belong together", self.labels);
            return Err(images.wrong(what, format!("{labels} images, as there are labels"), count));
        }
        if channels == height && height > 4 && [1, 3].contains(&width) {
            let wanted = "[n, channels, height, width]: x.transpose(0, 3, 1, 2) brings channels to the front";
            return Err(images.wrong("shape of images whose channels are last", wanted, format!("{shape:?}")));
        }
        let is_bytes = images.element() == ElementType::Unsigned(8);
        if !is_bytes && !images.element().is_float() {
            return Err(images.wrong("type of the values", "uint8, float32 or float64", images.element()));
        }
        Ok(shape)
    }
}

fn missing(dir: &Path, split: Split) -> Error {
    let names: Vec<String> = split.names().iter().map(|name| format!("{name}.npz")).collect();
    Error::data(dir, "a file is missing", format!("{} with the arrays x and y", names.join(" or ")), "a path without it")
}

/// Memory for `count` values that are read from `array`.
fn reserve<T>(array: &Reader, count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let is_small = count.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes as u64 <= MAX_SET_BYTES);
    if is_small && values.try_reserve_exact(count).is_ok() {
        return Ok(values);
    }
    let expected = format!("at most {MAX_SET_BYTES} bytes, which there have to be");
    Err(array.wrong("memory for the array", expected, format!("the shape {:?}", array.shape())))
}

/// All values of `images`, from channels first to channels last.
fn read_images<T: Copy + Default>(
    images: &mut Reader,
    count: usize,
    [channels, height, width]: [usize; 3],
    read: impl Fn(&mut Reader, &mut [T]) -> Result<()>,
) -> Result<Vec<T>> {
    let plane = height * width;
    let mut planes = reserve(images, channels * plane)?;
    planes.resize(channels * plane, T::default());
    let mut pixels = reserve(images, count * planes.len())?;
    for _ in 0..count {
        read(images, &mut planes)?;
        pixels.extend((0..planes.len()).map(|at| planes[at % channels * plane + at / channels]));
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::data::file::tests::assert_data_error;
    use crate::io::npy::{Values, write_npz};

    /// `count` images of 1 x 1 x 2 bytes.
    fn write(path: &Path, count: usize, labels: &[i64]) {
        let pixels: Vec<u8> = (0..2 * count as u8).collect();
        let arrays = [("x", &[count, 1, 1, 2][..], Values::U8(&pixels)), ("y", &[labels.len()], Values::I64(labels))];
        write_npz(path, &arrays).unwrap();
    }

    #[test]
    fn parts_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let open = |split| open(dir.path(), split);
        assert_data_error(open(Split::Train), &["missing", "train.npz with the arrays x and y"]);
        write(&dir.path().join("train.npz"), 3, &[0, 4, 1]);
        assert_data_error(open(Split::Test), &["missing", "test.npz or val.npz or valid.npz"]);
        for (name, count) in [("valid", 1), ("val", 2), ("test", 3)] {
            write(&dir.path().join(format!("{name}.npz")), count, &[0; 3][..count]);
            assert_eq!(open(Split::Test).unwrap().len(), count);
        }
        assert_data_error(super::open(&dir.path().join("absent"), Split::Train), &["absent", "missing", "train.npz"]);
    }

    #[test]
    fn both_parts_have_the_classes_of_both() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("test.npz"), 2, &[6, 0]);
        assert_eq!(open(dir.path(), Split::Test).unwrap().class_names().len(), 7);
        write(&dir.path().join("train.npz"), 3, &[0, 8, 1]);
        for split in [Split::Train, Split::Test] {
            assert_eq!(open(dir.path(), split).unwrap().class_names()[8], "8");
        }
    }

    #[test]
    fn one_file_may_hold_both_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mnist.npz");
        let (train, test) = (Values::U8(&[1, 2, 3, 4]), Values::U8(&[5, 6]));
        let arrays = [
            ("x_train", &[2, 1, 2][..], train),
            ("y_train", &[2], Values::U8(&[1, 0])),
            ("x_test", &[1, 1, 2], test),
            ("y_test", &[1, 1], Values::U8(&[2])),
        ];
        write_npz(&path, &arrays).unwrap();
        let part = |split| open(&path, split).unwrap();
        assert_eq!((part(Split::Train).shape(), part(Split::Train).label(0)), ([1, 1, 2], 1));
        let mut pixels = [0; 2];
        part(Split::Test).image(0, &mut pixels).unwrap();
        assert_eq!((pixels, part(Split::Train).class_names().len()), ([5, 6], 3));
        write_npz(&path, &arrays[..2]).unwrap();
        assert_data_error(open(&path, Split::Test), &["mnist.npz", "`y_test`", "got `x_train`, `y_train`"]);
    }

    #[test]
    fn numbers_keep_their_bits() {
        let dir = tempfile::tempdir().unwrap();
        let x = [0.1, -2.0, 3.5, 1e-30, 5.0, -0.0];
        let arrays = [("x", &[1, 3, 1, 2][..], Values::F32(&x)), ("y", &[1], Values::I64(&[0]))];
        write_npz(dir.path().join("train.npz"), &arrays).unwrap();
        let set = open(dir.path(), Split::Train).unwrap();
        let mut numbers = [0.0; 6];
        set.image_f32(0, &mut numbers).unwrap();
        assert_eq!(numbers.map(f32::to_bits), [x[0], x[2], x[4], x[1], x[3], x[5]].map(f32::to_bits));
    }

    #[test]
    fn arrays_that_do_not_fit_are_typed_errors() {
        let dir = tempfile::tempdir().unwrap();
        let error = |x: (&[usize], Values<'_>), y: (&[usize], Values<'_>), words: &[&str]| {
            write_npz(dir.path().join("train.npz"), &[("x", x.0, x.1), ("y", y.0, y.1)]).unwrap();
            assert_data_error(open(dir.path(), Split::Train), &[&["train.npz"], words].concat());
        };
        let images = (&[2, 1, 1, 1][..], Values::U8(&[1, 2]));
        error(images, (&[3], Values::I64(&[0; 3])), &["array `x`", "do not belong together", "3 images", "got 2"]);
        error(images, (&[2], Values::I64(&[0, -1])), &["array `y`", "label 1", "got -1"]);
        error(images, (&[2], Values::I64(&[0, MAX_CLASSES])), &["label 1", "65536"]);
        error(images, (&[2, 3], Values::U8(&[0; 6])), &["array `y`", "argmax"]);
        error(images, (&[2], Values::F32(&[0.0; 2])), &["array `y`", "integers, got float32"]);
        error((&[2], Values::U8(&[0; 2])), (&[2], Values::U8(&[0; 2])), &["array `x`", "[n, channels, height, width]"]);
        error((&[1, 8, 8, 3], Values::U8(&[0; 192])), (&[1], Values::U8(&[0])), &["channels are last", "transpose(0, 3, 1, 2)"]);
        error((&[2, 1, 1, 1], Values::I64(&[0; 2])), (&[2], Values::U8(&[0; 2])), &["uint8, float32 or float64", "got int64"]);
        for wrong in [f32::NAN, f32::INFINITY] {
            error((&[2, 1, 1, 1], Values::F32(&[0.0, wrong])), (&[2], Values::U8(&[0; 2])), &["number of image 1", "finite"]);
        }
        let names = ("class_names", &[1][..], Values::U8(&[0]));
        let arrays = [("x", images.0, images.1), ("y", &[2][..], Values::U8(&[0; 2])), names];
        write_npz(dir.path().join("train.npz"), &arrays).unwrap();
        assert_data_error(open(dir.path(), Split::Train), &["`class_names`", "text, got uint8"]);
        std::fs::write(dir.path().join("train.npz"), b"PK").unwrap();
        assert_data_error(open(dir.path(), Split::Train), &["not a whole zip archive"]);
        // An empty set is no error of the format: who trains on it says so.
        write(&dir.path().join("train.npz"), 0, &[]);
        assert!(open(dir.path(), Split::Train).unwrap().is_empty());
    }
}
