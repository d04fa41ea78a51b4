//! CIFAR-10 and CIFAR-100, binary version (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images",
//! <https://www.cs.toronto.edu/~kriz/cifar.html>).
//!
//! A file is a sequence of records without header. A record of CIFAR-10 is 1 label byte (0 to 9) and 3072 pixel bytes; one of
//! CIFAR-100 is 1 coarse label byte (0 to 19, not used here), 1 fine label byte (0 to 99) and 3072 pixel bytes. The pixel bytes
//! are the red, then the green, then the blue plane of 32 x 32, each row by row.
//!
//! | data set | training part | test part | class names |
//! |---|---|---|---|
//! | CIFAR-10 | `data_batch_1.bin` to `data_batch_5.bin` | `test_batch.bin` | `batches.meta.txt` |
//! | CIFAR-100 | `train.bin` | `test.bin` | `fine_label_names.txt` |
#![forbid(unsafe_code)]

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::data_file;

use super::file;
use super::{InMemory, Split, numbered_classes};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = CHANNELS * PLANE;
/// No list of class names is longer.
const MAX_NAMES_BYTES: u64 = 64 << 10;

const CIFAR10_CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Which of the two CIFAR data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cifar {
    /// Ten classes, 50,000 + 10,000 images.
    Cifar10,
    /// A hundred classes, 50,000 + 10,000 images.
    Cifar100,
}

impl Cifar {
    /// Reads one part of the data set; images are 3 x 32 x 32.
    ///
    /// `dir` is the folder with the `.bin` files, or its parent with `cifar-10-batches-bin` or `cifar-100-binary` in it. The files
    /// may be compressed by gzip.
    ///
    /// # Errors
    /// [`Error::Data`] if a file is missing, empty, damaged, or not of this format; [`Error::Io`] if the system cannot read it.
    pub fn open(self, dir: &Path, split: Split) -> Result<InMemory> {
        let mut pixels = Vec::new();
        let mut labels = Vec::new();
        for name in self.file_names(split) {
            let path = file::find(dir, &[self.folder()], &[name], self.origin())?;
            let records = self.parse(&file::read(&path)?, &path)?;
            pixels.extend_from_slice(&records.pixels);
            labels.extend_from_slice(&records.labels);
        }
        InMemory::new([CHANNELS, SIDE, SIDE], self.class_names(dir)?, pixels, labels)
    }

    /// Reads the records of one decompressed file; `source` is its name for messages.
    ///
    /// # Errors
    /// [`Error::Data`] if `bytes` is empty, not a whole number of records, or has a label that is out of range.
    pub fn parse(self, bytes: &[u8], source: &Path) -> Result<Records> {
        let record = self.label_bytes() + IMAGE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            let what = if bytes.is_empty() { "the file is empty" } else { "the file is cut off or of another format" };
            return Err(Error::data(source, what, format!("a multiple of {record} bytes"), format!("{} bytes", bytes.len())));
        }
        let count = bytes.len() / record;
        let mut records = Records { pixels: vec![0; count * IMAGE], labels: Vec::with_capacity(count) };
        for (index, (bytes, pixels)) in bytes.chunks_exact(record).zip(records.pixels.chunks_exact_mut(IMAGE)).enumerate() {
            let (labels, planes) = bytes.split_at(self.label_bytes());
            records.labels.push(self.label(labels, index, source)?);
            for (position, pixel) in pixels.chunks_exact_mut(CHANNELS).enumerate() {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value = planes[channel * PLANE + position];
                }
            }
        }
        Ok(records)
    }

    /// The class of the record that starts with `labels`, after checking all of them.
    fn label(self, labels: &[u8], index: usize, source: &Path) -> Result<u32> {
        let bounds: &[u8] = match self {
            Cifar::Cifar10 => &[10],
            Cifar::Cifar100 => &[20, 100],
        };
        for (&label, &bound) in labels.iter().zip(bounds) {
            if label >= bound {
                return Err(Error::data(
                    source,
                    format!("label of record {index} is out of range"),
                    format!("a label below {bound}"),
                    label,
                ));
            }
        }
        Ok(u32::from(labels[labels.len() - 1]))
    }

    fn class_names(self, dir: &Path) -> Result<Vec<String>> {
        let (name, count) = match self {
            Cifar::Cifar10 => ("batches.meta.txt", 10),
            Cifar::Cifar100 => ("fine_label_names.txt", 100),
        };
        let Ok(path) = file::find(dir, &[self.folder()], &[name], self.origin()) else {
            return Ok(match self {
                Cifar::Cifar10 => CIFAR10_CLASSES.map(String::from).to_vec(),
                Cifar::Cifar100 => numbered_classes(count),
            });
        };
        let bytes = data_file::read(&path, MAX_NAMES_BYTES)?;
        let expected = || format!("{count} class names, one per line, in UTF-8");
        let text = String::from_utf8(bytes)
            .map_err(|error| Error::data(&path, "not a list of class names", expected(), format!("other bytes: {error}")))?;
        let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
        if names.len() != count {
            return Err(Error::data(&path, "not the class names of this data set", expected(), names.len()));
        }
        Ok(names)
    }

    fn file_names(self, split: Split) -> &'static [&'static str] {
        match (self, split) {
            (Cifar::Cifar10, Split::Train) => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            (Cifar::Cifar10, Split::Test) => &["test_batch.bin"],
            (Cifar::Cifar100, Split::Train) => &["train.bin"],
            (Cifar::Cifar100, Split::Test) => &["test.bin"],
        }
    }

    fn label_bytes(self) -> usize {
        match self {
            Cifar::Cifar10 => 1,
            Cifar::Cifar100 => 2,
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Cifar::Cifar10 => "cifar-10-batches-bin",
            Cifar::Cifar100 => "cifar-100-binary",
        }
    }

    fn origin(self) -> &'static str {
        match self {
            Cifar::Cifar10 => "the binary version of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html)",
            Cifar::Cifar100 => "the binary version of CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html)",
        }
    }
}

