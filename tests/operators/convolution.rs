//! Lean and dense convolutions of one image.
#![forbid(unsafe_code)]

use super::fill::Fill;
use crate::common::tolerance::{Exact, magnitudes, widened};
use leanresnet::Stencil;
use leanresnet::internals::pack::PackedWeights;
use leanresnet::internals::reference::{DenseWeights, Epilogue, LeanWeights, Shape, dense_forward, lean_forward};

/// What the epilogue adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Nothing,
    /// Rows beside the output.
    Rows,
    /// What the output held before.
    InPlace,
}

/// An epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    pub(crate) scale: bool,
    pub(crate) added: Added,
    pub(crate) relu: bool,
}

impl Finish {
    /// No epilogue.
    pub(crate) const NONE: Finish = Finish { scale: false, added: Added::Nothing, relu: false };

    /// Counts through all twelve epilogues, again and again.
    pub(crate) fn number(index: usize) -> Self {
        let added = [Added::Nothing, Added::Rows, Added::InPlace][index / 2 % 3];
        Finish { scale: index % 2 == 1, added, relu: index / 6 % 2 == 1 }
    }
}

/// The weights of one of the two operators.
#[derive(Clone, Debug)]
pub(crate) enum Weights {
    Lean(Stencil, LeanWeights<f32>),
    Dense(DenseWeights<f32>),
}

/// One convolution with its data.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    pub(crate) weights: Weights,
    pub(crate) input: Shape,
    pub(crate) x: Vec<f32>,
    /// Scale and shift per output channel.
    pub(crate) scale_shift: Option<(Vec<f32>, Vec<f32>)>,
    /// A tensor of the output's shape.
    pub(crate) residual: Option<Vec<f32>>,
    pub(crate) finish: Finish,
}

impl Convolution {
    /// A lean convolution of an image (height, width, channels).
    pub(crate) fn lean(stencil: Stencil, (h, w, c): (usize, usize, usize), finish: Finish, fill: Fill, seed: u64) -> Self {
        let taps = stencil.taps();
        let terms = taps.len() + c;
        let weights = LeanWeights {
            taps: taps.to_vec(),
            spatial: fill.weights(seed, taps.len() * c, terms),
            pointwise: fill.weights(seed + 1, c * c, terms),
            bias: fill.addends(seed + 2, c),
        };
        Self::with(Weights::Lean(stencil, weights), Shape::new(1, h, w, c), finish, fill, seed + 3)
    }

    /// A dense convolution, kernel and stride given, from `inputs` to `outputs` channels of an image (height, width).
    pub(crate) fn dense(
        (kernel, stride): (usize, usize),
        (h, w): (usize, usize),
        (inputs, outputs): (usize, usize),
        finish: Finish,
        fill: Fill,
        seed: u64,
    ) -> Self {
        let length = inputs * kernel * kernel;
        let (weight, bias) = (fill.weights(seed, outputs * length, length), fill.addends(seed + 2, outputs));
        let weights = DenseWeights { kernel, stride, inputs, outputs, weight, bias };
        Self::with(Weights::Dense(weights), Shape::new(1, h, w, inputs), finish, fill, seed + 3)
    }

    fn with(weights: Weights, input: Shape, finish: Finish, fill: Fill, seed: u64) -> Self {
        let mut problem = Convolution { weights, input, x: Vec::new(), scale_shift: None, residual: None, finish };
        let output = problem.output();
        problem.x = fill.inputs(seed, input.elements(), problem.terms());
        if finish.scale {
            problem.scale_shift = Some((fill.scales(seed + 1, output.c), fill.addends(seed + 2, output.c)));
        }
        if finish.added != Added::Nothing {
            problem.residual = Some(fill.addends(seed + 3, output.elements()));
        }
        problem
    }

    /// Shape of the output.
    pub(crate) fn output(&self) -> Shape {
        match &self.weights {
            Weights::Lean(..) => self.input,
            Weights::Dense(weights) => weights.output_shape(self.input),
        }
    }

    /// Products in one output.
    pub(crate) fn terms(&self) -> usize {
        match &self.weights {
            Weights::Lean(stencil, _) => stencil.taps().len() + self.input.c,
            Weights::Dense(weights) => weights.kernel * weights.kernel * weights.inputs,
        }
    }

