//! Comparison with the oracle: bit by bit, or within the a-priori bound of floating-point summation.
//!
//! Failures name the kernel, the shape, the first differing element and both values.
#![forbid(unsafe_code)]

/// Unit roundoff of `f32`.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// Half the distance between subnormal `f32` values: the most that one product loses by underflow.
const UNDERFLOW: f64 = f32::MIN_POSITIVE as f64 * UNIT;

/// `gamma_m = m u / (1 - m u)`: the relative error that `m` roundings in a row can build up (Higham 2002, lemma 3.1).
pub(crate) fn gamma(roundings: usize) -> f64 {
    let product = roundings as f64 * UNIT;
    assert!(product < 0.5, "{roundings} roundings in a row have no useful bound");
    product / (1.0 - product)
}

/// The bound of rule T1 on `|computed - exact|` for a sum of `terms` products whose absolute values add up to `magnitude`,
/// where no term passes more than `roundings` roundings.
pub(crate) fn bound(magnitude: f64, terms: usize, roundings: usize) -> f64 {
    gamma(roundings) * magnitude + terms as f64 * UNDERFLOW
}

/// What an operator computed, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    /// The kernel's or operator's name, with whatever else identifies the run.
    pub(crate) kernel: &'a str,
    /// Extents of the compared tensor, outermost first.
    pub(crate) shape: &'a [usize],
}

impl Case<'_> {
    fn check_lengths(&self, actual: usize, expected: usize) -> Result<(), String> {
        let elements: usize = self.shape.iter().product();
        if actual == elements && expected == elements {
            return Ok(());
        }
        Err(format!("{}: shape {:?}: {actual} values computed, {expected} expected", self.kernel, self.shape))
    }

    fn difference(&self, element: usize, actual: f32, expected: f64, detail: &str) -> String {
        let Case { kernel, shape } = self;
        format!("{kernel}: shape {shape:?}: at {:?}: got {actual:?}, expected {expected:?}{detail}", coordinates(element, shape))
    }
}

/// The index along each extent of `shape` of a row-major element.
fn coordinates(element: usize, shape: &[usize]) -> Vec<usize> {
    let mut indices = vec![0; shape.len()];
    let mut rest = element;
    for (index, &extent) in indices.iter_mut().zip(shape).rev() {
        *index = rest % extent;
        rest /= extent;
    }
    indices
}

/// Whether two values have the same bits, where all NaN count as one value.
pub(crate) fn same_bits(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// An error at the first element whose bits differ, where all NaN count as one value.
pub(crate) fn compare_bits(case: Case, actual: &[f32], expected: &[f32]) -> Result<(), String> {
    case.check_lengths(actual.len(), expected.len())?;
    match actual.iter().zip(expected).position(|(&a, &b)| !same_bits(a, b)) {
        None => Ok(()),
        Some(element) => {
            let (a, b) = (actual[element], expected[element]);
            let bits = format!(" (bits {:08x} and {:08x})", a.to_bits(), b.to_bits());
            Err(case.difference(element, a, f64::from(b), &bits))
        }
    }
}

/// What rule T1 compares with: the same sums in `f64`, and how many terms and roundings `f32` spends on each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exact<'a> {
    /// The exact results, from the oracle's `f64` instance on the same inputs.
    pub(crate) values: &'a [f64],
    /// The sums of the terms' absolute values: the oracle on the absolute values of inputs, weights and bias.
    pub(crate) magnitudes: &'a [f64],
    /// Terms of one sum.
    pub(crate) terms: usize,
    /// The most roundings that a term passes; `terms + 1` for one chain.
    pub(crate) roundings: usize,
}

/// An error at the first element outside [`bound`], else the largest fraction of its bound that an error took.
pub(crate) fn compare_within_bound(case: Case, actual: &[f32], exact: &Exact) -> Result<f64, String> {
    case.check_lengths(actual.len(), exact.values.len())?;
    case.check_lengths(actual.len(), exact.magnitudes.len())?;
    let mut worst = 0.0_f64;
    for (element, &value) in actual.iter().enumerate() {
        let allowed = bound(exact.magnitudes[element], exact.terms, exact.roundings);
        let error = (f64::from(value) - exact.values[element]).abs();
        if error > allowed || error.is_nan() {
            let detail = format!(", error {error:e}, bound {allowed:e}");
            return Err(case.difference(element, value, exact.values[element], &detail));
        }
        if error > 0.0 {
            worst = worst.max(error / allowed);
        }
    }
    Ok(worst)
}

/// The same values in `f64`.
pub(crate) fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The absolute values in `f64`.
pub(crate) fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value).abs()).collect()
}
