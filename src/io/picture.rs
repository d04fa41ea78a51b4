//! Pictures from files (PNG, JPEG, PPM and its relatives), brought to the size that a network reads.
//!
//! A file is refused if it has more than 256 MiB, more than 20,000 pixels in a row or column or 134 million in all, or would need more
//! than 512 MiB to decode; with the copies on the way to the network's size, a picture takes at most 1 GiB. The orientation that a camera noted (Exif) is applied, so that a picture stands as viewers show it. Transparency is
//! dropped, and colour profiles are not applied.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::imageops::{FilterType, crop_imm, resize};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::{Error, Result};

use super::data_file;

/// The widest and highest picture that is decoded, pixels.
const LARGEST_SIDE: u32 = 20_000;
/// Most pixels of a picture that is decoded. Three bytes each, twice while a picture is turned, are less than 1 GiB.
const MOST_PIXELS: u64 = 1 << 27;
/// Most memory for decoding one picture, bytes.
const MOST_MEMORY: u64 = 1 << 29;
/// The largest file that is read, bytes.
const LARGEST_FILE: u64 = 1 << 28;

/// Bytes at the beginning of a file that tell what it is.
const HEAD: u64 = 32;

/// True if a path means a picture: by the content of its file, or by the extension of its name. Pictures of other formats than can be
/// read are pictures, too.
pub fn is_picture(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    !path.is_dir() && (begins_as_picture(path) || has_picture_name(path))
}

/// True if the extension of a path is that of a format of pictures, also of those that cannot be read.
pub(crate) fn has_picture_name(path: &Path) -> bool {
    ImageFormat::from_path(path).is_ok()
}

/// Only of plain files, because what is read of a pipe is gone.
fn begins_as_picture(path: &Path) -> bool {
    let mut head = Vec::new();
    let is_read = path.is_file() && File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head)).is_ok();
    // A model begins with the length of its header, whose bytes can be anything, and the brace of the header itself.
    is_read && head.get(8) != Some(&b'{') && image::guess_format(&head).is_ok()
}

/// The bytes of a picture as `[height, width, channels]` of a network's input `[channels, height, width]`; colours become
/// brightness where there is one channel.
///
/// With `resize` ([`Preprocess::resize`](crate::net::Preprocess::resize)), the shorter side is scaled to it and the centre cut out;
/// without, the picture is scaled to the input's size. Scaling is bilinear, and averages where it makes smaller.
///
/// # Errors
/// [`Error::Data`] if the file is no whole picture or too large, or with `resize` too long for its width; [`Error::Invalid`] if
/// there are neither 3 channels nor 1, or `resize` is smaller than the input or larger than 20,000; [`Error::Io`] if the system cannot read it.
pub fn load(path: impl AsRef<Path>, input: [usize; 3], resize: Option<usize>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    check(input, resize)?;
    from_bytes(&data_file::read(path, LARGEST_FILE)?, path, input, resize)
}

/// [`load`] on the content of a file; `source` is its name for messages.
///
/// # Errors
/// Those of [`load`].
pub fn from_bytes(bytes: &[u8], source: &Path, input: [usize; 3], resize: Option<usize>) -> Result<Vec<u8>> {
    from_bytes_within(bytes, source, input, resize, MOST_PIXELS)
}

/// [`from_bytes`] with another limit to the pixels of the picture.
///
/// # Errors
/// Those of [`load`].
#[doc(hidden)]
pub fn from_bytes_within(
    bytes: &[u8],
    source: &Path,
    input: [usize; 3],
    resize: Option<usize>,
    most_pixels: u64,
) -> Result<Vec<u8>> {
    check(input, resize)?;
    fit(decode(bytes, source, most_pixels)?, source, input, resize)
}

/// Checks that pictures can become images of this size.
///
/// # Errors
/// [`Error::Invalid`] as for [`load`].
pub(crate) fn check([channels, height, width]: [usize; 3], resize: Option<usize>) -> Result<()> {
    if ![1, 3].contains(&channels) {
        return Err(Error::invalid("channels of the model", "1 or 3 for pictures", channels));
    }
    let sides = 1..=LARGEST_SIDE as usize;
    if !(sides.contains(&height) && sides.contains(&width)) {
        let got = format!("{height} x {width}");
        return Err(Error::invalid("size of the model's input", format!("sides of 1 to {LARGEST_SIDE} for pictures"), got));
    }
    let smallest = height.max(width);
    match resize {
        Some(side) if !(smallest..=LARGEST_SIDE as usize).contains(&side) => {
            Err(Error::invalid("side that pictures are scaled to", format!("{smallest} to {LARGEST_SIDE}"), side))
        }
        _ => Ok(()),
    }
}

