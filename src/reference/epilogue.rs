//! What happens to a convolution's sum before it is stored, and the rectifier.
#![forbid(unsafe_code)]

use super::Real;

/// Optional steps after a convolution's sum, in this order: scale and shift, residual, ReLU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a, T> {
    /// Scale and shift per output channel: `fma(sum, scale[c], shift[c])`.
    pub scale_shift: Option<(&'a [T], &'a [T])>,
    /// A tensor of the output's shape, added once.
    pub residual: Option<&'a [T]>,
    /// Whether [`relu`] comes last.
    pub relu: bool,
}

impl<T: Real> Epilogue<'_, T> {
    /// The value to store for output `element` of `channel`.
    pub(super) fn apply(&self, sum: T, element: usize, channel: usize) -> T {
        let mut value = sum;
        if let Some((scale, shift)) = self.scale_shift {
            value = value.mul_add(scale[channel], shift[channel]);
        }
        if let Some(residual) = self.residual {
            value = value + residual[element];
        }
        if self.relu { relu(value) } else { value }
    }
}

/// The rectifier: `+0` for negative values; everything else passes, NaN and `-0` too.
pub fn relu<T: Real>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

/// Gradient at the rectifier's input, from the gradient `dy` at its output and the output `y` itself: 0 where `y` is 0.
pub fn relu_backward<T: Real>(dy: &[T], y: &[T]) -> Vec<T> {
    assert_eq!(dy.len(), y.len());
    dy.iter().zip(y).map(|(&gradient, &output)| if output == T::ZERO { T::ZERO } else { gradient }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relu_keeps_nan_and_negative_zero() {
        assert!(relu(f32::NAN).is_nan());
        assert_eq!(relu(-0.0_f32).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(relu(-1.0_f32).to_bits(), 0);
        assert_eq!(relu(2.5_f32), 2.5);
    }

    #[test]
    fn the_epilogue_scales_then_adds_then_rectifies() {
        let epilogue =
            Epilogue { scale_shift: Some((&[2.0, 3.0], &[-1.0, 1.0])), residual: Some(&[0.5, -20.0, -30.0]), relu: true };
        assert_eq!(epilogue.apply(4.0_f64, 0, 0), 7.5);
        assert_eq!(epilogue.apply(4.0_f64, 2, 1), 0.0);
        assert_eq!(Epilogue { relu: false, ..epilogue }.apply(4.0_f64, 1, 1), -7.0);
    }
}
