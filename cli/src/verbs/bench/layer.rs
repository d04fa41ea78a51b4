//! `leanresnet bench layer`: a single layer that adds to its output in place and applies a ReLU, as in a residual block.
#![forbid(unsafe_code)]

use leanresnet::conv::{ConvDesc, ConvPlan, PackedWeights, Residual, TensorView, TensorViewMut};
use leanresnet::{Isa, Pool, Stencil};

use super::cell::{Cell, Subject, settings};
use super::options::{LayerOptions, Operator, Variant};
use crate::context::Context;
use crate::failure::Failure;
use crate::stopwatch::Work;

/// Side of the dense convolution that lean ones are compared with.
const DENSE_SIDE: usize = 3;

/// Values of a cache line.
const LINE: usize = 16;

/// What a layer computes, and how.
#[derive(Clone, Copy)]
enum Layer {
    /// y = relu(y + stencil(x) + A x) in one pass, or with the stencil in a pass before.
    Lean(Stencil, Variant),
    /// y = relu(y + A stencil(x)).
    Separable(Stencil),
    /// y = relu(y + 3x3 convolution of x).
    Dense,
}

/// All combinations.
pub fn cells(context: &Context<'_>, options: &LayerOptions) -> Result<Vec<Cell>, Failure> {
    let mut cells = Vec::new();
    for &shape in &options.shape {
        for layer in layers(options) {
            for setting in settings(context, &options.measure, &[1])? {
                let (op, stencil, variant) = layer.words();
                let subject = Subject {
                    shape: Some(shape),
                    op: Some(op.to_owned()),
                    stencil: stencil.map(Stencil::name),
                    variant: variant.map(str::to_owned),
                    ..setting.subject("layer")
                };
                cells.push(layer.cell(subject, shape, (&setting.pool, setting.isa))?);
            }
        }
    }
    Ok(cells)
}

/// Every operator with every stencil and variant that it has.
fn layers(options: &LayerOptions) -> Vec<Layer> {
    let of = |op: &Operator| -> Vec<Layer> {
        let stencils = options.stencil.iter();
        match op {
            Operator::Dense => vec![Layer::Dense],
            Operator::Separable => stencils.map(|&stencil| Layer::Separable(stencil)).collect(),
            Operator::Lean => {
                let variants = |&stencil| options.variant.iter().map(move |&variant| Layer::Lean(stencil, variant));
                stencils.flat_map(variants).collect()
            }
        }
    };
    options.op.iter().flat_map(of).collect()
}

impl Layer {
    /// Operator, stencil and variant in the words of the answer.
    fn words(self) -> (&'static str, Option<Stencil>, Option<&'static str>) {
        match self {
            Layer::Lean(stencil, Variant::Fused) => ("lean", Some(stencil), Some("fused")),
            Layer::Lean(stencil, Variant::Unfused) => ("lean", Some(stencil), Some("unfused")),
            Layer::Separable(stencil) => ("separable", Some(stencil), None),
            Layer::Dense => ("dense", None, None),
        }
    }

    /// Multiply-adds of one output.
    fn macs(self, channels: usize) -> usize {
        match self {
            Layer::Lean(stencil, _) | Layer::Separable(stencil) => channels + stencil.taps().len(),
            Layer::Dense => channels * DENSE_SIDE * DENSE_SIDE,
        }
    }

