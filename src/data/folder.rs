//! Data sets as folders of pictures: a folder per part, in it a folder per class, in it the pictures (PNG, JPEG, PPM).
//!
//! ```text
//! DIR/train/cat/1.jpg        DIR/test/cat/7.png
//! DIR/train/dog/2.jpg        DIR/test/dog/8.png
//! ```
//!
//! The test part is `test`, or in place of it `val` (as of ImageNet) or `valid`. As with torchvision's `ImageFolder`, classes are the
//! folders of the training part in the order of their names, and pictures may lie deeper inside of a class's folder. Names that
//! begin with a dot, and files that are no pictures by the extension of their name, are left out; pictures of other formats are errors.
//!
//! All pictures are decoded and scaled to the network's input when the set is opened, on all cores, and kept as bytes, at most 8 GiB. Each
//! thread needs up to 1 GiB more for a picture that is as large as can be ([`picture`]). Other than by
//! torchvision, a camera's note on the orientation is followed.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::io::picture;

use super::{InMemory, MAX_SET_BYTES, Split};

/// Most folders inside of each other below that of a class.
const DEEPEST: usize = 16;
/// Most classes, as of a network.
const MAX_CLASSES: usize = 65_536;

/// Reads one part of the data set in the folder `dir`, for a network that reads `input` (channels, height, width); `resize` as for
/// [`picture::load`].
///
/// # Errors
/// [`Error::Data`] if there is no folder for the part, no class, a class of the training part without a picture, a class of the test
/// part that the training part does not have, a picture that cannot be read, or too many of them; [`Error::Invalid`] if pictures cannot
/// have that size; [`Error::Io`] if the system cannot read.
pub fn open(dir: &Path, split: Split, input: [usize; 3], resize: Option<usize>) -> Result<InMemory> {
    picture::check(input, resize)?;
    let class_names = classes(dir, split)?;
    let files = files(&part(dir, split)?, split, &class_names)?;
    let image: usize = input.iter().product();
    let mut pixels = reserve(dir, files.len(), image)?;
    pixels.resize(files.len() * image, 0);
    let places: Vec<_> = files.iter().zip(pixels.chunks_exact_mut(image)).collect();
    Pool::shared().try_for_each(places, |(file, pixels)| {
        pixels.copy_from_slice(&picture::load(&file.path, input, resize)?);
        Ok(())
    })?;
    let labels = files.iter().map(|file| file.class).collect();
    InMemory::new(input, class_names, pixels, labels)
}

/// A picture, and the class whose folder it lies in.
struct PictureFile {
    path: PathBuf,
    class: u32,
}

fn reserve(dir: &Path, images: usize, image: usize) -> Result<Vec<u8>> {
    let mut pixels = Vec::new();
    let bytes = images.saturating_mul(image);
    if bytes as u64 <= MAX_SET_BYTES && pixels.try_reserve_exact(bytes).is_ok() {
        return Ok(pixels);
    }
    let expected = format!("pictures that take at most {MAX_SET_BYTES} bytes when they are scaled, which there have to be");
    Err(Error::data(dir, "memory for the pictures", expected, format!("{images} pictures of {image} bytes")))
}

/// The folder of a part.
fn part(dir: &Path, split: Split) -> Result<PathBuf> {
    let names = split.names();
    let found = names.iter().map(|name| dir.join(name)).find(|path| path.is_dir());
    found.ok_or_else(|| {
        let expected = format!("{} with a folder of pictures for every class", names.join(" or "));
        Error::data(dir, "a folder is missing", expected, "a path without it")
    })
}

/// The classes: the folders of the training part, or where there is none those of the part itself.
fn classes(dir: &Path, split: Split) -> Result<Vec<String>> {
    let part = part(dir, Split::Train).or_else(|_| part(dir, split))?;
    let mut names = Vec::new();
    for entry in entries(&part)? {
        let path = entry.path();
        if path.is_dir() {
            names.push(class_name(&path)?);
        }
    }
    if (1..=MAX_CLASSES).contains(&names.len()) {
        return Ok(names);
    }
    Err(Error::data(&part, "folders of classes", format!("1 to {MAX_CLASSES}"), names.len()))
}

fn class_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(OsStr::to_str);
    let wrong = || Error::data(path, "name of a class", "a folder's name in UTF-8", "other bytes");
    name.map(str::to_owned).ok_or_else(wrong)
}

/// The pictures of all classes, in the order of their names.
fn files(part: &Path, split: Split, class_names: &[String]) -> Result<Vec<PictureFile>> {
    let mut files = Vec::new();
    for entry in entries(part)? {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        let name = class_name(&path)?;
        let Ok(class) = class_names.binary_search(&name) else {
            return Err(Error::data(
                &path,
                "class that the training part does not have",
                "one of its classes",
                format!("`{name}`"),
            ));
        };
        let before = files.len();
        add_files(&path, class as u32, DEEPEST, &mut files)?;
        if files.len() == before && split == Split::Train {
            return Err(Error::data(&path, "class without a picture", "PNG, JPEG or PPM files", "none"));
        }
    }
    Ok(files)
}

/// Adds the pictures in `folder` and, up to `depth` levels, in those inside.
fn add_files(folder: &Path, class: u32, depth: usize, files: &mut Vec<PictureFile>) -> Result<()> {
    for entry in entries(folder)? {
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| Error::io("read", &path, error))?;
        if kind.is_dir() {
            let inside = depth.checked_sub(1).ok_or_else(|| {
                Error::data(&path, "folders inside of each other", format!("at most {DEEPEST} below a class"), "more")
            })?;
            add_files(&path, class, inside, files)?;
        } else if kind.is_symlink() && path.is_dir() {
            // Such links can lead round in circles.
            return Err(Error::data(&path, "folder inside of a class", "a folder", "a link to one"));
        } else if picture::has_picture_name(&path) {
            files.push(PictureFile { path, class });
        }
    }
    Ok(())
}