fn fit(picture: RgbImage, source: &Path, [channels, height, width]: [usize; 3], resize: Option<usize>) -> Result<Vec<u8>> {
    let (height, width) = (height as u32, width as u32);
    let scaled = match resize {
        None => scale(picture, width, height),
        Some(side) => {
            let side = side as u32;
            let (long, short) = (picture.width().max(picture.height()), picture.width().min(picture.height()));
            let other = ((u64::from(long) * u64::from(side) + u64::from(short) / 2) / u64::from(short)) as u32;
            if other > LARGEST_SIDE {
                let got = format!("{long} x {short}");
                return Err(Error::data(source, "shape", "a picture that is not much longer than wide", got));
            }
            let (scaled_width, scaled_height) = if picture.width() <= picture.height() { (side, other) } else { (other, side) };
            let scaled = scale(picture, scaled_width, scaled_height);
            let (left, top) = ((scaled_width - width.min(scaled_width)) / 2, (scaled_height - height.min(scaled_height)) / 2);
            crop_imm(&scaled, left, top, width, height).to_image()
        }
    };
    Ok(if channels == 1 { DynamicImage::from(scaled).into_luma8().into_raw() } else { scaled.into_raw() })
}

fn scale(picture: RgbImage, width: u32, height: u32) -> RgbImage {
    if picture.dimensions() == (width, height) { picture } else { resize(&picture, width, height, FilterType::Triangle) }
}

