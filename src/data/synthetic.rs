//! The generated data set: ten classes of 32 x 32 colour images, five shapes and five textures, that need no files.
//!
//! Place, size, turn, colours, background, clutter and noise are random, and it is a coin toss whether the object is brighter or
//! darker than its background, so that no single pixel says anything about the class: a linear model on pixels hardly does
//! better than guessing, while a small convolutional network learns the set well. Mirroring and shifting keep the class.
//!
//! Image `i` is a pure function of (seed, split, `i`), drawn when it is asked for, and has class `i mod 10`.
#![forbid(unsafe_code)]

mod pattern;
mod scene;

use crate::error::Result;
use crate::random::{Purpose, Random};

use super::{Dataset, Split, check_request};
use pattern::Pattern;
use scene::Scene;

/// Height and width of the images.
const SIDE: usize = 32;
/// The seed of the standard set: its images are always the same.
const STANDARD_SEED: u64 = 0;

/// The generated data set.
#[derive(Clone, Debug)]
pub struct Synthetic {
    seed: u64,
    split: Split,
    count: usize,
    class_names: Vec<String>,
}

impl Synthetic {
    /// Number of images of the standard training part.
    pub const TRAIN_COUNT: usize = 8_000;
    /// Number of images of the standard test part.
    pub const TEST_COUNT: usize = 2_000;

    /// `count` images of one part. Other seeds give other images of the same kind; the two parts of a seed share no image.
    pub fn new(seed: u64, split: Split, count: usize) -> Self {
        Self { seed, split, count, class_names: Pattern::NAMES.map(String::from).to_vec() }
    }

    /// The part of the standard set: [`Self::TRAIN_COUNT`] or [`Self::TEST_COUNT`] images that are always the same.
    pub fn standard(split: Split) -> Self {
        let count = match split {
            Split::Train => Self::TRAIN_COUNT,
            Split::Test => Self::TEST_COUNT,
        };
        Self::new(STANDARD_SEED, split, count)
    }
}

impl Dataset for Synthetic {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 3] {
        [3, SIDE, SIDE]
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn image(&self, index: usize, pixels: &mut [u8]) -> Result<()> {
        check_request(self, index, pixels.len())?;
        // Part of the key: never change these numbers.
        let split = match self.split {
            Split::Train => 0,
            Split::Test => 1,
        };
        let mut random = Random::keyed(self.seed, Purpose::Synthetic, split, index as u64);
        let pattern = Pattern::draw(self.label(index), &mut random);
        Scene::draw(&mut random).paint(&pattern, &mut random, pixels);
        Ok(())
    }

    fn label(&self, index: usize) -> u32 {
        (index % Pattern::NAMES.len()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: usize = 3 * SIDE * SIDE;

    fn images(dataset: &Synthetic) -> Vec<u8> {
        let mut pixels = vec![0; dataset.len() * IMAGE];
        for (index, image) in pixels.chunks_exact_mut(IMAGE).enumerate() {
            dataset.image(index, image).unwrap();
        }
        pixels
    }

    /// FNV-1a.
    fn hash(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Accuracies of models are quoted for these images: they must never change.
    #[test]
    fn images_do_not_change() {
        let head = |split| Synthetic { count: 50, ..Synthetic::standard(split) };
        assert_eq!(
            [Split::Train, Split::Test].map(|split| hash(&images(&head(split)))),
            [9_135_750_782_746_689_882, 11_208_950_431_259_854_880]
        );
    }

    #[test]
    fn seed_split_and_index_give_other_images() {
        let image = |seed, split, index: usize| images(&Synthetic::new(seed, split, 20))[index * IMAGE..][..IMAGE].to_vec();
        let first = image(1, Split::Train, 3);
        assert_eq!(first, image(1, Split::Train, 3));
        for other in [image(2, Split::Train, 3), image(1, Split::Test, 3), image(1, Split::Train, 13)] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn classes_are_balanced() {
        for split in [Split::Train, Split::Test] {
            let dataset = Synthetic::standard(split);
            let mut counts = [0; 10];
            (0..dataset.len()).for_each(|index| counts[dataset.label(index) as usize] += 1);
            assert_eq!(counts, [dataset.len() / 10; 10]);
            assert_eq!(dataset.class_names()[dataset.label(4) as usize], "cross");
        }
    }

    #[test]
    fn requests_are_checked() {
        let dataset = Synthetic::new(1, Split::Test, 2);
        assert!(matches!(dataset.image(2, &mut [0; IMAGE]), Err(crate::Error::Shape { .. })));
        assert!(matches!(dataset.image(0, &mut [0; 5]), Err(crate::Error::Shape { .. })));
    }

    /// A softmax classifier on pixels, trained by stochastic gradient descent; one weight row and bias per class.
    struct Linear {
        weights: Vec<[f32; IMAGE + 1]>,
    }

    impl Linear {
        fn probabilities(&self, image: &[f32; IMAGE + 1]) -> [f32; 10] {
            let logits: Vec<f32> = self.weights.iter().map(|row| dot(row, image)).collect();
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let powers: [f32; 10] = std::array::from_fn(|class| libm::expf(logits[class] - largest));
            powers.map(|power| power / powers.iter().sum::<f32>())
        }

        fn step(&mut self, image: &[f32; IMAGE + 1], label: usize, rate: f32) {
            let probabilities = self.probabilities(image);
            for (class, row) in self.weights.iter_mut().enumerate() {
                let error = probabilities[class] - f32::from(u8::from(class == label));
                row.iter_mut().zip(image).for_each(|(weight, value)| *weight -= rate * error * value);
            }
        }

        fn accuracy(&self, images: &[[f32; IMAGE + 1]]) -> f32 {
            let correct = images.iter().enumerate().filter(|(index, image)| {
                let probabilities = self.probabilities(image);
                (0..10).all(|class| probabilities[class] <= probabilities[index % 10])
            });
            correct.count() as f32 / images.len() as f32
        }
    }

    /// Sixteen partial sums, so that the compiler can use vectors.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0.0; 16];
        for (a, b) in a.chunks(16).zip(b.chunks(16)) {
            a.iter().zip(b).zip(&mut sums).for_each(|((a, b), sum)| *sum += a * b);
        }
        sums.iter().sum()
    }

    fn linear_inputs(split: Split, count: usize) -> Vec<[f32; IMAGE + 1]> {
        let pixels = images(&Synthetic::new(STANDARD_SEED, split, count));
        let input = |image: &[u8]| {
            std::array::from_fn(|position| image.get(position).map_or(1.0, |&byte| (f32::from(byte) / 255.0 - 0.5) / 0.22))
        };
        pixels.chunks_exact(IMAGE).map(input).collect()
    }

    /// The set must need a network that sees shapes: a linear model learns the training images but not the classes.
    #[test]
    fn a_linear_model_is_not_enough() {
        let [train, test] = [(Split::Train, 2000), (Split::Test, 1000)].map(|(split, count)| linear_inputs(split, count));
        let mut model = Linear { weights: vec![[0.0; IMAGE + 1]; 10] };
        for epoch in 0..8 {
            let mut order: Vec<u32> = (0..train.len() as u32).collect();
            Random::keyed(1, Purpose::Shuffle, epoch, 0).shuffle(&mut order);
            for index in order {
                model.step(&train[index as usize], index as usize % 10, 1e-3);
            }
        }
        let [train, test] = [&train, &test].map(|images| model.accuracy(images));
        assert!(train > 0.5, "the linear model did not learn: {train}");
        assert!(test < 0.6, "a linear model reaches {test}");
    }
}