/// What one file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The images one after the other, each 32 x 32 x 3 bytes, channels last.
    pub pixels: Vec<u8>,
    /// The class of each image.
    pub labels: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::data::file::MAX_BYTES;
    use crate::data::file::tests::{assert_data_error, gzip};
    use proptest::prelude::*;

    const SOURCE: &str = "some.bin";

    /// A record whose pixel bytes differ per image, channel and place.
    fn record(labels: &[u8], image: usize) -> Vec<u8> {
        let planes = (0..IMAGE).map(|position| (position * 7 + position / PLANE * 31 + image * 13) as u8);
        labels.iter().copied().chain(planes).collect()
    }

    fn parse(kind: Cifar, bytes: &[u8]) -> Result<Records> {
        kind.parse(bytes, Path::new(SOURCE))
    }

    #[test]
    fn planes_become_channels_last() {
        let records = parse(Cifar::Cifar10, &[record(&[9], 0), record(&[4], 1)].concat()).unwrap();
        assert_eq!(records.labels, [9, 4]);
        let plane_bytes = &record(&[4], 1)[1..];
        let pixel = (5 * SIDE + 6) * CHANNELS;
        let expected = [0, 1, 2].map(|channel| plane_bytes[channel * PLANE + 5 * SIDE + 6]);
        assert_eq!(records.pixels[IMAGE + pixel..][..CHANNELS], expected);
        assert_eq!(records.pixels.len(), 2 * IMAGE);
    }

    #[test]
    fn cifar100_takes_the_fine_label() {
        assert_eq!(parse(Cifar::Cifar100, &record(&[19, 99], 0)).unwrap().labels, [99]);
    }

    #[test]
    fn damaged_bytes_are_typed_errors() {
        for kind in [Cifar::Cifar10, Cifar::Cifar100] {
            assert_data_error(parse(kind, &[]), &[SOURCE, "empty", "a multiple of 307", "got 0 bytes"]);
            let whole = record(&[1, 2][..kind.label_bytes()], 0);
            for length in (1..whole.len()).step_by(97).chain([whole.len() - 1]) {
                assert_data_error(
                    parse(kind, &whole[..length]),
                    &[SOURCE, "cut off", "a multiple of", &format!("got {length} bytes")],
                );
            }
        }
        let second_bad = [record(&[9], 0), record(&[10], 0)].concat();
        assert_data_error(parse(Cifar::Cifar10, &second_bad), &["label of record 1", "below 10", "got 10"]);
        assert_data_error(parse(Cifar::Cifar100, &record(&[19, 100], 0)), &["record 0", "below 100", "got 100"]);
        assert_data_error(parse(Cifar::Cifar100, &record(&[20, 5], 0)), &["record 0", "below 20", "got 20"]);
    }

    fn write_cifar10(dir: &Path) {
        for batch in 1..=5 {
            let name = dir.join(format!("data_batch_{batch}.bin"));
            std::fs::write(name, [record(&[batch], 0), record(&[0], usize::from(batch))].concat()).unwrap();
        }
        std::fs::write(dir.join("test_batch.bin.gz"), gzip(&record(&[7], 3))).unwrap();
    }

    #[test]
    fn reads_the_files_in_order_from_the_folder_or_its_parent() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&folder).unwrap();
        write_cifar10(&folder);
        for dir in [parent.path(), &folder] {
            let train = Cifar::Cifar10.open(dir, Split::Train).unwrap();
            assert_eq!((train.len(), train.shape()), (10, [3, 32, 32]));
            assert_eq!((0..10).map(|index| train.label(index)).collect::<Vec<_>>(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
            assert_eq!(train.class_names(), CIFAR10_CLASSES);
            let mut pixels = vec![0; IMAGE];
            train.image(7, &mut pixels).unwrap();
            assert_eq!(pixels, parse(Cifar::Cifar10, &record(&[0], 4)).unwrap().pixels);
            assert_eq!(Cifar::Cifar10.open(dir, Split::Test).unwrap().label(0), 7);
        }
    }

    #[test]
    fn class_names_come_from_the_file_if_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("test.bin"), record(&[0, 42], 0)).unwrap();
        let open = || Cifar::Cifar100.open(dir.path(), Split::Test);
        assert_eq!(open().unwrap().class_names()[42], "42");
        let names = dir.path().join("fine_label_names.txt");
        let lines: Vec<String> = (0..100).map(|class| format!("name{class}")).collect();
        std::fs::write(&names, lines.join("\r\n") + "\n\n").unwrap();
        assert_eq!(open().unwrap().class_names()[42], "name42");
        std::fs::write(&names, "apple\npear\n").unwrap();
        assert_data_error(open(), &["fine_label_names.txt", "100 class names", "got 2"]);
        std::fs::write(&names, [0xff; 100]).unwrap();
        assert_data_error(open(), &["fine_label_names.txt", "UTF-8"]);
    }

    #[test]
    fn missing_and_unusable_files_are_typed_errors() {
        let dir = tempfile::tempdir().unwrap();
        let open = |split| Cifar::Cifar10.open(dir.path(), split);
        assert_data_error(
            open(Split::Train),
            &["missing", "data_batch_1.bin", "binary version of CIFAR-10", "cifar-10-batches-bin"],
        );
        write_cifar10(dir.path());
        std::fs::remove_file(dir.path().join("data_batch_4.bin")).unwrap();
        assert_data_error(open(Split::Train), &["missing", "data_batch_4.bin"]);
        std::fs::create_dir(dir.path().join("data_batch_4.bin")).unwrap();
        assert_data_error(open(Split::Train), &["data_batch_4.bin", "a regular file", "a folder"]);
        let test = dir.path().join("test_batch.bin.gz");
        let packed = gzip(&record(&[7], 3));
        std::fs::write(&test, &packed[..packed.len() / 2]).unwrap();
        assert_data_error(open(Split::Test), &["test_batch.bin.gz", "gzip stream is damaged"]);
        std::fs::write(&test, [packed, b"more".to_vec()].concat()).unwrap();
        assert_data_error(open(Split::Test), &["test_batch.bin.gz", "gzip stream is damaged"]);
    }

    /// A few hundred kilobytes that would decompress to more than the bound.
    #[test]
    fn a_gzip_bomb_stops_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let zeros = gzip(&vec![0; 1 << 22]);
        std::fs::write(dir.path().join("test_batch.bin.gz"), zeros.repeat((MAX_BYTES >> 22) as usize + 1)).unwrap();
        assert_data_error(Cifar::Cifar10.open(dir.path(), Split::Test), &["too large", &format!("at most {MAX_BYTES} bytes")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..8), records in 0..3_usize, extra in 0..2_usize) {
            for kind in [Cifar::Cifar10, Cifar::Cifar100] {
                let length = records * (kind.label_bytes() + IMAGE) + extra;
                let repeated: Vec<u8> = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { length }).collect();
                if let Ok(parsed) = parse(kind, &repeated) {
                    prop_assert_eq!(extra, 0);
                    prop_assert_eq!((parsed.labels.len(), parsed.pixels.len()), (records, records * IMAGE));
                }
            }
        }

        #[test]
        fn valid_records_round_trip(labels in proptest::collection::vec((0..20_u8, 0..100_u8), 1..4)) {
            let bytes: Vec<u8> = labels.iter().enumerate().flat_map(|(image, &(coarse, fine))| record(&[coarse, fine], image)).collect();
            let parsed = parse(Cifar::Cifar100, &bytes).unwrap();
            prop_assert_eq!(parsed.labels, labels.iter().map(|label| u32::from(label.1)).collect::<Vec<_>>());
            let image = labels.len() - 1;
            prop_assert_eq!(parsed.pixels[image * IMAGE + 2], record(&[], image)[2 * PLANE]);
        }
    }
}
