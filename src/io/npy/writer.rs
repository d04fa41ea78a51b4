//! Files with arrays.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::Path;

use rawzip::ZipArchiveWriter;

use crate::error::{Error, Result};
use crate::io::atomic::AtomicFile;

use super::header::Header;

/// Values whose bytes are put together at once.
const PART: usize = 1 << 14;

/// Writes an array of 32-bit floats whose values `fill` gives in row-major order, part by part.
///
/// At a path that ends in `.npz` it is the array `name` of an archive, otherwise a `.npy` file. The file appears when it is whole: after an
/// error, what was there before stays.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; [`Error::Shape`] if `fill` gives more or fewer values; the errors of `fill`.
pub fn write<E: From<Error>>(
    path: impl AsRef<Path>,
    name: &str,
    shape: &[usize],
    fill: impl FnOnce(&mut ValueWriter<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz")) {
        let mut archive = ZipArchiveWriter::new(&mut file);
        write_member(&mut archive, path, name, |output| write_array(output, path, shape, fill))?;
        archive.finish().map_err(|error| failed(path, error))?;
    } else {
        write_array(&mut file, path, shape, fill)?;
    }
    Ok(file.finish()?)
}

/// The values of an array that is written.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Values<'a> {
    /// Bytes: uint8.
    U8(&'a [u8]),
    /// Integers of 64 bits: int64.
    I64(&'a [i64]),
    /// Floats of 32 bits: float32.
    F32(&'a [f32]),
}

impl Values<'_> {
    fn len(self) -> usize {
        match self {
            Values::U8(values) => values.len(),
            Values::I64(values) => values.len(),
            Values::F32(values) => values.len(),
        }
    }

    /// The type, as a header names it.
    fn descr(self) -> &'static str {
        match self {
            Values::U8(_) => "|u1",
            Values::I64(_) => "<i8",
            Values::F32(_) => "<f4",
        }
    }

    fn write(self, output: &mut dyn Write) -> io::Result<()> {
        match self {
            Values::U8(values) => output.write_all(values),
            Values::I64(values) => write_parts(output, values, i64::to_le_bytes),
            Values::F32(values) => write_parts(output, values, f32::to_le_bytes),
        }
    }
}

/// Writes `values` in parts, so that their bytes take little memory.
fn write_parts<T: Copy, const N: usize>(output: &mut dyn Write, values: &[T], bytes: fn(T) -> [u8; N]) -> io::Result<()> {
    values.chunks(PART).try_for_each(|values| {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| bytes(value)).collect();
        output.write_all(&bytes)
    })
}

/// Writes an archive of arrays, each a name, a shape and its values, without compression. The file appears when it is whole.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; [`Error::Shape`] if a shape and its number of values disagree;
/// [`Error::Invalid`] if a name comes twice.
pub fn write_npz(path: impl AsRef<Path>, arrays: &[(&str, &[usize], Values<'_>)]) -> Result<()> {
    let path = path.as_ref();
    let mut names: Vec<&str> = arrays.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid("names of arrays", "each of them once", format!("{twice:?}")));
    }
    let mut file = AtomicFile::create(path)?;
    let mut archive = ZipArchiveWriter::new(&mut file);
    for &(name, shape, values) in arrays {
        let count = count(shape);
        if count != Some(values.len()) {
            return Err(Error::shape(format!("array `{name}`"), format!("the values of {shape:?}"), values.len()));
        }
        write_member(&mut archive, path, name, |output| {
            let header = Header::of(values.descr(), shape);
            output.write_all(&header).and_then(|()| values.write(output)).map_err(|error| Error::io("write", path, error))
        })?;
    }
    archive.finish().map_err(|error| failed(path, error))?;
    file.finish()
}

/// Number of values of an array; `None` for more than can be counted.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))
}

/// Takes the values of an array.
pub struct ValueWriter<'a> {
    output: &'a mut dyn Write,
    path: &'a Path,
    /// Values that are still missing; `None` for more than can be counted.
    left: Option<usize>,
    shape: &'a [usize],
}

