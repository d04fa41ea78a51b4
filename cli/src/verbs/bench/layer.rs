//! `leanresnet bench layer`: a single layer that adds to its output in place and applies a ReLU, as in a residual block.
#![forbid(unsafe_code)]

use leanresnet::conv::{ConvDesc, ConvPlan, PackedWeights, Residual, TensorView, TensorViewMut};
use leanresnet::{Isa, Pool, Precision, Stencil};

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
enum Kind {
    /// y = relu(y + stencil(x) + A x) in one pass, or with the stencil in a pass before.
    Lean(Spatial, Variant),
    /// y = relu(y + A stencil(x)).
    Separable(Spatial),
    /// y = relu(y + 3x3 convolution of x).
    Dense,
}

/// A stencil, and how many channels its taps read.
#[derive(Clone, Copy)]
struct Spatial {
    stencil: Stencil,
    group_size: usize,
}

/// A layer but for its size.
#[derive(Clone, Copy)]
struct Layer {
    kind: Kind,
    stride: usize,
}

/// All combinations.
pub fn cells(context: &Context<'_>, options: &LayerOptions) -> Result<Vec<Cell>, Failure> {
    let mut cells = Vec::new();
    for &shape in &options.shape {
        for layer in layers(options) {
            for setting in settings(context, &options.measure, &[1], &[Precision::F32])? {
                let (op, spatial, variant) = layer.words();
                let subject = Subject {
                    shape: Some(shape),
                    op: Some(op.to_owned()),
                    stencil: spatial.map(|spatial| spatial.stencil.name()),
                    variant: variant.map(str::to_owned),
                    group_size: spatial.map(|spatial| spatial.group_size),
                    stride: Some(layer.stride),
                    ..setting.subject("layer")
                };
                cells.push(layer.cell(subject, shape, (&setting.pool, setting.isa))?);
            }
        }
    }
    Ok(cells)
}

/// Every operator with every stencil, size of groups, variant and stride that it has.
fn layers(options: &LayerOptions) -> Vec<Layer> {
    let of_stencil = |&stencil| options.group_size.iter().map(move |&group_size| Spatial { stencil, group_size });
    let spatial: Vec<Spatial> = options.stencil.iter().flat_map(of_stencil).collect();
    let of = |op: &Operator| -> Vec<Kind> {
        match op {
            Operator::Dense => vec![Kind::Dense],
            Operator::Separable => spatial.iter().map(|&spatial| Kind::Separable(spatial)).collect(),
            Operator::Lean => {
                let variants = |&spatial| options.variant.iter().map(move |&variant| Kind::Lean(spatial, variant));
                spatial.iter().flat_map(variants).collect()
            }
        }
    };
    let kinds = options.op.iter().flat_map(of);
    kinds.flat_map(|kind| options.stride.iter().map(move |&stride| Layer { kind, stride })).collect()
}

impl Layer {
    /// Operator, stencil and variant in the words of the answer.
    fn words(self) -> (&'static str, Option<Spatial>, Option<&'static str>) {
        match self.kind {
            Kind::Lean(spatial, Variant::Fused) => ("lean", Some(spatial), Some("fused")),
            Kind::Lean(spatial, Variant::Unfused) => ("lean", Some(spatial), Some("unfused")),
            Kind::Separable(spatial) => ("separable", Some(spatial), None),
            Kind::Dense => ("dense", None, None),
        }
    }

    /// Multiply-adds of one output.
    fn macs(self, channels: usize) -> usize {
        match self.kind {
            Kind::Lean(spatial, _) | Kind::Separable(spatial) => channels + spatial.group_size * spatial.stencil.taps().len(),
            Kind::Dense => channels * DENSE_SIDE * DENSE_SIDE,
        }
    }

