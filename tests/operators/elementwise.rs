//! The operators that work value by value, or channel by channel over a run of pixels.
#![forbid(unsafe_code)]

use super::fill::Fill;
use crate::common::guard::{Edge, GuardedBuffer};
use leanresnet::internals::kernel::elementwise::{Elementwise, MomentumStep};

/// Their words in kernel names.
pub(crate) const WORDS: [&str; 12] = [
    "normalize",
    "statistics",
    "gradientstatistics",
    "normgradient",
    "relugradient",
    "accumulate",
    "pool",
    "unpool",
    "globalpool",
    "spread",
    "momentum",
    "peak",
];

/// Values that a row of a pool has beyond its pairs of pixels: an odd last pixel, and a gap.
const SPARE: usize = 3;

/// One operator with its data.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) word: &'static str,
    /// Pixels (pools: output pixels of a row).
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
    /// Whether a tensor is added.
    pub(crate) residual: bool,
    /// Whether a ReLU takes part; for the update: Nesterov's step.
    pub(crate) relu: bool,
    /// Every tensor that is read, in the order of the operator's arguments. Those that are updated come last.
    pub(crate) inputs: Vec<Vec<f32>>,
    /// Pools: the factor. Update: learning rate, momentum, weight decay, gradient factor.
    pub(crate) factors: [f32; 4],
}

/// What an operator computes: single-precision tensors, one after the other, and double-precision sums.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outputs<T> {
    pub(crate) values: Vec<T>,
    pub(crate) sums: Vec<f64>,
}

impl Problem {
    /// Variants 0 to 3 add a tensor or not, and take a ReLU or not.
    pub(crate) fn new(word: &'static str, pixels: usize, channels: usize, variant: usize, fill: Fill, seed: u64) -> Self {
        let n = pixels * channels;
        let exact = fill == Fill::Exact;
        let factors = if exact { [0.5, 0.25, 2.0, 4.0] } else { [0.1, 0.9, 5e-4, 0.7] };
        let sizes: &[usize] = match word {
            "normalize" => &[n, n, channels, channels],
            "statistics" => &[n, channels],
            "gradientstatistics" | "normgradient" => &[n, n, channels, channels, channels],
            "relugradient" | "momentum" => &[n, n, n],
            "accumulate" => &[n, n],
            "pool" => &[2 * Self::pool_row(pixels, channels) - SPARE * channels],
            "unpool" | "globalpool" => &[n],
            "spread" | "peak" => &[channels],
            _ => panic!("no operator `{word}`"),
        };
        let data = |(index, &size): (usize, &usize)| {
            let seed = seed + index as u64;
            match fill {
                // Products of two of them, with an addend and over a few hundred pixels, stay exact.
                Fill::Exact => crate::common::data::integers(seed, size, 64),
                _ => fill.inputs(seed, size, 1),
            }
        };
        let inputs = sizes.iter().enumerate().map(data).collect();
        let (residual, relu) = (variant % 2 == 1, variant / 2 % 2 == 1);
        Problem { word, pixels, channels, residual, relu, inputs, factors }
    }

    /// Values from one input row of a pool to the next.
    pub(crate) fn pool_row(pixels: usize, channels: usize) -> usize {
        (2 * pixels + SPARE) * channels
    }

    /// Additions in the longest chain.
    pub(crate) fn terms(&self) -> usize {
        match self.word {
            "statistics" | "gradientstatistics" | "globalpool" | "peak" => self.pixels + 3,
            _ => 5,
        }
    }

    fn step(&self) -> MomentumStep {
        let [learning_rate, momentum, weight_decay, gradient_factor] = self.factors;
        MomentumStep { learning_rate, momentum, weight_decay, gradient_factor, nesterov: self.relu }
    }