/// What is in a folder and not hidden, in the order of the names.
fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    let failed = |error| Error::io("read", folder, error);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut entries: Vec<DirEntry> = entries.collect::<std::io::Result<_>>().map_err(failed)?;
    entries.retain(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::data::file::tests::assert_data_error;
    use image::RgbImage;

    /// A picture of 6 x 4 pixels of one colour.
    fn write(dir: &Path, name: &str, colour: u8) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(6, 4, image::Rgb([colour, 10, 20])).save(path).unwrap();
    }

    fn colours(set: &InMemory) -> Vec<(u8, u32)> {
        let mut pixels = vec![0; set.shape().iter().product()];
        let colour = |index| {
            set.image(index, &mut pixels).unwrap();
            assert!(pixels.chunks_exact(3).all(|pixel| pixel[0].abs_diff(pixels[0]) <= 1 && pixel[1].abs_diff(10) <= 1));
            (pixels[0], set.label(index))
        };
        (0..set.len()).map(colour).collect()
    }

    const INPUT: [usize; 3] = [3, 8, 5];

    #[test]
    fn pictures_come_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for (name, colour) in [
            ("train/dog/b.PNG", 2),
            ("train/dog/a.ppm", 1),
            ("train/dog/deeper/a.png", 3),
            ("train/cat/z.png", 0),
            ("val/dog/x.png", 9),
        ] {
            write(dir.path(), name, colour);
        }
        for (name, content) in
            [("train/cat/notes.txt", "text"), ("train/cat/._z.png", "no picture"), ("train/README.png", "no class")]
        {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        std::fs::create_dir(dir.path().join("train/.hidden")).unwrap();
        let train = open(dir.path(), Split::Train, INPUT, None).unwrap();
        assert_eq!((train.shape(), train.class_names()), (INPUT, &["cat", "dog"].map(String::from)[..]));
        assert_eq!(colours(&train), [(0, 0), (1, 1), (2, 1), (3, 1)]);
        // The test part has no cat, and dogs keep their number.
        assert_eq!(colours(&open(dir.path(), Split::Test, INPUT, None).unwrap()), [(9, 1)]);
        assert_eq!(open(dir.path(), Split::Test, [1, 2, 2], Some(4)).unwrap().shape(), [1, 2, 2]);
        write(dir.path(), "test/cat/x.png", 7);
        assert_eq!(colours(&open(dir.path(), Split::Test, INPUT, None).unwrap()), [(7, 0)]);
    }

    #[test]
    fn a_test_part_alone_has_its_own_classes() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "test/dog/x.png", 9);
        assert_eq!(open(dir.path(), Split::Test, INPUT, None).unwrap().class_names(), ["dog"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let open = |split| open(dir.path(), split, INPUT, None);
        assert_data_error(open(Split::Train), &["a folder is missing", "train with a folder of pictures"]);
        assert_data_error(open(Split::Test), &["test or val or valid"]);
        std::fs::create_dir(dir.path().join("train")).unwrap();
        assert_data_error(open(Split::Train), &["folders of classes", "got 0"]);
        write(dir.path(), "train/cat/a.png", 0);
        std::fs::create_dir(dir.path().join("train/dog")).unwrap();
        assert_data_error(open(Split::Train), &["dog", "class without a picture"]);
        for (name, content) in [("broken.jpg", &b"no picture"[..]), ("other.webp", b"RIFF\x08\0\0\0WEBPVP8 "), ("empty.png", b"")]
        {
            let path = dir.path().join("train/dog").join(name);
            std::fs::write(&path, content).unwrap();
            assert_data_error(open(Split::Train), &[name, "PNG, JPEG or PPM"]);
            std::fs::remove_file(path).unwrap();
        }
        write(dir.path(), "train/dog/a.png", 0);
        write(dir.path(), "test/cow/a.png", 0);
        assert_data_error(open(Split::Test), &["cow", "training part does not have"]);
        let deep = format!("train/dog/{}a.png", "d/".repeat(DEEPEST + 1));
        write(dir.path(), &deep, 0);
        assert_data_error(open(Split::Train), &["folders inside of each other", "at most 16"]);
        assert!(matches!(super::open(dir.path(), Split::Train, [2, 8, 8], None), Err(Error::Invalid { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_pictures_but_not_round_in_circles() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "train/cat/a.png", 1);
        symlink(dir.path().join("train/cat/a.png"), dir.path().join("train/cat/b.png")).unwrap();
        symlink(dir.path().join("train/cat"), dir.path().join("train/dog")).unwrap();
        assert_eq!(open(dir.path(), Split::Train, INPUT, None).unwrap().len(), 4);
        symlink(dir.path().join("train"), dir.path().join("train/cat/c")).unwrap();
        assert_data_error(open(dir.path(), Split::Train, INPUT, None), &["cat/c", "a link to one"]);
    }

    #[test]
    fn too_many_pictures_are_refused_before_they_are_decoded() {
        assert_data_error(reserve(Path::new("x"), 60_000, 3 * 224 * 224), &["at most 8589934592 bytes", "60000 pictures"]);
        assert_eq!(reserve(Path::new("x"), 10, 12).unwrap().capacity(), 120);
    }
}
