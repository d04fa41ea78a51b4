//! Lean and dense convolutions of one image.
#![forbid(unsafe_code)]

use super::fill::Fill;
use crate::common::tolerance::{Exact, magnitudes, widened};
use leanresnet::Stencil;
use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::kernel::conv::ConvKernel;
use leanresnet::internals::pack::PackedWeights;
use leanresnet::internals::reference::{DenseWeights, Epilogue, LeanWeights, Shape, dense_forward, lean_forward_strided};

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
    /// Input pixels from an output pixel to the next.
    pub(crate) stride: usize,
    pub(crate) input: Shape,
    pub(crate) x: Vec<f32>,
    /// Scale and shift per output channel.
    pub(crate) scale_shift: Option<(Vec<f32>, Vec<f32>)>,
    /// A tensor of the output's shape.
    pub(crate) residual: Option<Vec<f32>>,
    pub(crate) finish: Finish,
    /// False for a depth-wise convolution, whose weights are packed without a matrix.
    pub(crate) has_matrix: bool,
}

impl Convolution {
    /// A lean convolution of an image (height, width, channels).
    pub(crate) fn lean(stencil: Stencil, image: (usize, usize, usize), finish: Finish, fill: Fill, seed: u64) -> Self {
        Self::grouped(stencil, (1, 1), image, finish, fill, seed)
    }

    /// A lean convolution whose taps read groups of channels, at a stride.
    pub(crate) fn grouped(
        stencil: Stencil,
        (group_size, stride): (usize, usize),
        (h, w, c): (usize, usize, usize),
        finish: Finish,
        fill: Fill,
        seed: u64,
    ) -> Self {
        let taps = stencil.taps();
        let terms = taps.len() * group_size + c;
        let weights = LeanWeights {
            taps: taps.to_vec(),
            group_size,
            spatial: fill.weights(seed, taps.len() * group_size * c, terms),
            pointwise: fill.weights(seed + 1, c * c, terms),
            bias: fill.addends(seed + 2, c),
        };
        Self::with(Weights::Lean(stencil, weights), stride, Shape::new(1, h, w, c), finish, fill, seed + 3)
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
        Self::with(Weights::Dense(weights), stride, Shape::new(1, h, w, inputs), finish, fill, seed + 3)
    }

    fn with(weights: Weights, stride: usize, input: Shape, finish: Finish, fill: Fill, seed: u64) -> Self {
        let (x, scale_shift, residual) = (Vec::new(), None, None);
        let mut problem = Convolution { weights, stride, input, x, scale_shift, residual, finish, has_matrix: true };
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

    /// The same depth-wise convolution without a matrix; to the oracle, with one of zeros.
    pub(crate) fn without_matrix(mut self) -> Self {
        if let Weights::Lean(_, weights) = &mut self.weights {
            weights.pointwise.fill(0.0);
            self.has_matrix = false;
        }
        self
    }

    /// Shape of the output.
    pub(crate) fn output(&self) -> Shape {
        match &self.weights {
            Weights::Lean(..) => {
                let Shape { h, w, c, .. } = self.input;
                Shape::new(1, (h - 1) / self.stride + 1, (w - 1) / self.stride + 1, c)
            }
            Weights::Dense(weights) => weights.output_shape(self.input),
        }
    }

    /// Products in one output.
    pub(crate) fn terms(&self) -> usize {
        match &self.weights {
            Weights::Lean(_, weights) => weights.taps.len() * weights.group_size + self.input.c,
            Weights::Dense(weights) => weights.kernel * weights.kernel * weights.inputs,
        }
    }

    /// The kernel for it.
    pub(crate) fn kernel(&self, kernels: &Kernels) -> ConvKernel {
        match &self.weights {
            Weights::Lean(stencil, weights) if weights.group_size > 1 => kernels.grouped(*stencil),
            Weights::Lean(stencil, _) => kernels.f32.fused(*stencil),
            Weights::Dense(_) => kernels.f32.dense,
        }
    }

    /// Side of a dense kernel; 1 for the matrix of a lean convolution.
    pub(crate) fn side(&self) -> usize {
        if let Weights::Dense(weights) = &self.weights { weights.kernel } else { 1 }
    }

    /// Extents of the output and everything else that identifies the problem.
    pub(crate) fn describe(&self) -> String {
        let Shape { h, w, c, .. } = self.input;
        let kind = match &self.weights {
            Weights::Lean(stencil, weights) => format!("{stencil} in groups of {}", weights.group_size),
            Weights::Dense(weights) => format!("dense {}", weights.kernel),
        };
        let matrix = if self.has_matrix { "" } else { " without a matrix" };
        format!("{kind}{matrix}, stride {}, of {h}x{w}x{c} to {} channels, {:?}", self.stride, self.output().c, self.finish)
    }

    /// The weights as kernels read them.
    pub(crate) fn packed(&self) -> PackedWeights {
        let packed = match &self.weights {
            Weights::Lean(stencil, weights) => {
                let (group, spatial) = (weights.group_size, square(*stencil, weights.group_size, &weights.spatial));
                if self.has_matrix {
                    PackedWeights::lean_grouped(*stencil, self.input.c, group, &spatial, &weights.pointwise, &weights.bias)
                } else {
                    PackedWeights::depthwise_grouped(*stencil, self.input.c, group, &spatial, &weights.bias)
                }
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
            Weights::Lean(_, weights) => lean_forward_strided(&self.x, self.input, weights, self.stride, &epilogue),
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
            Weights::Lean(_, weights) => lean_forward_strided(&x, self.input, &weights.map(one), self.stride, &epilogue),
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

/// Stencil weights [taps][group][channels] in PyTorch's layout, [channels][group][side][side].
pub(crate) fn square(stencil: Stencil, group: usize, spatial: &[f32]) -> Vec<f32> {
    let taps = stencil.taps();
    let (channels, side) = (spatial.len() / taps.len() / group, stencil.side());
    let radius = side / 2;
    let mut weight = vec![0.0; channels * group * side * side];
    for (tap, &(dy, dx)) in taps.iter().enumerate() {
        let at = (dy as isize + radius as isize) as usize * side + (dx as isize + radius as isize) as usize;
        for (member, channel) in (0..group).flat_map(|member| (0..channels).map(move |channel| (member, channel))) {
            weight[(channel * group + member) * side * side + at] = spatial[(tap * group + member) * channels + channel];
        }
    }
    weight
}
