//! The operators that work value by value, or channel by channel over a run of pixels.
#![forbid(unsafe_code)]

use super::fill::Fill;
use super::typed::{self, Typed, fresh, holding, of, of_mut};
use crate::common::guard::{Edge, GuardedBuffer};
use leanresnet::internals::kernel::elementwise::{Elementwise, MomentumStep};
use leanresnet::internals::pack::PANEL;
use std::any::Any;

/// Their words in kernel names.
pub(crate) const WORDS: [&str; 14] = [
    "normalize",
    "statistics",
    "gradientstatistics",
    "normgradient",
    "relugradient",
    "accumulate",
    "scale",
    "pool",
    "unpool",
    "globalpool",
    "spread",
    "momentum",
    "peak",
    "loadpeak",
];

/// Turns of the loop whose speed is the peak with loads.
pub(crate) const TURNS: usize = 2;

/// Values that a row of a pool has beyond its pairs of pixels: an odd last pixel, and a gap.
const SPARE: usize = 3;

/// One operator with its data.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) word: &'static str,
    /// Pixels (pools: output pixels of a row).
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
    /// Whether a tensor is added; for the gradients of a norm: whether the output takes the gradient's place.
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
            "scale" | "unpool" | "globalpool" => &[n],
            "spread" | "peak" => &[channels],
            "loadpeak" => &[n, channels * PANEL, pixels * PANEL],
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
            "loadpeak" => TURNS * self.channels + 1,
            _ => 5,
        }
    }

    fn step(&self) -> MomentumStep {
        let [learning_rate, momentum, weight_decay, gradient_factor] = self.factors;
        MomentumStep { learning_rate, momentum, weight_decay, gradient_factor, nesterov: self.relu }
    }

    /// Inputs that are tensors of the kernel's type; the others are f32.
    fn tensors(&self) -> usize {
        match self.word {
            "relugradient" => 3,
            "normalize" | "gradientstatistics" | "normgradient" => 2,
            "statistics" | "scale" | "pool" | "unpool" | "globalpool" => 1,
            _ => 0,
        }
    }

    /// The same with inputs that a type can hold.
    pub(crate) fn rounded<T: Typed>(mut self) -> Self {
        let tensors = self.tensors();
        self.inputs[..tensors].iter_mut().for_each(|values| typed::rounded::<T>(values));
        self
    }

    /// Runs the operator with every tensor flush against `edge`.
    pub(crate) fn run<T: Typed>(&self, kernels: &Elementwise<T>, edge: Edge) -> Result<Outputs<f32>, String> {
        let of_type = |(at, values): (usize, &Vec<f32>)| {
            if at < self.tensors() { holding::<T>(values, edge) } else { GuardedBuffer::from_slice(values, edge) }
        };
        let mut inputs: Vec<GuardedBuffer> = self.inputs.iter().enumerate().map(of_type).collect();
        if let Some(kernels) = (kernels as &dyn Any).downcast_ref::<Elementwise>()
            && self.update(kernels, &mut inputs)?
        {
            return Ok(Outputs {
                values: inputs[self.read_only()..].iter().flat_map(|buffer| buffer.to_vec()).collect(),
                sums: Vec::new(),
            });
        }
        let n = self.pixels * self.channels;
        let row = Self::pool_row(self.pixels, self.channels);
        let (factor, length) = (self.factors[0], if self.word == "unpool" { row + 2 * n } else { n });
        let mut output = match self.word {
            "statistics" => fresh::<T>(0, edge),
            "globalpool" => fresh::<f32>(self.channels, edge),
            "gradientstatistics" | "normgradient" if self.residual => holding::<T>(&self.inputs[1], edge),
            _ => fresh::<T>(length, edge),
        };
        let mut sums = [fresh::<f32>(2 * self.channels, edge), fresh::<f32>(2 * self.channels, edge)];
        let has_sums = self.word.ends_with("statistics");
        // In place, the kernel gets no gradient, and the output holds it.
        let in_place = self.residual;
        let y = &mut output;
        {
            let [sum, products] = &mut sums;
            let sums = (doubles(sum), doubles(products));
            match (self.word, &inputs[..]) {
                ("normalize", [x, residual, scale, shift]) => {
                    let residual = self.residual.then_some(of::<T>(residual));
                    kernels.normalize(of(x), residual, of_mut(y), (scale, shift), self.relu);
                }
                ("statistics", [x, shift]) => kernels.statistics(of(x), shift, sums.0, sums.1),
                ("gradientstatistics", [x, gradient, scale, shift, mean]) => {
                    let gradient = (!in_place).then_some(of::<T>(gradient));
                    kernels.gradient_statistics(of(x), gradient, of_mut(y), (scale, shift, mean), self.relu, sums);
                }
                ("normgradient", [x, gradient, p, q, r]) => {
                    kernels.norm_gradient(of(x), (!in_place).then_some(of::<T>(gradient)), of_mut(y), (p, q, r));
                }
                ("relugradient", [output, gradient, addend]) => {
                    kernels.relu_gradient(of(output), of(gradient), self.residual.then_some(of::<T>(addend)), of_mut(y));
                }
                ("scale", [x]) => kernels.scale(of(x), of_mut(y), factor),
                ("pool", [x]) => kernels.pool(of(x), row, of_mut(y), self.channels, factor),
                ("unpool", [gradient]) => kernels.unpool(of(gradient), of_mut(y), row, self.channels, factor),
                ("globalpool", [x]) => kernels.global_pool(of(x), y, factor),
                ("spread", [x]) => kernels.spread(x, of_mut(y), factor),
                (word, _) => return Err(format!("no operator `{word}`")),
            }
        }
        inputs.iter().chain([&output]).chain(&sums).try_for_each(GuardedBuffer::check)?;
        for (at, (buffer, values)) in inputs.iter().zip(&self.inputs).enumerate() {
            let before = of_type((at, values));
            let is_same = buffer.iter().zip(before.iter()).all(|(a, b)| a.to_bits() == b.to_bits());
            if !is_same {
                return Err("an input was written".into());
            }
        }
        let values = if self.word == "globalpool" { output.to_vec() } else { typed::widened::<T>(&output) };
        let sums = sums.iter().filter(|_| has_sums).flat_map(|buffer| bytemuck::cast_slice::<f32, f64>(buffer).to_vec());
        Ok(Outputs { values, sums: sums.collect() })
    }

    /// Inputs that are not updated.
    fn read_only(&self) -> usize {
        match self.word {
            "peak" => 0,
            "loadpeak" => 2,
            _ => 1,
        }
    }

    /// Runs an operator that changes its last inputs; false if it is none.
    fn update(&self, kernels: &Elementwise, inputs: &mut [GuardedBuffer]) -> Result<bool, String> {
        match (self.word, &mut *inputs) {
            ("accumulate", [x, y]) => kernels.accumulate(x, y),
            ("momentum", [gradient, weights, velocity]) => kernels.momentum(gradient, weights, velocity, &self.step()),
            ("peak", [y]) => kernels.peak((self.factors[0], self.factors[1]), self.pixels, y),
            ("loadpeak", [x, weights, y]) => kernels.load_peak(x, weights, self.channels, TURNS, y),
            _ => return Ok(false),
        }
        inputs.iter().try_for_each(GuardedBuffer::check)?;
        for (buffer, values) in inputs[..self.read_only()].iter().zip(&self.inputs) {
            if !buffer.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()) {
                return Err("an input was written".into());
            }
        }
        Ok(true)
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