    fn cell(self, subject: Subject, [height, width, channels]: [usize; 3], (pool, isa): (&Pool, Isa)) -> Result<Cell, Failure> {
        let shape = [subject.batch, height, width, channels];
        let flops = 2 * (shape.iter().product::<usize>() * self.macs(channels)) as u64;
        let values = shape.iter().product();
        let mut input = Tensor::zeros(values);
        input.values_mut().iter_mut().enumerate().for_each(|(index, value)| *value = (index % 17) as f32 / 8.0 - 1.0);
        let mut middle = Tensor::zeros(if let Layer::Separable(_) = self { values } else { 0 });
        let mut output = Tensor::zeros(values);
        let mut first = match self {
            Layer::Lean(_, Variant::Fused) | Layer::Dense => None,
            Layer::Lean(stencil, Variant::Unfused) => Some(Pass::stencil(channels, stencil, true, (pool, isa))?),
            Layer::Separable(stencil) => Some(Pass::stencil(channels, stencil, false, (pool, isa))?),
        };
        let mut last = match self {
            Layer::Lean(stencil, Variant::Fused) => Pass::lean(channels, stencil, (pool, isa))?,
            Layer::Lean(_, Variant::Unfused) | Layer::Separable(_) => Pass::dense(channels, 1, (pool, isa))?,
            Layer::Dense => Pass::dense(channels, DENSE_SIDE, (pool, isa))?,
        };
        let kernel = Some(last.plan.kernel_name().to_owned());
        let run = move || match (self, &mut first) {
            (Layer::Separable(_), Some(first)) => {
                first.run(input.values(), shape, middle.values_mut())?;
                last.run(middle.values(), shape, output.values_mut())
            }
            (_, Some(first)) => {
                first.run(input.values(), shape, output.values_mut())?;
                last.run(input.values(), shape, output.values_mut())
            }
            (_, None) => last.run(input.values(), shape, output.values_mut()),
        };
        Ok(Cell { subject, kernel, isa, work: Work { images: shape[0], flops, run: Box::new(run) }, layers: None })
    }
}

/// Values from the start of a cache line on, as they lie in sessions: a vector of 64 bytes from elsewhere takes two lines.
struct Tensor {
    memory: Vec<f32>,
    first: usize,
    values: usize,
}

impl Tensor {
    fn zeros(values: usize) -> Self {
        let memory = vec![0.0; values + LINE];
        let first = (LINE - memory.as_ptr() as usize / size_of::<f32>() % LINE) % LINE;
        Tensor { memory, first, values }
    }

    fn values(&self) -> &[f32] {
        &self.memory[self.first..][..self.values]
    }

    fn values_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.first..][..self.values]
    }
}

/// One pass over the input, with its weights.
struct Pass {
    plan: ConvPlan,
    weights: PackedWeights,
    residual: Residual<'static>,
}

impl Pass {
    fn lean(channels: usize, stencil: Stencil, machine: (&Pool, Isa)) -> Result<Self, Failure> {
        let matrix = vec![1.0 / channels as f32; channels * channels];
        let weights = PackedWeights::lean(stencil, channels, &taps(stencil, channels), &matrix, &[])?;
        Self::new(ConvDesc::lean(channels, stencil).with_relu(true), weights, true, machine)
    }

    fn stencil(channels: usize, stencil: Stencil, adds: bool, machine: (&Pool, Isa)) -> Result<Self, Failure> {
        let weights = PackedWeights::depthwise(stencil, channels, &taps(stencil, channels), &[])?;
        Self::new(ConvDesc::depthwise(channels, stencil), weights, adds, machine)
    }

    fn dense(channels: usize, side: usize, machine: (&Pool, Isa)) -> Result<Self, Failure> {
        let values = channels * channels * side * side;
        let weights = PackedWeights::dense(channels, channels, side, &vec![1.0 / channels as f32; values], &[])?;
        Self::new(ConvDesc::dense(channels, channels, side).with_relu(true), weights, true, machine)
    }

    /// `adds`: to what the output holds.
    fn new(desc: ConvDesc, weights: PackedWeights, adds: bool, (pool, isa): (&Pool, Isa)) -> Result<Self, Failure> {
        let plan = ConvPlan::new(&desc.with_residual(adds).with_isa(isa), pool)?;
        Ok(Pass { plan, weights, residual: if adds { Residual::Output } else { Residual::None } })
    }

    fn run(&mut self, x: &[f32], shape: [usize; 4], y: &mut [f32]) -> Result<(), Failure> {
        let (x, y) = (TensorView::new(x, shape)?, TensorViewMut::new(y, shape)?);
        Ok(self.plan.run_with_residual(&self.weights, x, self.residual, y)?)
    }
}

/// Equal taps for all channels.
fn taps(stencil: Stencil, channels: usize) -> Vec<f32> {
    let one: Vec<f32> = stencil.mask().iter().map(|&tap| if tap { 0.1 } else { 0.0 }).collect();
    one.repeat(channels)
}
