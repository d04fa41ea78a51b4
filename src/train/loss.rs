//! Softmax cross-entropy with label smoothing, its gradient, and the rank of the right class.
#![forbid(unsafe_code)]

use crate::data::SoftLabel;
use crate::error::{Error, Result};

/// Loss and hits of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepLoss {
    /// Cross-entropy in nats, summed over the images of the batch.
    pub loss_sum: f64,
    /// Images whose largest logit is that of their class (of the larger share, where two are mixed).
    pub correct: u64,
}

/// Softmax cross-entropy of `logits` `[n, classes]`, and its gradient by the logits.
///
/// The target of an image is `(1 - smoothing)` times its label plus `smoothing / classes` for every class. `gradient` `[n, classes]`
/// receives `(softmax - target) / n`. Sums run over the classes, then over the images, in f64 and in index order; a NaN in the logits
/// comes out as a NaN loss.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Invalid`] if lengths do not fit, a label is out of range, or `smoothing` is outside [0, 1).
pub fn softmax_cross_entropy(
    logits: &[f32],
    labels: &[SoftLabel],
    classes: usize,
    smoothing: f64,
    gradient: &mut [f32],
) -> Result<StepLoss> {
    let images = labels.len();
    check_logits(logits, images, classes)?;
    labels.iter().try_for_each(|label| check_label(label, classes))?;
    if gradient.len() != logits.len() {
        return Err(Error::shape("gradient of the logits", logits.len(), gradient.len()));
    }
    super::config::require_fraction("label smoothing", smoothing)?;
    let everywhere = smoothing / classes as f64;
    let mut step = StepLoss::default();
    for ((row, gradient), label) in logits.chunks_exact(classes).zip(gradient.chunks_exact_mut(classes)).zip(labels) {
        let target = shares(label);
        let shifted_sum = exponentials(row, gradient);
        let largest = maximum(row);
        // -sum_j target_j log p_j = log(sum exp) - sum_j target_j (logit_j - max), as the targets sum to 1.
        let mut loss = libm::log(shifted_sum);
        for (class, share) in target {
            if share > 0.0 {
                loss -= (1.0 - smoothing) * share * f64::from(row[class as usize] - largest);
            }
        }
        if smoothing > 0.0 {
            loss -= everywhere * row.iter().map(|&logit| f64::from(logit - largest)).sum::<f64>();
        }
        step.loss_sum += loss;
        step.correct += u64::from(rank(row, likelier(label)) == 0);
        let scale = images as f64;
        for (class, value) in gradient.iter_mut().enumerate() {
            let mut difference = f64::from(*value) / shifted_sum - everywhere;
            for (label, share) in target {
                if label as usize == class {
                    difference -= (1.0 - smoothing) * share;
                }
            }
            *value = (difference / scale) as f32;
        }
    }
    Ok(step)
}

/// The cross-entropy (nats, without smoothing) of one row of logits whose class is `label`.
///
/// # Panics
/// If `label` is not an index of `logits`.
pub fn cross_entropy(logits: &[f32], label: u32) -> f64 {
    let largest = maximum(logits);
    let sum: f64 = logits.iter().map(|&logit| f64::from(libm::expf(logit - largest))).sum();
    libm::log(sum) - f64::from(logits[label as usize] - largest)
}

/// The number of classes that stand before `label` when the logits are sorted from the largest; of equal ones the lower index is
/// first. So 0 is a hit of the first guess and `rank < k` a hit of the first k. A NaN stands before every number, and the class that
/// has it is last.
///
/// # Panics
/// If `label` is not an index of `logits`.
pub fn rank(logits: &[f32], label: u32) -> usize {
    let label = label as usize;
    let own = logits[label];
    let before = |&(class, &logit): &(usize, &f32)| {
        class != label && (logit > own || logit.is_nan() || own.is_nan() || (logit == own && class < label))
    };
    logits.iter().enumerate().filter(before).count()
}

/// Checks that there are `images` rows of `classes` logits.
pub(super) fn check_logits(logits: &[f32], images: usize, classes: usize) -> Result<()> {
    if classes > 0 && images.checked_mul(classes) == Some(logits.len()) {
        return Ok(());
    }
    Err(Error::shape("logits", format!("[{images}, {classes}]"), format!("{} numbers", logits.len())))
}

/// Checks that both classes exist and that the share is one.
pub(super) fn check_label(label: &SoftLabel, classes: usize) -> Result<()> {
    if let Some(class) = [label.first, label.second].into_iter().find(|&class| class as usize >= classes) {
        return Err(Error::invalid("label", format!("a class below {classes}"), class));
    }
    if !(0.0..=1.0).contains(&label.weight) {
        return Err(Error::invalid("share of a label's first class", "a number in [0, 1]", label.weight));
    }
    Ok(())
}

/// Both classes of a label with their shares.
fn shares(label: &SoftLabel) -> [(u32, f64); 2] {
    let share = f64::from(label.weight);
    [(label.first, share), (label.second, 1.0 - share)]
}

/// Writes `exp(logit - max)` to `exponentials` and returns their sum.
fn exponentials(row: &[f32], exponentials: &mut [f32]) -> f64 {
    let largest = maximum(row);
    let mut sum = 0.0;
    for (&logit, exponential) in row.iter().zip(exponentials) {
        *exponential = libm::expf(logit - largest);
        sum += f64::from(*exponential);
    }
    sum
}

/// The largest of `row`, without its NaNs.
fn maximum(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |largest, &logit| if logit > largest { logit } else { largest })
}