    /// Kernel side and stride; a lean convolution counts as 3 and 1.
    pub(crate) fn geometry(&self) -> (usize, usize) {
        match &self.weights {
            Weights::Lean(..) => (3, 1),
            Weights::Dense(weights) => (weights.kernel, weights.stride),
        }
    }

    /// Extents of the output and everything else that identifies the problem.
    pub(crate) fn describe(&self) -> String {
        let Shape { h, w, c, .. } = self.input;
        format!("{:?} of {h}x{w}x{c} to {} channels, {:?}", self.geometry(), self.output().c, self.finish)
    }

    /// The weights as kernels read them.
    pub(crate) fn packed(&self) -> PackedWeights {
        let packed = match &self.weights {
            Weights::Lean(stencil, weights) => {
                let spatial = square(*stencil, &weights.spatial);
                PackedWeights::lean(*stencil, self.input.c, &spatial, &weights.pointwise, &weights.bias)
            }
            Weights::Dense(weights) => {
                PackedWeights::dense(weights.inputs, weights.outputs, weights.kernel, &weights.weight, &weights.bias)
            }
        };
        let packed = packed.expect("sizes fit");
        match &self.scale_shift {
            Some((scale, shift)) => packed.with_scale(scale, shift).expect("sizes fit"),
            None => packed,
        }
    }

    /// What the oracle says in single precision: the very bits that kernels with fused multiply-add owe.
    pub(crate) fn expected(&self) -> Vec<f32> {
        let scale_shift = self.scale_shift.as_ref().map(|(scale, shift)| (&scale[..], &shift[..]));
        let epilogue = Epilogue { scale_shift, residual: self.residual.as_deref(), relu: self.finish.relu };
        match &self.weights {
            Weights::Lean(_, weights) => lean_forward(&self.x, self.input, weights, &epilogue),
            Weights::Dense(weights) => dense_forward(&self.x, self.input, weights, &epilogue),
        }
    }

    /// What the oracle says in double precision.
    pub(crate) fn exact(&self) -> Vec<f64> {
        self.in_double(widened, f64::from, self.finish.relu)
    }

    /// The same on absolute values: the sums of the terms' magnitudes.
    fn sizes(&self) -> Vec<f64> {
        self.in_double(magnitudes, |value| f64::from(value).abs(), false)
    }

    fn in_double(&self, all: impl Fn(&[f32]) -> Vec<f64>, one: impl Fn(f32) -> f64, relu: bool) -> Vec<f64> {
        let (x, residual) = (all(&self.x), self.residual.as_deref().map(&all));
        let scale_shift = self.scale_shift.as_ref().map(|(scale, shift)| (all(scale), all(shift)));
        let scale_shift = scale_shift.as_ref().map(|(scale, shift)| (&scale[..], &shift[..]));
        let epilogue = Epilogue { scale_shift, residual: residual.as_deref(), relu };
        match &self.weights {
            Weights::Lean(_, weights) => lean_forward(&x, self.input, &weights.map(one), &epilogue),
            Weights::Dense(weights) => dense_forward(&x, self.input, &weights.map(one), &epilogue),
        }
    }

    /// Calls `judge` with what rule T1 needs. Without fused multiply-add each product is rounded too.
    pub(crate) fn bounded<R>(&self, judge: impl FnOnce(&Exact) -> R) -> R {
        let (values, magnitudes, terms) = (self.exact(), self.sizes(), self.terms() + 1);
        // The chain's additions, one product's own rounding, scale (two roundings) and residual.
        judge(&Exact { values: &values, magnitudes: &magnitudes, terms, roundings: terms + 5 })
    }
}

/// Stencil weights [taps][channels] in PyTorch's layout, [channels][side][side].
pub(crate) fn square(stencil: Stencil, spatial: &[f32]) -> Vec<f32> {
    let taps = stencil.taps();
    let (channels, side) = (spatial.len() / taps.len(), stencil.side());
    let radius = side / 2;
    let mut weight = vec![0.0; channels * side * side];
    for (tap, &(dy, dx)) in taps.iter().enumerate() {
        let at = (dy as isize + radius as isize) as usize * side + (dx as isize + radius as isize) as usize;
        for channel in 0..channels {
            weight[channel * side * side + at] = spatial[tap * channels + channel];
        }
    }
    weight
}