fn decode(bytes: &[u8], source: &Path, most_pixels: u64) -> Result<RgbImage> {
    let wrong = |error: image::ImageError| Error::data(source, "picture", "a whole PNG, JPEG or PPM file", error);
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| wrong(error.into()))?;
    let mut decoder = limited(reader).map_err(wrong)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if !(1..=most_pixels).contains(&pixels) {
        let expected = format!("at least one pixel, and at most {most_pixels}");
        return Err(Error::data(source, "picture", expected, format!("{width} x {height}")));
    }
    let orientation = decoder.orientation().map_err(wrong)?;
    let mut picture = DynamicImage::from(DynamicImage::from_decoder(decoder).map_err(wrong)?.into_rgb8());
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// A decoder that refuses what is too large before it allocates.
fn limited(mut reader: ImageReader<Cursor<&[u8]>>) -> image::ImageResult<impl ImageDecoder> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits.clone());
    let decoder = reader.into_decoder()?;
    // The decoder keeps to the limits in what it needs besides.
    limits.reserve(decoder.total_bytes())?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::data_file::tests::assert_data_error;
    use image::ImageEncoder;
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;

    /// Redder to the right.
    fn picture(width: u32, height: u32, folder: &Path) -> std::path::PathBuf {
        let path = folder.join("picture.png");
        RgbImage::from_fn(width, height, |x, _| image::Rgb([(255 * x / (width - 1)) as u8, 10, 20])).save(&path).unwrap();
        path
    }

    #[test]
    fn pictures_become_the_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = picture(64, 32, folder.path());
        let whole = load(&path, [3, 8, 8], None).unwrap();
        assert_eq!(whole.len(), 8 * 8 * 3);
        assert!(whole[0] < 30 && whole[7 * 3] > 225, "{} {}", whole[0], whole[7 * 3]);
        let centre = load(&path, [3, 8, 8], Some(8)).unwrap();
        assert!(centre[0] > 60 && centre[7 * 3] < 195, "{} {}", centre[0], centre[7 * 3]);
        assert_eq!(load(&path, [1, 8, 8], None).unwrap().len(), 64);
        let same = load(&path, [3, 32, 64], None).unwrap();
        assert_eq!(same, image::open(&path).unwrap().into_rgb8().into_raw());
        assert_eq!(from_bytes(&std::fs::read(&path).unwrap(), &path, [3, 8, 8], None).unwrap(), whole);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let path = Path::new("absent.png");
        for (input, resize) in [([2, 8, 8], None), ([3, 0, 8], None), ([3, 8, 8], Some(7)), ([3, 8, 8], Some(1 << 20))] {
            assert!(matches!(load(path, input, resize), Err(Error::Invalid { .. })), "{input:?} {resize:?}");
        }
        assert!(matches!(load(path, [3, 8, 8], None), Err(Error::Io { .. })));
        let folder = tempfile::tempdir().unwrap();
        let long = picture(10_000, 2, folder.path());
        assert_data_error(load(&long, [3, 8, 8], Some(8)), &["shape", "10000 x 2"]);
    }

    /// Orientation 6: the camera was turned to the left, and the picture has to be turned to the right.
    #[test]
    fn pictures_stand_as_viewers_show_them() {
        let exif = [&b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"[..], &[0; 4]].concat();
        let grey = |x: u32, y: u32| if y < 8 { 240 } else { u8::try_from(8 * (x / 8)).unwrap() };
        let pixels: Vec<u8> = (0..16).flat_map(|y| (0..16).map(move |x| grey(x, y))).collect();
        let (mut png, mut jpeg) = (Vec::new(), Vec::new());
        let mut encoder = PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif.clone()).unwrap();
        encoder.write_image(&pixels, 16, 16, image::ExtendedColorType::L8).unwrap();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(&pixels, 16, 16, image::ExtendedColorType::L8).unwrap();
        for bytes in [png, jpeg] {
            let seen = from_bytes(&bytes, Path::new("x"), [1, 16, 16], None).unwrap();
            // The bright upper half is on the right.
            assert!(
                seen.chunks_exact(16)
                    .all(|row| row[..8].iter().all(|&grey| grey < 20) && row[8..].iter().all(|&grey| grey > 220))
            );
        }
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
            assert!(is_picture(write(name, bytes)), "{name}");
        }
        // A header of 13,904 bytes begins as a PPM does.
        for (name, bytes) in [("e", &b"P6\0\0\0\0\0\0{\"a\""[..]), ("f", b""), ("g.safetensors", b"text"), ("h.ckpt", b"x")] {
            assert!(!is_picture(write(name, bytes)), "{name}");
        }
        std::fs::create_dir(folder.path().join("run.png")).unwrap();
        for (name, wanted) in [("absent.JPG", true), ("absent", false), ("absent.safetensors", false), ("run.png", false)] {
            assert_eq!(is_picture(folder.path().join(name)), wanted, "{name}");
        }
    }

    #[test]
    fn files_that_are_no_pictures_are_refused() {
        let path = Path::new("x.png");
        for bytes in [
            &b""[..],
            b"no picture",
            b"\x89PNG\r\n\x1a\n",
            b"P6 99999999 99999999 255\n",
            b"P6 19000 19000 255\n",
            b"P5 0 0 255\n",
        ] {
            assert_data_error(from_bytes(bytes, path, [3, 8, 8], None), &["x.png: picture", "expected a"]);
        }
        let folder = tempfile::tempdir().unwrap();
        assert_data_error(load(folder.path(), [3, 8, 8], None), &["not a regular file"]);
    }

    #[test]
    fn the_number_of_pixels_is_limited() {
        let ppm = [&b"P5 4 3 255\n"[..], &[7; 12]].concat();
        let fits = |most| from_bytes_within(&ppm, Path::new("x"), [1, 2, 2], None, most);
        assert_eq!(fits(12).unwrap(), [7; 4]);
        assert_data_error(fits(11), &["at most 11", "got 4 x 3"]);
    }

    #[test]
    fn damage_anywhere_is_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let png = std::fs::read(picture(9, 5, folder.path())).unwrap();
        let mut jpeg = Vec::new();
        JpegEncoder::new(&mut jpeg).encode(&[90; 9 * 5 * 3], 9, 5, image::ExtendedColorType::Rgb8).unwrap();
        let ppm = [&b"P6 2 2 255\n"[..], &[7; 12]].concat();
        for whole in [png, jpeg, ppm] {
            for position in 0..whole.len() {
                let damaged = [0, 0xff, b'9', whole[position] ^ 1]
                    .map(|byte| [&whole[..position], &[byte], &whole[position + 1..]].concat());
                for bytes in damaged.into_iter().chain([whole[..position].to_vec()]) {
                    match from_bytes(&bytes, Path::new("x"), [3, 4, 4], None) {
                        Ok(pixels) => assert_eq!(pixels.len(), 3 * 4 * 4),
                        Err(error) => assert!(matches!(error, Error::Data { .. }), "{error}"),
                    }
                }
            }
        }
    }
}
