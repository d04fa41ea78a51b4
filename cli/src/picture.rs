//! Pictures from files, brought to the size that a network reads.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::imageops::{FilterType, crop_imm, resize};
use image::{DynamicImage, ImageFormat, ImageReader, Limits, RgbImage};
use leanresnet::net::Preprocess;

use crate::failure::{Failure, expected};

/// The widest and highest picture that is decoded, pixels.
const LARGEST_SIDE: u32 = 20_000;
/// Most memory for decoding one picture, bytes.
const MOST_MEMORY: u64 = 1 << 30;
/// The largest file that is read, bytes.
const LARGEST_FILE: u64 = 1 << 28;

/// Bytes at the beginning of a file that tell what it is.
const HEAD: u64 = 32;

/// True if a word of the command line means a picture: by the content of its file, or by the extension of its name.
pub fn is_picture(path: &Path) -> bool {
    !path.is_dir() && (begins_as_picture(path) || ImageFormat::from_path(path).is_ok())
}

/// Only of plain files, because what is read of a pipe is gone.
fn begins_as_picture(path: &Path) -> bool {
    let mut head = Vec::new();
    let is_read = path.is_file() && File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head)).is_ok();
    // A model begins with the length of its header, whose bytes can be anything, and the brace of the header itself.
    is_read && head.get(8) != Some(&b'{') && image::guess_format(&head).is_ok()
}

/// The bytes of a picture as `[height, width, channels]` of the network's input `[channels, height, width]`.
///
/// With `resize` in the model, the shorter side is scaled to it and the centre cut out; without, the picture is scaled to the
/// input's size. Scaling is bilinear, and averages where it makes smaller.
pub fn load(path: &Path, [channels, height, width]: [usize; 3], preprocess: &Preprocess) -> Result<Vec<u8>, Failure> {
    let picture = decode(path)?.into_rgb8();
    let (height, width) = (height as u32, width as u32);
    let scaled = match preprocess.resize {
        None => scale(&picture, width, height),
        Some(side) => {
            let side = side as u32;
            let (long, short) = (picture.width().max(picture.height()), picture.width().min(picture.height()));
            let other = ((u64::from(long) * u64::from(side) + u64::from(short) / 2) / u64::from(short.max(1))) as u32;
            if other > LARGEST_SIDE {
                let message = expected(
                    format!("{}: shape", path.display()),
                    "a picture that is not much longer than wide",
                    format!("{long} x {short}"),
                );
                return Err(Failure::data(message, "cut the picture first"));
            }
            let (scaled_width, scaled_height) = if picture.width() <= picture.height() { (side, other) } else { (other, side) };
            let scaled = scale(&picture, scaled_width, scaled_height);
            let (left, top) = ((scaled_width - width.min(scaled_width)) / 2, (scaled_height - height.min(scaled_height)) / 2);
            crop_imm(&scaled, left, top, width, height).to_image()
        }
    };
    match channels {
        3 => Ok(scaled.into_raw()),
        1 => Ok(DynamicImage::from(scaled).into_luma8().into_raw()),
        _ => {
            let message = expected("channels of the model", "1 or 3 for pictures", channels);
            Err(Failure::usage(message, "leanresnet predict MODEL --input x.npy --output y.npy takes any number of channels"))
        }
    }
}

fn scale(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    if picture.dimensions() == (width, height) { picture.clone() } else { resize(picture, width, height, FilterType::Triangle) }
}

fn decode(path: &Path) -> Result<DynamicImage, Failure> {
    let io = |error| Failure::io("read", path, &error);
    let length = std::fs::metadata(path).map_err(io)?.len();
    let wrong = |wanted: String, got: String| {
        let message = expected(format!("{}: picture", path.display()), wanted, got);
        Failure::data(message, format!("file {} shows what it is; PNG, JPEG and PPM can be read", path.display()))
    };
    if length > LARGEST_FILE {
        return Err(wrong(format!("a file of at most {LARGEST_FILE} bytes"), format!("{length} bytes")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(io)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| wrong("a whole PNG, JPEG or PPM file".into(), error.to_string()))?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err(wrong("at least one pixel".into(), format!("{} x {}", picture.width(), picture.height())));
    }
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, folder: &Path) -> std::path::PathBuf {
        let path = folder.join("picture.png");
        RgbImage::from_fn(width, height, |x, _| image::Rgb([(255 * x / (width - 1)) as u8, 10, 20])).save(&path).unwrap();
        path
    }

    #[test]
    fn pictures_become_the_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = picture(64, 32, folder.path());
        let whole = load(&path, [3, 8, 8], &Preprocess::identity(3)).unwrap();
        assert_eq!(whole.len(), 8 * 8 * 3);
        assert!(whole[0] < 30 && whole[7 * 3] > 225, "{} {}", whole[0], whole[7 * 3]);
        let centre = load(&path, [3, 8, 8], &Preprocess::identity(3).with_resize(Some(8))).unwrap();
        assert!(centre[0] > 60 && centre[7 * 3] < 195, "{} {}", centre[0], centre[7 * 3]);
        assert_eq!(load(&path, [1, 8, 8], &Preprocess::identity(1)).unwrap().len(), 64);
        assert!(load(&path, [2, 8, 8], &Preprocess::identity(2)).is_err());
        let same = load(&path, [3, 32, 64], &Preprocess::identity(3)).unwrap();
        assert_eq!(same, image::open(&path).unwrap().into_rgb8().into_raw());
    }

    #[test]
    fn pictures_are_told_from_models() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let png = std::fs::read(picture(2, 2, folder.path())).unwrap();
        for (name, bytes) in [("a", &png[..]), ("b.bin", b"\xff\xd8\xff\xe0"), ("c.ppm", b""), ("d", b"P6\n2 2\n255\n")] {
            assert!(is_picture(&write(name, bytes)), "{name}");
        }
        // A header of 13,904 bytes begins as a PPM does.
        for (name, bytes) in [("e", &b"P6\0\0\0\0\0\0{\"a\""[..]), ("f", b""), ("g.safetensors", b"text"), ("h.ckpt", b"x")] {
            assert!(!is_picture(&write(name, bytes)), "{name}");
        }
        std::fs::create_dir(folder.path().join("run.png")).unwrap();
        for (name, wanted) in [("absent.JPG", true), ("absent", false), ("absent.safetensors", false), ("run.png", false)] {
            assert_eq!(is_picture(&folder.path().join(name)), wanted, "{name}");
        }
    }

    #[test]
    fn files_that_are_no_pictures_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        for bytes in [&b"no picture"[..], b"\x89PNG\r\n\x1a\n", b"P6 99999999 99999999 255\n"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(load(&path, [3, 8, 8], &Preprocess::identity(3)).unwrap_err().exit_code(), 3);
        }
        assert_eq!(load(&folder.path().join("absent"), [3, 8, 8], &Preprocess::identity(3)).unwrap_err().exit_code(), 1);
    }
}
