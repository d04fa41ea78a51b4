//! A stem that starts with filters which whiten the training images' patches, as the fastest published runs on CIFAR-10 have it (Page 2018,
//! "How to train your ResNet"; Jordan 2024, arXiv:2404.00498).
#![forbid(unsafe_code)]

use super::executor::StateKind;
use super::trainer::Trainer;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::net::Preprocess;

/// Patches that are looked at: enough for the 27 values of a 3x3 patch, and for the 147 of a 7x7 one.
const PATCHES: usize = 200_000;

/// Added to the variances: directions with less are noise, and are not blown up.
const EPSILON: f64 = 5e-4;

impl Trainer {
    /// Replaces the filters of the stem by those that whiten the patches of `dataset`: the principal components of a patch, by falling
    /// variance and divided by its root, each followed by its negative, since a ReLU keeps one side only. Filters beyond twice the values
    /// of a patch keep their random weights. [`fit`](Self::fit) does this by itself at its first step if `train.whiten_stem` is set.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the network has no stem convolution or there is no image as large as a filter; [`Error::Shape`] if the images
    /// do not fit the network; the errors of the data set.
    pub fn whiten_stem(&mut self, dataset: &dyn Dataset) -> Result<()> {
        const NAME: &str = "stem.conv.weight";
        self.check_dataset("training set", dataset)?;
        let preprocess = self.preprocess_for(dataset)?;
        let mut found = None;
        self.executor.visit_state(&mut |kind, name, shape, values| {
            if kind == StateKind::Model && name == NAME {
                found = Some((shape.to_vec(), values.to_vec()));
            }
        });
        let Some((shape, mut weights)) = found.filter(|(shape, _)| shape.len() == 4) else {
            return Err(Error::invalid("train.whiten_stem", format!("a network with {NAME}"), "none"));
        };
        let length = shape[1..].iter().product::<usize>();
        let (values, vectors) = eigen(covariance(dataset, &preprocess, shape[2])?, length);
        for (component, (value, vector)) in values.iter().zip(vectors.chunks_exact(length)).enumerate() {
            let scale = 1.0 / (value.max(0.0) + EPSILON).sqrt();
            let filters = weights.chunks_exact_mut(length).skip(2 * component).take(2);
            for (filter, sign) in filters.zip([scale, -scale]) {
                filter.iter_mut().zip(vector).for_each(|(weight, value)| *weight = (sign * value) as f32);
            }
        }
        self.executor.restore_state(StateKind::Model, NAME, &shape, &weights)?;
        if self.config.train.ema > 0.0 {
            self.executor.restore_state(StateKind::Ema, NAME, &shape, &weights)?;
        }
        Ok(())
    }
}

/// The mean of p p^T over patches p, [channel][side][side] each, of the first images; patches do not overlap.
fn covariance(dataset: &dyn Dataset, preprocess: &Preprocess, side: usize) -> Result<Vec<f64>> {
    let [channels, height, width] = dataset.shape();
    let (rows, columns) = (height / side, width / side);
    if rows * columns == 0 {
        return Err(Error::invalid(
            "train.whiten_stem",
            format!("images of at least {side}x{side}"),
            format!("{height}x{width}"),
        ));
    }
    let images = dataset.len().min(PATCHES.div_ceil(rows * columns));
    let length = channels * side * side;
    let mut sums = vec![0.0; length * length];
    let mut bytes = vec![0; channels * height * width];
    let mut patch = vec![0.0; length];
    for image in 0..images {
        dataset.image(image, &mut bytes)?;
        for (row, column) in (0..rows * columns).map(|at| (at / columns * side, at % columns * side)) {
            for (at, value) in patch.iter_mut().enumerate() {
                let (channel, h, w) = (at / (side * side), row + at / side % side, column + at % side);
                let byte = f64::from(bytes[(h * width + w) * channels + channel]);
                *value = (byte / 255.0 - f64::from(preprocess.mean[channel])) / f64::from(preprocess.std[channel]);
            }
            for (sums, value) in sums.chunks_exact_mut(length).zip(&patch) {
                sums.iter_mut().zip(&patch).for_each(|(sum, other)| *sum += value * other);
            }
        }
    }
    let count = (images * rows * columns) as f64;
    Ok(sums.into_iter().map(|sum| sum / count).collect())
}

