//! The loss: cross entropy with label smoothing.
#![forbid(unsafe_code)]

use super::Real;

/// A loss and its gradient at the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss<T> {
    /// The mean over the batch.
    pub value: f64,
    /// `[n][classes]`, of the mean.
    pub gradient: Vec<T>,
}

/// Softmax cross entropy of logits `[n][classes]` against one label per image, averaged over the batch.
///
/// The target is `1 - smoothing` on the label plus `smoothing / classes` on every class, as in PyTorch. Computed in `f64`.
pub fn cross_entropy<T: Real>(logits: &[T], labels: &[usize], smoothing: f64) -> Loss<T> {
    let classes = logits.len() / labels.len();
    let batch = labels.len() as f64;
    let mut value = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        assert!(label < classes, "label {label} of {classes} classes");
        let largest = row.iter().map(|logit| logit.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|logit| libm::exp(logit.to_f64() - largest)).sum();
        for (class, logit) in row.iter().enumerate() {
            let log_probability = logit.to_f64() - largest - libm::log(sum);
            let on_label = if class == label { 1.0 - smoothing } else { 0.0 };
            let target = on_label + smoothing / classes as f64;
            value -= target * log_probability / batch;
            gradient.push(T::from_f64((libm::exp(log_probability) - target) / batch));
        }
    }
    Loss { value, gradient }
}
