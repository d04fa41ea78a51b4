//! Whether bf16, or three products of it, is faster than f32 here: a lean convolution in each, measured.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;

use crate::dispatch::Kernels;
use crate::error::Result;
use crate::isa::Isa;
use crate::net::precision::Precision;

/// How many times faster than f32 another precision has to be, for its rounding to be worth it.
const LEAST_SPEEDUP: f64 = 1.1;

/// The speeds of a lean convolution of 16 x 16 pixels and 64 channels in each precision, on one thread: what [`Precision::Auto`] and
/// [`Precision::AutoNearF32`] decide by.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Calibration {
    /// GFLOP/s in f32; a multiply-add is two.
    pub f32_gflops: f64,
    /// GFLOP/s in bf16.
    pub bf16_gflops: f64,
    /// GFLOP/s in three products of bf16, where a product counts as one; `None` without kernels for them.
    pub bf16x3_gflops: Option<f64>,
}

impl Calibration {
    /// The calibration of an instruction set, with the f32 kernels of its [`Isa::base`]: the best of eight rounds of 0.3 ms in each
    /// precision in turn. The first call measures; its result is that of the whole process.
    ///
    /// `None` where there is nothing to choose: on instruction sets without kernels of bf16, and without the feature `bf16`.
    ///
    /// # Errors
    /// [`Error::Isa`](crate::Error::Isa) if the instruction set cannot run here.
    pub fn of(isa: Isa) -> Result<Option<Calibration>> {
        static MEASURED: [OnceLock<Option<Calibration>>; Isa::ALL.len()] = [const { OnceLock::new() }; Isa::ALL.len()];
        let kernels = Kernels::of(isa)?;
        let index = Isa::ALL.iter().position(|other| *other == kernels.isa).unwrap_or(0);
        Ok(*MEASURED[index].get_or_init(|| measure(kernels)))
    }

    /// The precision that [`Precision::Auto`] takes: bf16 if it is at least 1.1 times faster.
    pub fn precision(&self) -> Precision {
        if self.bf16_gflops >= LEAST_SPEEDUP * self.f32_gflops { Precision::Bf16 } else { Precision::F32 }
    }

    /// The precision that [`Precision::AutoNearF32`] takes: [`Precision::Bf16x3`] if it is at least 1.1 times faster.
    pub fn near_f32(&self) -> Precision {
        let is_faster = self.bf16x3_gflops.is_some_and(|gflops| gflops >= LEAST_SPEEDUP * self.f32_gflops);
        if is_faster { Precision::Bf16x3 } else { Precision::F32 }
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.1} GFLOP/s in bf16, ", self.bf16_gflops)?;
        if let Some(gflops) = self.bf16x3_gflops {
            write!(formatter, "{gflops:.1} in bf16x3, ")?;
        }
        write!(formatter, "{:.1} in f32", self.f32_gflops)
    }
}

#[cfg(feature = "bf16")]
use measurement::measure;

#[cfg(not(feature = "bf16"))]
fn measure(_: &Kernels) -> Option<Calibration> {
    None
}

#[cfg(feature = "bf16")]
mod measurement {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use half::bf16;

    use super::Calibration;
    use crate::conv::pack::PackedWeights;
    use crate::dispatch::Kernels;
    use crate::exec::activation::Activation;
    use crate::exec::segment::Convolution;
    use crate::exec::tensor::Extent;
    use crate::ffi;
    use crate::kernel::rows::Residual;
    use crate::kernel::target::Target;
    use crate::memory::{Aligned, filled};
    use crate::stencil::Stencil;

    /// The image: with its output and the weights it stays in the second level of cache, as in a stage of a network.
    const CHANNELS: usize = 64;
    const SIDE: usize = 16;
    /// What `cross5` becomes in a session, which adds the centre tap to the matrix.
    const STENCIL: Stencil = Stencil::Cross4;

    const ROUNDS: usize = 8;
    const ROUND_TIME: Duration = Duration::from_micros(300);