/// The class with the larger share; the first of equal ones.
fn likelier(label: &SoftLabel) -> u32 {
    if label.weight < 0.5 { label.second } else { label.first }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 2.0, 0.5, -1.0, 3.0, 3.0];

    fn hard<const N: usize>(classes: [u32; N]) -> [SoftLabel; N] {
        classes.map(SoftLabel::hard)
    }

    fn mixed(first: u32, second: u32, weight: f32) -> SoftLabel {
        SoftLabel { first, second, weight }
    }

    fn loss_of(logits: &[f32], labels: &[SoftLabel], smoothing: f64) -> (StepLoss, Vec<f32>) {
        let mut gradient = vec![f32::NAN; logits.len()];
        let step = softmax_cross_entropy(logits, labels, 3, smoothing, &mut gradient).unwrap();
        (step, gradient)
    }

    #[test]
    fn two_rows_by_hand() {
        let (step, gradient) = loss_of(&LOGITS, &hard([1, 2]), 0.0);
        // Row 0: ln(e^1 + e^2 + e^0.5) - 2; row 1: ln(e^-1 + 2 e^3) - 3. Row 1 ties, the lower index wins.
        let by_hand = (1f64.exp() + 2f64.exp() + 0.5f64.exp()).ln() - 2.0 + ((-1f64).exp() + 2.0 * 3f64.exp()).ln() - 3.0;
        assert!((step.loss_sum - by_hand).abs() < 1e-6, "{} {by_hand}", step.loss_sum);
        assert_eq!(step.correct, 1);
        let softmax = 1f64.exp() / (1f64.exp() + 2f64.exp() + 0.5f64.exp());
        assert!((f64::from(gradient[0]) - softmax / 2.0).abs() < 1e-7);
        for row in gradient.chunks(3) {
            assert!(row.iter().sum::<f32>().abs() < 1e-7);
        }
        let single: f64 = cross_entropy(&LOGITS[..3], 1) + cross_entropy(&LOGITS[3..], 2);
        assert!((single - step.loss_sum).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_is_the_derivative_of_the_loss() {
        for labels in [hard([2, 0]), [mixed(0, 1, 0.75), mixed(2, 0, 0.25)]] {
            for smoothing in [0.0, 0.2] {
                let (_, gradient) = loss_of(&LOGITS, &labels, smoothing);
                for (index, &value) in gradient.iter().enumerate() {
                    let moved = |by: f32| {
                        let mut logits = LOGITS;
                        logits[index] += by;
                        loss_of(&logits, &labels, smoothing).0.loss_sum / 2.0
                    };
                    let difference = (moved(1.0 / 64.0) - moved(-1.0 / 64.0)) * 32.0;
                    assert!((difference - f64::from(value)).abs() < 1e-4, "{labels:?} {smoothing} {index}: {difference} {value}");
                }
            }
        }
    }

    #[test]
    fn a_share_of_one_is_the_plain_label() {
        let mixed = [mixed(1, 0, 1.0), mixed(2, 0, 1.0)];
        assert_eq!(loss_of(&LOGITS, &mixed, 0.1), loss_of(&LOGITS, &hard([1, 2]), 0.1));
    }

    #[test]
    fn smoothing_is_the_mean_over_targets() {
        let plain = |class| loss_of(&LOGITS[..3], &hard([class]), 0.0).0.loss_sum;
        let smooth = loss_of(&LOGITS[..3], &hard([0]), 0.3).0.loss_sum;
        let by_hand = 0.7 * plain(0) + 0.1 * (plain(0) + plain(1) + plain(2));
        assert!((smooth - by_hand).abs() < 1e-12);
    }

    #[test]
    fn large_logits_do_not_overflow_and_nan_is_not_hidden() {
        let (step, gradient) = loss_of(&[3e38, -3e38, 0.0], &hard([0]), 0.0);
        assert_eq!((step.loss_sum, step.correct), (0.0, 1));
        assert_eq!(gradient, [0.0; 3]);
        for bad in [f32::NAN, f32::INFINITY] {
            let (step, _) = loss_of(&[0.0, bad, 1.0], &hard([2]), 0.0);
            assert!(!step.loss_sum.is_finite());
            assert_eq!(step.correct, 0);
        }
        assert_eq!(loss_of(&[f32::NAN; 3], &hard([0]), 0.0).0.correct, 0);
    }

    #[test]
    fn ranks_count_ties_by_index() {
        assert_eq!([0, 1, 2].map(|label| rank(&[1.0, 3.0, 1.0], label)), [1, 0, 2]);
        assert_eq!([0, 1, 2].map(|label| rank(&[1.0, f32::NAN, 0.0], label)), [1, 2, 2]);
    }

    #[test]
    fn wrong_sizes_and_labels_are_errors() {
        let mut gradient = [0.0; 6];
        let mut run = |labels: &[SoftLabel], classes, smoothing| {
            softmax_cross_entropy(&LOGITS, labels, classes, smoothing, &mut gradient).is_err()
        };
        assert!(run(&hard([0]), 3, 0.0));
        assert!(run(&hard([0, 3]), 3, 0.0));
        assert!(run(&hard([0, 1]), 0, 0.0));
        assert!(run(&hard([0, 1]), 3, 1.0));
        assert!(run(&[mixed(0, 3, 0.5), mixed(0, 1, 0.5)], 3, 0.0));
        assert!(run(&[mixed(0, 1, 1.5), mixed(0, 1, 0.5)], 3, 0.0));
        assert!(!run(&hard([0, 1]), 3, 0.0));
        assert!(softmax_cross_entropy(&LOGITS, &hard([0, 1]), 3, 0.0, &mut [0.0; 5]).is_err());
    }
}
