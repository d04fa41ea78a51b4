//! `leanresnet bench layer`: a single convolution that adds to its output in place and applies a ReLU, as in a residual block.
#![forbid(unsafe_code)]

use leanresnet::conv::{ConvDesc, ConvPlan, PackedWeights, Residual, TensorView, TensorViewMut};
use leanresnet::{Isa, Pool, Stencil};

use super::cell::{Cell, Subject, machines};
use super::options::LayerOptions;
use crate::context::Context;
use crate::failure::Failure;
use crate::stopwatch::Work;

/// Side of the dense convolution that lean ones are compared with.
const DENSE_SIDE: usize = 3;

/// A convolution with its weights.
struct Convolution {
    description: ConvDesc,
    weights: PackedWeights,
    /// Multiply-adds per pixel.
    macs: usize,
}

/// All combinations.
pub fn cells(context: &Context<'_>, options: &LayerOptions) -> Result<Vec<Cell>, Failure> {
    let batches = if options.measure.batch.is_empty() { &[1][..] } else { &options.measure.batch };
    let mut cells = Vec::new();
    for &shape in &options.shape {
        for (op, stencil) in operators(options) {
            for &batch in batches {
                for (pool, isa) in machines(context)? {
                    let subject = Subject {
                        what: "layer",
                        preset: None,
                        shape: Some(shape),
                        op: Some(op.clone()),
                        stencil: stencil.map(Stencil::name),
                        variant: stencil.map(|_| "fused".to_owned()),
                        batch: batch as usize,
                        threads: pool.threads(),
                        isa: isa.name(),
                        dtype: options.measure.dtype[0].clone(),
                    };
                    cells.push(cell(subject, shape, stencil, (&pool, isa))?);
                }
            }
        }
    }
    Ok(cells)
}

/// Every lean operator with its stencil, and the dense one.
fn operators(options: &LayerOptions) -> Vec<(String, Option<Stencil>)> {
    let with_stencils = |op: &String| -> Vec<(String, Option<Stencil>)> {
        match op.as_str() {
            "lean" => options.stencil.iter().map(|&stencil| (op.clone(), Some(stencil))).collect(),
            _ => vec![(op.clone(), None)],
        }
    };
    options.op.iter().flat_map(with_stencils).collect()
}

fn cell(
    subject: Subject,
    [height, width, channels]: [usize; 3],
    stencil: Option<Stencil>,
    (pool, isa): (&Pool, Isa),
) -> Result<Cell, Failure> {
    let Convolution { description, weights, macs } = convolution(channels, stencil)?;
    let mut plan = ConvPlan::new(&description.with_residual(true).with_relu(true).with_isa(isa), pool)?;
    let kernel = Some(plan.kernel_name().to_owned());
    let batch = subject.batch;
    let shape = [batch, height, width, channels];
    let input: Vec<f32> = (0..shape.iter().product()).map(|index: usize| (index % 17) as f32 / 8.0 - 1.0).collect();
    let mut output = vec![0.0; input.len()];
    let run = move || {
        let input = TensorView::new(&input, shape)?;
        plan.run_with_residual(&weights, input, Residual::Output, TensorViewMut::new(&mut output, shape)?)?;
        Ok(())
    };
    let flops = 2 * (batch * height * width * macs) as u64;
    Ok(Cell { subject, kernel, isa, work: Work { images: batch, flops, run: Box::new(run) } })
}

fn convolution(channels: usize, stencil: Option<Stencil>) -> Result<Convolution, Failure> {
    let scale = 1.0 / channels as f32;
    if let Some(stencil) = stencil {
        let taps: Vec<f32> = stencil.mask().iter().map(|&tap| if tap { 0.1 } else { 0.0 }).collect();
        let weights = PackedWeights::lean(stencil, channels, &taps.repeat(channels), &vec![scale; channels * channels], &[])?;
        let macs = channels * (channels + stencil.taps().len());
        return Ok(Convolution { description: ConvDesc::lean(channels, stencil), weights, macs });
    }
    let area = DENSE_SIDE * DENSE_SIDE;
    let weights = PackedWeights::dense(channels, channels, DENSE_SIDE, &vec![scale; channels * channels * area], &[])?;
    Ok(Convolution { description: ConvDesc::dense(channels, channels, DENSE_SIDE), weights, macs: channels * channels * area })
}
