//! How far the logits of two programs, or of two forms of a model, are apart.
#![forbid(unsafe_code)]

use leanresnet::Model;

/// Unit roundoff of f32.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// What the images so far showed.
#[derive(Debug, Default, PartialEq)]
pub struct Comparison {
    /// Number of images.
    pub images: usize,
    /// Largest difference of two logits; infinite if one is no finite number.
    pub max_difference: f64,
    /// Largest difference of two logits of an image, relative to the largest magnitude of the expected ones of that image.
    pub max_relative: f64,
    /// Images with the same largest logit.
    same_top1: usize,
}

impl Comparison {
    /// Adds the logits of some images, [n, classes].
    pub fn add(&mut self, logits: &[f32], expected: &[f32], classes: usize) {
        for (logits, expected) in logits.chunks_exact(classes).zip(expected.chunks_exact(classes)) {
            let difference = largest(logits.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()));
            let scale = largest(expected.iter().map(|value| f64::from(value.abs())));
            let relative = if difference == 0.0 { 0.0 } else { difference / scale };
            self.images += 1;
            self.max_difference = self.max_difference.max(difference);
            self.max_relative = largest([self.max_relative, relative].into_iter());
            self.same_top1 += usize::from(top1(logits) == top1(expected));
        }
    }

    /// The share of images with the same largest logit.
    pub fn top1_agreement(&self) -> f64 {
        self.same_top1 as f64 / self.images.max(1) as f64
    }
}

/// The largest of some magnitudes; infinite if one is not finite.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, value| if value.is_finite() { most.max(value) } else { f64::INFINITY })
}

/// The first class with the largest logit.
fn top1(logits: &[f32]) -> usize {
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

/// The relative difference that two programs may have which compute a model in f32 and sum in another order: 8 u sqrt(n), where u is f32's
/// unit roundoff and n the number of roundings that a value passes on its way through all layers: a product and a sum each, and four
/// more per layer for bias, norm, sum and ReLU. Roundings are as often up as down, so that their sum grows as the root of their number
/// (Higham and Mary 2019); 8 is for differences that later layers amplify.
pub fn default_tolerance(model: &Model) -> f64 {
    let roundings: f64 =
        model.layers().iter().map(|layer| layer.macs as f64 / layer.output.iter().product::<usize>() as f64 + 4.0).sum();
    8.0 * UNIT * roundings.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use leanresnet::Network;

    #[test]
    fn differences_are_relative_to_their_image() {
        let mut comparison = Comparison::default();
        comparison.add(&[1.0, 2.0, 3.0, -400.0], &[1.5, 2.0, 2.0, -400.0], 2);
        assert_eq!((comparison.images, comparison.max_difference, comparison.max_relative), (2, 1.0, 0.25));
        assert_eq!(comparison.top1_agreement(), 1.0);
        comparison.add(&[1.0, 2.0], &[1.0, 0.5], 2);
        assert_eq!((comparison.max_difference, comparison.max_relative), (1.5, 1.5));
        assert!((comparison.top1_agreement() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_number_is_infinitely_far() {
        for (got, expected) in
            [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::NAN, f32::NAN), (f32::INFINITY, 1.0), (1.0, f32::INFINITY)]
        {
            let mut comparison = Comparison::default();
            comparison.add(&[got, 0.0], &[expected, 0.0], 2);
            comparison.add(&[1.0, 0.0], &[1.0, 0.0], 2);
            assert_eq!(comparison.max_difference, f64::INFINITY, "{got} {expected}");
            assert!(comparison.max_relative == f64::INFINITY, "{got} {expected}: {}", comparison.max_relative);
        }
        let mut comparison = Comparison::default();
        comparison.add(&[0.0, 0.0], &[0.0, 0.0], 2);
        assert_eq!((comparison.max_difference, comparison.max_relative), (0.0, 0.0));
        comparison.add(&[1e-30, 0.0], &[0.0, 0.0], 2);
        assert_eq!(comparison.max_relative, f64::INFINITY);
    }

    #[test]
    fn tolerance_grows_as_the_root_of_the_roundings() {
        // Stem 27, convolutions 3 x 2 x (32 + 64 + 128 + 3 x 5), connections 32 + 64, head 128; 4 for each of 37 layers.
        let small = 8.0 * UNIT * f64::from(27 + 6 * (224 + 15) + 96 + 128 + 4 * 37).sqrt();
        let tolerance = default_tolerance(&Model::random(&Network::preset("small").unwrap(), 1));
        assert!((tolerance / small - 1.0).abs() < 1e-9, "{tolerance} {small}");
        assert!((1.5e-5..2.5e-5).contains(&tolerance));
    }
}