    /// Runs the operator with every tensor flush against `edge`.
    pub(crate) fn run(&self, kernels: &Elementwise, edge: Edge) -> Result<Outputs<f32>, String> {
        let mut inputs: Vec<GuardedBuffer> = self.inputs.iter().map(|values| GuardedBuffer::from_slice(values, edge)).collect();
        let n = self.pixels * self.channels;
        let mut outputs = Vec::new();
        let mut sums = Vec::new();
        let fresh = |len| GuardedBuffer::new(len, edge);
        match (self.word, &mut inputs[..]) {
            ("normalize", [x, residual, scale, shift]) => {
                outputs.push(fresh(n));
                let residual = self.residual.then_some(&**residual);
                kernels.normalize(x, residual, &mut outputs[0], (scale, shift), self.relu);
            }
            ("statistics", [x, shift]) => {
                sums.extend([fresh(2 * self.channels), fresh(2 * self.channels)]);
                let [sum, squares] = &mut sums[..] else { unreachable!("two sums") };
                kernels.statistics(x, shift, doubles(sum), doubles(squares));
            }
            ("gradientstatistics", [x, gradient, scale, shift, mean]) => {
                outputs.push(fresh(n));
                sums.extend([fresh(2 * self.channels), fresh(2 * self.channels)]);
                let [sum, products] = &mut sums[..] else { unreachable!("two sums") };
                let to = (doubles(sum), doubles(products));
                kernels.gradient_statistics(x, gradient, &mut outputs[0], (scale, shift, mean), self.relu, to);
            }
            ("normgradient", [x, gradient, p, q, r]) => {
                outputs.push(fresh(n));
                kernels.norm_gradient(x, gradient, &mut outputs[0], (p, q, r));
            }
            ("relugradient", [output, gradient, addend]) => {
                outputs.push(fresh(n));
                kernels.relu_gradient(output, gradient, self.residual.then_some(&**addend), &mut outputs[0]);
            }
            ("accumulate", [x, y]) => kernels.accumulate(x, y),
            ("pool", [x]) => {
                outputs.push(fresh(n));
                let row = Self::pool_row(self.pixels, self.channels);
                kernels.pool(x, row, &mut outputs[0], self.channels, self.factors[0]);
            }
            ("unpool", [gradient]) => {
                let row = Self::pool_row(self.pixels, self.channels);
                outputs.push(fresh(row + 2 * n));
                kernels.unpool(gradient, &mut outputs[0], row, self.channels, self.factors[0]);
            }
            ("globalpool", [x]) => {
                outputs.push(fresh(self.channels));
                kernels.global_pool(x, &mut outputs[0], self.factors[0]);
            }
            ("spread", [x]) => {
                outputs.push(fresh(n));
                kernels.spread(x, &mut outputs[0], self.factors[0]);
            }
            ("momentum", [gradient, weights, velocity]) => kernels.momentum(gradient, weights, velocity, &self.step()),
            ("peak", [y]) => kernels.peak((self.factors[0], self.factors[1]), self.pixels, y),
            (word, _) => return Err(format!("no operator `{word}`")),
        }
        inputs.iter().chain(&outputs).chain(&sums).try_for_each(GuardedBuffer::check)?;
        let updated = match self.word {
            "accumulate" | "peak" => 1,
            "momentum" => 2,
            _ => 0,
        };
        let (read, updated) = inputs.split_at(inputs.len() - updated);
        for (buffer, values) in read.iter().zip(&self.inputs) {
            let unchanged = buffer.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits());
            if !unchanged {
                return Err("an input was written".into());
            }
        }
        let values = updated.iter().chain(&outputs).flat_map(|buffer| buffer.iter().copied()).collect();
        let sums = sums.iter().flat_map(|buffer| bytemuck::cast_slice::<f32, f64>(buffer).iter().copied()).collect();
        Ok(Outputs { values, sums })
    }

    /// Which input and which output lies at one pixel's channel; for messages and special values.
    pub(crate) fn describe(&self) -> String {
        let Problem { word, pixels, channels, residual, relu, .. } = self;
        format!("{word} of {pixels}x{channels}, residual {residual}, relu {relu}")
    }
}

/// The buffer as half as many doubles; both ends of a buffer are aligned to a page.
fn doubles(buffer: &mut GuardedBuffer) -> &mut [f64] {
    bytemuck::cast_slice_mut(buffer)
}