    pub(super) fn measure(kernels: &Kernels) -> Option<Calibration> {
        if !ffi::KERNELS.iter().any(|row| row.isa == kernels.isa && row.dtype == "bf16") {
            return None;
        }
        let (mut single, mut half) = (Subject::<f32>::new(kernels)?, Subject::<bf16>::new(kernels)?);
        let mut three_products = Kernels::of_three_products(kernels.isa).ok().flatten().and_then(Subject::<f32>::new);
        let mut seconds = [f64::INFINITY; 3];
        for _ in 0..ROUNDS {
            let rounds = [single.round(), half.round(), three_products.as_mut().map_or(f64::INFINITY, Subject::round)];
            seconds.iter_mut().zip(rounds).for_each(|(best, round)| *best = best.min(round));
        }
        let flops = (2 * SIDE * SIDE * CHANNELS * single.weights.products()) as f64;
        let [f32_gflops, bf16_gflops, bf16x3_gflops] = seconds.map(|seconds| flops / seconds / 1e9);
        Some(Calibration { f32_gflops, bf16_gflops, bf16x3_gflops: three_products.map(|_| bf16x3_gflops) })
    }

    struct Subject<T: Activation> {
        convolution: Convolution<T>,
        weights: PackedWeights<T>,
        x: Aligned<T>,
        y: Aligned<T>,
    }

    impl<T: Activation> Subject<T> {
        fn new(kernels: &Kernels) -> Option<Self> {
            let kernel = T::lean(kernels, STENCIL, 1)?;
            let extent = Extent::new(SIDE, SIDE, CHANNELS);
            let mut weights = PackedWeights::zeros(Some(STENCIL), 1, CHANNELS, CHANNELS);
            weights.matrix.fill(0.01);
            weights.stencil.fill(0.1);
            let image = |value| filled(extent.elements(), T::nearest(value));
            Some(Subject {
                convolution: Convolution { kernel, input: extent, output: extent, stride: 1, relu: true },
                weights: T::packed(&kernel, weights),
                x: image(0.5),
                y: image(0.0),
            })
        }

        /// Seconds of one convolution, as the mean of a round.
        fn round(&mut self) -> f64 {
            let Subject { convolution, weights, x, y } = self;
            let start = Instant::now();
            let mut runs = 0;
            loop {
                let output = Target::new(y, convolution.output_layout());
                convolution.run(weights, (x, convolution.input_layout()), output, Residual::None, 0..SIDE);
                black_box(&mut *y);
                runs += 1;
                let elapsed = start.elapsed();
                if elapsed >= ROUND_TIME {
                    return elapsed.as_secs_f64() / f64::from(runs);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_has_to_be_a_tenth_faster() {
        let precision = |f32_gflops, bf16_gflops| Calibration { f32_gflops, bf16_gflops, bf16x3_gflops: None }.precision();
        assert_eq!(precision(100.0, 180.0), Precision::Bf16);
        assert_eq!(precision(100.0, 110.1), Precision::Bf16);
        assert_eq!(precision(100.0, 109.9), Precision::F32);
        assert_eq!(precision(180.0, 100.0), Precision::F32);
        assert_eq!(precision(100.0, f64::NAN), Precision::F32);
        let near_f32 = |bf16x3_gflops| Calibration { f32_gflops: 100.0, bf16_gflops: 400.0, bf16x3_gflops }.near_f32();
        assert_eq!([near_f32(Some(200.0)), near_f32(Some(110.1))], [Precision::Bf16x3; 2]);
        assert_eq!([near_f32(Some(109.9)), near_f32(Some(f64::NAN)), near_f32(None)], [Precision::F32; 3]);
    }

    #[test]
    fn tiers_with_kernels_of_bf16_are_measured_once() {
        for isa in Isa::available() {
            let calibration = Calibration::of(isa).unwrap();
            let is_compiled = crate::ffi::KERNELS.iter().any(|row| row.isa == isa && row.dtype == "bf16");
            assert_eq!(calibration.is_some(), is_compiled && cfg!(feature = "bf16"), "{isa}");
            assert_eq!(calibration, Calibration::of(isa).unwrap(), "{isa}");
            let is_speed = |gflops: f64| gflops.is_finite() && gflops > 0.0;
            assert!(calibration.is_none_or(|rates| is_speed(rates.f32_gflops) && is_speed(rates.bf16_gflops)), "{isa}");
            let three_products = crate::ffi::KERNELS.iter().any(|row| row.isa == isa && row.dtype == "bf16x3");
            let gflops = calibration.and_then(|rates| rates.bf16x3_gflops);
            assert_eq!(gflops.map(is_speed), three_products.then_some(true), "{isa}");
        }
    }
}
