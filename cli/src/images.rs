//! Images as arrays, [n, channels, height, width]: from a file, or random.
#![forbid(unsafe_code)]

use std::path::Path;

use leanresnet::npy::{self, ElementType};
use leanresnet::{Error, Images, Model};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::failure::{Failure, expected};

/// What the array of images in an archive is called.
const INPUT_ARRAY: &str = "x";
/// Rows and columns of the fields that a random image consists of.
const FIELDS: usize = 4;
/// How far a pixel may be from the level of its field.
const NOISE: f32 = 0.25;

/// An array of images for a model, in a `.npy` file or a `.npz` archive, that is read part by part.
pub struct ImageArray {
    reader: npy::Reader,
    shape: [usize; 4],
    /// Room for the images of a part, in one of both: bytes are normalised by the model, numbers are taken as they are.
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

impl ImageArray {
    /// Opens an array of images of the model's size, of which `most` are read at once.
    pub fn open(path: &Path, model: &Model, most: usize) -> Result<Self, Failure> {
        let reader = npy::open(path, INPUT_ARRAY).map_err(|error| of_array(error, path))?;
        let shape = reader.image_shape().map_err(|error| of_array(error, path))?;
        let [images, channels, height, width] = shape;
        let wanted = model.input();
        if [channels, height, width] != wanted {
            let [channels, height, width] = wanted;
            let wanted = format!("[n, {channels}, {height}, {width}], as the model reads");
            let message = expected(format!("{}: shape", path.display()), wanted, format!("{shape:?}"));
            return Err(Failure::data(message, "leanresnet summary MODEL shows the input of a model"));
        }
        let room = most.min(images) * channels * height * width;
        let is_bytes = reader.element() == ElementType::Unsigned(8);
        let (bytes, numbers) = if is_bytes { (vec![0; room], Vec::new()) } else { (Vec::new(), vec![0.0; room]) };
        Ok(Self { reader, shape, bytes, numbers })
    }

    /// Number of images.
    pub fn count(&self) -> usize {
        self.shape[0]
    }

    /// The next images, at most as many as [`ImageArray::open`] was told.
    pub fn read(&mut self, count: usize) -> Result<Images<'_>, Failure> {
        let [_, channels, height, width] = self.shape;
        let (values, shape) = (count * channels * height * width, [count, channels, height, width]);
        if self.numbers.is_empty() {
            let bytes = &mut self.bytes[..values];
            self.reader.read_u8(bytes).map_err(|error| of_array(error, self.reader.path()))?;
            Ok(Images::nchw_u8(bytes, shape)?)
        } else {
            let numbers = &mut self.numbers[..values];
            self.reader.read_f32(numbers).map_err(|error| of_array(error, self.reader.path()))?;
            Ok(Images::nchw_f32(numbers, shape)?)
        }
    }
}

/// An error in an array of images that is read, with the way to make a right one.
fn of_array(error: Error, path: &Path) -> Failure {
    match error {
        Error::Data { .. } if path.extension().is_some_and(|extension| extension == "npz") => {
            Failure::from(error).with_hint("in Python: numpy.savez('x.npz', x=images.astype('float32')) with images [n, c, h, w]")
        }
        Error::Data { .. } => {
            Failure::from(error).with_hint("in Python: numpy.save('x.npy', images.astype('float32')) with images [n, c, h, w]")
        }
        other => other.into(),
    }
}

/// Random images for a model, the same for equal seeds: fields of random levels with noise, so that images differ in what a network with a
/// global pool sees, normalised like pictures.
pub struct RandomImages {
    random: ChaCha8Rng,
    size: [usize; 2],
    /// Mean and standard deviation of every channel; one pair stands for all where the model does not say.
    channels: Vec<(f32, f32)>,
}

impl RandomImages {
    /// Images of this model's size.
    pub fn new(model: &Model, seed: u64) -> Self {
        let [_, height, width] = model.input();
        let preprocess = model.preprocess();
        let channels = if preprocess.takes_bytes() {
            preprocess.mean.iter().copied().zip(preprocess.std.iter().copied()).collect()
        } else {
            vec![(0.0, 1.0)]
        };
        Self { random: ChaCha8Rng::seed_from_u64(seed), size: [height, width], channels }
    }

    /// Fills `values` with the next images.
    pub fn read(&mut self, values: &mut [f32]) {
        let [height, width] = self.size;
        for (plane, channel) in values.chunks_exact_mut(height * width).zip(0..) {
            let (mean, std) = self.channels[channel % self.channels.len()];
            let levels: [f32; FIELDS * FIELDS] = std::array::from_fn(|_| self.unit());
            for (position, value) in plane.iter_mut().enumerate() {
                let field = position / width * FIELDS / height * FIELDS + position % width * FIELDS / width;
                let pixel = levels[field] + NOISE * (2.0 * self.unit() - 1.0);
                *value = (pixel.clamp(0.0, 1.0) - mean) / std;
            }
        }
    }

    /// A number in [0, 1).
    fn unit(&mut self) -> f32 {
        (self.random.next_u32() >> 8) as f32 / (1 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leanresnet::Network;
    use leanresnet::net::Preprocess;

    #[test]
    fn models_that_take_numbers_only_get_levels() {
        let network = Network::builder().with_input([2, 6, 9]).with_stage(4, 1).build().unwrap();
        let model = Model::random(&network, 1).with_preprocess(Preprocess::numbers_only()).unwrap();
        let mut values = vec![f32::NAN; 2 * 2 * 6 * 9];
        RandomImages::new(&model, 3).read(&mut values);
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)), "{values:?}");
    }

    #[test]
    fn random_images_are_normalised_and_repeat() {
        let network = Network::builder().with_input([2, 6, 9]).with_stage(4, 1).build().unwrap();
        let model = Model::random(&network, 1).with_preprocess(Preprocess::new(&[0.5, 2.0], &[0.25, 4.0])).unwrap();
        let mut whole = vec![f32::NAN; 5 * 2 * 6 * 9];
        RandomImages::new(&model, 3).read(&mut whole);
        let mut parts = vec![f32::NAN; whole.len()];
        let mut images = RandomImages::new(&model, 3);
        parts.chunks_mut(2 * 2 * 6 * 9).for_each(|part| images.read(part));
        assert_eq!(whole, parts);
        for (index, plane) in whole.chunks_exact(6 * 9).enumerate() {
            let range = if index % 2 == 0 { -2.0..=2.0 } else { -0.5..=-0.25 };
            assert!(plane.iter().all(|value| range.contains(value)), "{plane:?}");
            assert!(plane.iter().any(|value| *value != plane[0]));
        }
    }
}