    fn cell(self, subject: Subject, [height, width, channels]: [usize; 3], machine: (&Pool, Isa)) -> Result<Cell, Failure> {
        let shape = [subject.batch, height, width, channels];
        let mut passes = self.passes(channels, machine)?;
        let output_shape = passes[0].plan.output_shape(shape)?;
        let (values, outputs) = (shape.iter().product(), output_shape.iter().product());
        let flops = 2 * (outputs * self.macs(channels)) as u64;
        let mut input = Tensor::zeros(values);
        input.values_mut().iter_mut().enumerate().for_each(|(index, value)| *value = (index % 17) as f32 / 8.0 - 1.0);
        let mut middle = Tensor::zeros(if let Kind::Separable(_) = self.kind { outputs } else { 0 });
        let mut output = Tensor::zeros(outputs);
        let kernel = passes.last().map(|pass| pass.plan.kernel_name().to_owned());
        let run = move || match (self.kind, &mut passes[..]) {
            (Kind::Separable(_), [first, last]) => {
                first.run((input.values(), shape), (middle.values_mut(), output_shape))?;
                last.run((middle.values(), output_shape), (output.values_mut(), output_shape))
            }
            (_, passes) => {
                passes.iter_mut().try_for_each(|pass| pass.run((input.values(), shape), (output.values_mut(), output_shape)))
            }
        };
        Ok(Cell { subject, kernel, isa: machine.1, work: Work { images: shape[0], flops, run: Box::new(run) }, layers: None })
    }

    /// The passes over the input, or over what the first one made of it.
    fn passes(self, channels: usize, machine: (&Pool, Isa)) -> Result<Vec<Pass>, Failure> {
        let stride = self.stride;
        Ok(match self.kind {
            Kind::Lean(spatial, Variant::Fused) => vec![Pass::lean(channels, spatial, stride, machine)?],
            Kind::Lean(spatial, Variant::Unfused) => {
                let stencil = Pass::stencil(channels, spatial, stride, true, machine)?;
                vec![stencil, Pass::dense(channels, 1, stride, machine)?]
            }
            Kind::Separable(spatial) => {
                let stencil = Pass::stencil(channels, spatial, stride, false, machine)?;
                vec![stencil, Pass::dense(channels, 1, 1, machine)?]
            }
            Kind::Dense => vec![Pass::dense(channels, DENSE_SIDE, stride, machine)?],
        })
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
    fn lean(channels: usize, spatial: Spatial, stride: usize, machine: (&Pool, Isa)) -> Result<Self, Failure> {
        let Spatial { stencil, group_size } = spatial;
        let matrix = vec![1.0 / channels as f32; channels * channels];
        let weights = PackedWeights::lean_grouped(stencil, channels, group_size, &spatial.taps(channels), &matrix, &[])?;
        let desc = ConvDesc::lean(channels, stencil).with_relu(true).with_group_size(group_size);
        Self::new(desc.with_stride(stride), weights, true, machine)
    }

    /// `adds`: to what the output holds.
    fn stencil(channels: usize, spatial: Spatial, stride: usize, adds: bool, machine: (&Pool, Isa)) -> Result<Self, Failure> {
        let Spatial { stencil, group_size } = spatial;
        let weights = PackedWeights::depthwise_grouped(stencil, channels, group_size, &spatial.taps(channels), &[])?;
        let desc = ConvDesc::depthwise(channels, stencil).with_group_size(group_size);
        Self::new(desc.with_stride(stride), weights, adds, machine)
    }

    fn dense(channels: usize, side: usize, stride: usize, machine: (&Pool, Isa)) -> Result<Self, Failure> {
        let values = channels * channels * side * side;
        let weights = PackedWeights::dense(channels, channels, side, &vec![1.0 / channels as f32; values], &[])?;
        let desc = ConvDesc::dense(channels, channels, side).with_relu(true).with_stride(stride);
        Self::new(desc, weights, true, machine)
    }

    /// `adds`: to what the output holds.
    fn new(desc: ConvDesc, weights: PackedWeights, adds: bool, (pool, isa): (&Pool, Isa)) -> Result<Self, Failure> {
        let plan = ConvPlan::new(&desc.with_residual(adds).with_isa(isa), pool)?;
        Ok(Pass { plan, weights, residual: if adds { Residual::Output } else { Residual::None } })
    }

    fn run(&mut self, (x, x_shape): (&[f32], [usize; 4]), (y, y_shape): (&mut [f32], [usize; 4])) -> Result<(), Failure> {
        let (x, y) = (TensorView::new(x, x_shape)?, TensorViewMut::new(y, y_shape)?);
        Ok(self.plan.run_with_residual(&self.weights, x, self.residual, y)?)
    }
}

impl Spatial {
    /// Equal taps for all channels.
    fn taps(self, channels: usize) -> Vec<f32> {
        let one: Vec<f32> = self.stencil.mask().iter().map(|&tap| if tap { 0.1 } else { 0.0 }).collect();
        one.repeat(channels * self.group_size)
    }
}