impl ValueWriter<'_> {
    /// Appends values.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are more than the array holds, [`Error::Io`] if they cannot be written.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        let Some(left) = self.left.and_then(|left| left.checked_sub(values.len())) else {
            return Err(self.wrong("more"));
        };
        self.left = Some(left);
        Values::F32(values).write(self.output).map_err(|error| Error::io("write", self.path, error))
    }

    fn wrong(&self, got: &str) -> Error {
        Error::shape("values of an array", format!("those of {:?}", self.shape), got)
    }
}

/// The member `name` of an archive, whose bytes `fill` writes.
fn write_member<W: Write, E: From<Error>>(
    archive: &mut ZipArchiveWriter<W>,
    path: &Path,
    name: &str,
    fill: impl FnOnce(&mut dyn Write) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let file_name = format!("{name}.npy");
    let (mut entry, config) = archive.new_file(file_name.as_str()).start().map_err(|error| failed(path, error))?;
    let mut data = config.wrap(&mut entry);
    fill(&mut data)?;
    let (_, descriptor) = data.finish().map_err(|error| failed(path, error))?;
    entry.finish(descriptor).map_err(|error| failed(path, error))?;
    Ok(())
}

/// The header and values of 32-bit floats.
fn write_array<E: From<Error>>(
    output: &mut dyn Write,
    path: &Path,
    shape: &[usize],
    fill: impl FnOnce(&mut ValueWriter<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    output.write_all(&Header::of(Values::F32(&[]).descr(), shape)).map_err(|error| Error::io("write", path, error))?;
    let mut writer = ValueWriter { output, path, left: count(shape), shape };
    fill(&mut writer)?;
    if writer.left == Some(0) { Ok(()) } else { Err(writer.wrong("fewer").into()) }
}

fn failed(path: &Path, error: rawzip::Error) -> Error {
    let error = match error.into_kind() {
        rawzip::ErrorKind::IO(error) => error,
        other => io::Error::other(other.to_string()),
    };
    Error::io("write", path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::npy::{Reader, open};

    fn values(mut reader: Reader) -> Vec<f32> {
        let mut values = vec![0.0; reader.shape().iter().product()];
        reader.read_f32(&mut values).unwrap();
        values
    }

    #[test]
    fn files_appear_when_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["y.npy", "y.npz", "y.NPZ", "y"] {
            let path = folder.path().join(name);
            write(&path, "logits", &[2, 2], |writer| {
                writer.write(&[1.0, 2.0])?;
                assert!(!path.exists());
                writer.write(&[3.0, 4.0])
            })
            .unwrap();
            let is_archive = std::fs::read(&path).unwrap().starts_with(b"PK");
            assert_eq!(is_archive, name.to_lowercase().ends_with("npz"), "{name}");
            let reader = open(&path, "logits").unwrap();
            assert_eq!(reader.shape(), [2, 2]);
            assert_eq!(values(reader), [1.0, 2.0, 3.0, 4.0]);
        }
        let bytes = std::fs::read(folder.path().join("y.npy")).unwrap();
        assert_eq!(bytes.len(), 128 + 16);
        assert_eq!(bytes[128..], [1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat());
    }

    #[test]
    fn after_an_error_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("y.npz");
        let fill = |values: &'static [f32]| move |writer: &mut ValueWriter<'_>| writer.write(values);
        for wrong in [&[1.0][..], &[1.0, 2.0, 3.0]] {
            assert!(matches!(write(&path, "y", &[2], fill(wrong)), Err(Error::Shape { .. })));
            assert!(matches!(write_npz(&path, &[("y", &[2], Values::F32(wrong))]), Err(Error::Shape { .. })));
        }
        assert!(matches!(write(&path, "y", &[usize::MAX, 2], fill(&[1.0])), Err(Error::Shape { .. })));
        let stopped: Result<()> = write(&path, "y", &[2], |_| Err(Error::invalid("a", "b", "c")));
        assert!(matches!(stopped, Err(Error::Invalid { .. })));
        assert!(matches!(
            write_npz(&path, &[("y", &[0], Values::U8(&[])), ("y", &[0], Values::U8(&[]))]),
            Err(Error::Invalid { .. })
        ));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let absent = folder.path().join("absent/y.npy");
        assert!(matches!(write(&absent, "y", &[1], fill(&[1.0])), Err(Error::Io { .. })));
    }
}
