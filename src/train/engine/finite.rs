//! Where training went wrong: the first layer with a value that is not finite.
#![forbid(unsafe_code)]

use super::graph::{Graph, Id, Input, Op, Output};
use super::kernel_weights::Trained;
use super::memory::Memory;
use super::norm::{TrainedNorm, Values};
use super::weights::TrainedConvolution;
use crate::kernel::element::Element;

/// The first layer in forward order with a NaN or an infinity in its weights or in its output for one of the last batch's `images`;
/// else the last layer with one in its gradient, which is the first that the backward pass came to. Outputs that share memory (see
/// `slots`) are gone but for the earliest, which the backward pass computed last: it cannot be mistaken for an earlier layer's.
pub(super) fn first_non_finite<T: Trained>(graph: &Graph<T>, memory: Option<&Memory<T>>, images: usize) -> Option<String> {
    let find = Find { graph, memory, images };
    let forward = graph.ops.iter().find_map(|op| find.in_forward(op));
    forward.or_else(|| graph.ops.iter().rev().find_map(|op| find.in_gradient(op))).map(str::to_string)
}

struct Find<'a, T: Trained> {
    graph: &'a Graph<T>,
    memory: Option<&'a Memory<T>>,
    images: usize,
}

impl<'a, T: Trained> Find<'a, T> {
    /// The layer of an operator whose weights or output are not finite.
    fn in_forward(&self, op: &Op) -> Option<&'a str> {
        match *op {
            Op::Convolve { conv, input, output, .. } => {
                let (Output::Raw { raw: result, .. } | Output::Sum { to: result, .. }) = output;
                let read = if let Input::Activated { norm, .. } = input { self.norm(norm) } else { None };
                read.or_else(|| self.convolution(conv, self.is_finite_tensor(result)))
            }
            Op::Activate { norm, to, .. } | Op::AddNorm { norm, to, .. } => {
                let name = &self.graph.norms[norm].name;
                self.norm(norm).or_else(|| (!self.is_finite_tensor(to)).then_some(name.as_str()))
            }
            Op::Head { conv, .. } => {
                let logits = self.memory.is_none_or(|memory| is_finite::<f32>(&memory.logits.read(0..self.images)));
                self.convolution(conv, logits)
            }
        }
    }

    /// The layer of an operator whose gradient is not finite.
    fn in_gradient(&self, op: &Op) -> Option<&'a str> {
        let norm_id = match *op {
            Op::Convolve { input: Input::Activated { norm, .. }, .. } | Op::Activate { norm, .. } | Op::AddNorm { norm, .. } => {
                Some(norm)
            }
            _ => None,
        };
        let convolution = match *op {
            Op::Convolve { conv, .. } | Op::Head { conv, .. } => Some(&self.graph.convolutions[conv]),
            _ => None,
        };
        let convolution = convolution.filter(|conv| !is_finite::<f32>(&conv.gradient.read(0..1))).map(|conv| conv.name.as_str());
        convolution.or_else(|| {
            let norm = &self.graph.norms[norm_id?];
            (!all_finite(norm, &[Values::WeightGradient, Values::BiasGradient])).then_some(norm.name.as_str())
        })
    }

    fn convolution(&self, conv: Id, output_is_finite: bool) -> Option<&'a str> {
        let TrainedConvolution { name, values, .. } = &self.graph.convolutions[conv];
        let finite = [&values.matrix, &values.stencil, &values.bias].into_iter().all(|values| is_finite::<f32>(values));
        (!(finite && output_is_finite)).then_some(name.as_str())
    }

    fn norm(&self, norm: Id) -> Option<&'a str> {
        let norm = &self.graph.norms[norm];
        let statistics = [Values::Mean, Values::Scale, Values::Shift, Values::RunningMean, Values::RunningVariance];
        let finite =
            is_finite::<f32>(&norm.weight.values) && is_finite::<f32>(&norm.bias.values) && all_finite(norm, &statistics);
        (!finite).then_some(norm.name.as_str())
    }

    fn is_finite_tensor(&self, tensor: Id) -> bool {
        self.memory.is_none_or(|memory| (0..self.images).all(|image| is_finite::<T>(&memory.tensors[tensor].read(image))))
    }
}

fn is_finite<T: Element>(values: &[T]) -> bool {
    values.iter().all(|value| value.widened().is_finite())
}

fn all_finite(norm: &TrainedNorm, kinds: &[Values]) -> bool {
    kinds.iter().all(|kind| is_finite::<f32>(&norm.read(*kind)))
}