/// Eigenvalues of a symmetric matrix, falling, and their vectors of length 1, one after the other, each with its largest element positive.
///
/// Jacobi's rotations, cyclic by rows (Golub and Van Loan, "Matrix Computations", 8.5): slow, short and accurate; only additions,
/// products, quotients and roots, so that every machine finds the same bits.
fn eigen(mut matrix: Vec<f64>, size: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors: Vec<f64> = (0..size * size).map(|at| if at / size == at % size { 1.0 } else { 0.0 }).collect();
    let whole: f64 = matrix.iter().map(|value| value * value).sum();
    for _ in 0..SWEEPS {
        let outside: f64 =
            matrix.iter().enumerate().filter(|(at, _)| at / size != at % size).map(|(_, value)| value * value).sum();
        if outside <= 1e-24 * whole {
            break;
        }
        for (p, q) in (0..size).flat_map(|p| (p + 1..size).map(move |q| (p, q))) {
            let Some((cosine, sine)) = rotation(matrix[p * size + p], matrix[q * size + q], matrix[p * size + q]) else {
                continue;
            };
            // J^T A J, and the vectors as rows: J^T V.
            for at in 0..size {
                rotate(&mut matrix, (at * size + p, at * size + q), cosine, sine);
            }
            for at in 0..size {
                rotate(&mut matrix, (p * size + at, q * size + at), cosine, sine);
                rotate(&mut vectors, (p * size + at, q * size + at), cosine, sine);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| matrix[b * size + b].total_cmp(&matrix[a * size + a]));
    let values = order.iter().map(|at| matrix[at * size + at]).collect();
    let vectors = order.iter().flat_map(|at| {
        let vector = &vectors[at * size..][..size];
        let largest = vector.iter().fold(0.0_f64, |largest, value| if value.abs() > largest.abs() { *value } else { largest });
        vector.iter().map(move |value| value * largest.signum())
    });
    (values, vectors.collect())
}

/// Sweeps over all pairs; ten are enough for any matrix that fits into memory, as convergence is quadratic.
const SWEEPS: usize = 30;

/// Cosine and sine of the rotation that brings the element between two diagonal elements to 0; none if it is 0.
fn rotation(first: f64, second: f64, between: f64) -> Option<(f64, f64)> {
    if between == 0.0 {
        return None;
    }
    let tau = (second - first) / (2.0 * between);
    let tangent = if tau >= 0.0 { 1.0 / (tau + (1.0 + tau * tau).sqrt()) } else { 1.0 / (tau - (1.0 + tau * tau).sqrt()) };
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    Some((cosine, tangent * cosine))
}

fn rotate(values: &mut [f64], (p, q): (usize, usize), cosine: f64, sine: f64) {
    let (first, second) = (values[p], values[q]);
    values[p] = cosine * first - sine * second;
    values[q] = sine * first + cosine * second;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;
    use crate::net::Network;
    use crate::random::{Purpose, Random};
    use crate::train::TrainConfig;

    /// Images of uniform noise in which neighbours are averaged, so that a patch has structure.
    fn images(shape: [usize; 3], count: usize) -> InMemory {
        let mut random = Random::keyed(3, Purpose::Synthetic, 0, 0);
        let mut bytes = vec![0; count * shape.iter().product::<usize>()];
        random.fill(&mut bytes);
        let pixels = bytes.iter().zip(bytes.iter().cycle().skip(shape[0])).map(|(a, b)| a / 2 + b / 2).collect();
        let names = ["a", "b"].map(String::from).to_vec();
        InMemory::new(shape, names, pixels, vec![0; count]).unwrap()
    }

    fn trainer(width: usize) -> Trainer {
        let network = Network::builder().with_input([3, 12, 12]).with_classes(2).with_stage(width, 1).build().unwrap();
        let preprocess = Preprocess::new(&[0.5; 3], &[0.25; 3]);
        Trainer::new(&network, TrainConfig::default().with_ema(0.5)).unwrap().with_preprocess(preprocess)
    }

    fn stem(trainer: &Trainer, wanted: StateKind) -> Vec<f32> {
        let mut weights = Vec::new();
        trainer.executor().visit_state(&mut |kind, name, _, values| {
            if kind == wanted && name == "stem.conv.weight" {
                weights = values.to_vec();
            }
        });
        weights
    }

    #[test]
    fn eigenvectors_are_orthogonal_and_give_the_matrix_back() {
        let mut random = Random::keyed(1, Purpose::Weights, 0, 0);
        for size in [1, 2, 5, 27] {
            let mut matrix = vec![0.0; size * size];
            for (p, q) in (0..size).flat_map(|p| (0..=p).map(move |q| (p, q))) {
                let value = f64::from(random.uniform()) - 0.3;
                (matrix[p * size + q], matrix[q * size + p]) = (value, value);
            }
            let (values, vectors) = eigen(matrix.clone(), size);
            assert!(values.is_sorted_by(|a, b| a >= b));
            for (p, q) in (0..size).flat_map(|p| (0..size).map(move |q| (p, q))) {
                let product: f64 = (0..size).map(|at| vectors[p * size + at] * vectors[q * size + at]).sum();
                assert!((product - if p == q { 1.0 } else { 0.0 }).abs() < 1e-12, "{size}: {p} {q}: {product}");
                let element: f64 = (0..size).map(|at| values[at] * vectors[at * size + p] * vectors[at * size + q]).sum();
                assert!((element - matrix[p * size + q]).abs() < 1e-11, "{size}: {p} {q}: {element}");
            }
        }
    }

    #[test]
    fn filters_make_patches_white() {
        let data = images([3, 12, 12], 400);
        let mut trainer = trainer(64);
        let random = stem(&trainer, StateKind::Model);
        trainer.whiten_stem(&data).unwrap();
        let weights = stem(&trainer, StateKind::Model);
        assert_eq!(weights, stem(&trainer, StateKind::Ema), "the average starts there too");
        assert_eq!(weights[54 * 27..], random[54 * 27..], "filters beyond the components and their negatives");
        let filter = |index: usize| &weights[index * 27..][..27];
        let covariance = covariance(&data, trainer.preprocess().unwrap(), 3).unwrap();
        let moment = |a: usize, b: usize| -> f64 {
            let products = (0..27 * 27).map(|at| covariance[at] * f64::from(filter(a)[at / 27]) * f64::from(filter(b)[at % 27]));
            products.sum()
        };
        for component in 0..27 {
            assert!(filter(2 * component).iter().zip(filter(2 * component + 1)).all(|(a, b)| *a == -b));
            for other in 0..27 {
                let expected = if component == other { 1.0 } else { 0.0 };
                assert!((moment(2 * component, 2 * other) - expected).abs() < 0.02, "{component} {other}");
            }
        }
    }

    #[test]
    fn fewer_filters_than_components_take_the_first_ones() {
        let data = images([3, 12, 12], 50);
        let (mut few, mut many) = (trainer(5), trainer(64));
        few.whiten_stem(&data).unwrap();
        many.whiten_stem(&data).unwrap();
        assert_eq!(stem(&few, StateKind::Model), stem(&many, StateKind::Model)[..5 * 27]);
    }

    #[test]
    fn images_of_another_shape_are_refused() {
        let error = trainer(8).whiten_stem(&images([1, 12, 12], 4)).unwrap_err().to_string();
        assert_eq!(error, "shape of images of the training set; expected 3 x 12 x 12, got 1 x 12 x 12");
    }
}
