//! The backward pass of one image: gradients of activations, in place. Those of weights are in `weight_gradient`.
#![forbid(unsafe_code)]

use super::graph::{Id, Input, Op, Output};
use super::kernel_weights::Trained;
use super::memory::Scratch;
use super::norm::Values;
use super::step::{Pass, Step, normalised_input};
use super::timing::Part;
use super::visit::Visit;
use super::weight_gradient::OutputGradient;
use super::weights::TrainedConvolution;
use crate::exec::tensor::{Activations, Extent};
use crate::kernel::rows::Residual;

/// The chunk whose partial gradients to add to, and whether this is its first image.
pub(super) type Chunk = (usize, bool);

impl<T: Trained> Step<'_, T> {
    /// Runs the adjoint of one operator on one image.
    pub(super) fn backward(&self, op: usize, chunk: Chunk, visit: Visit) {
        self.begin(visit.worker, op);
        let op = &self.graph.ops[op];
        // A convolution before a norm runs in the phase after, when what it reads is there.
        if let Some((raw, _)) = normalised_input(op)
            && !matches!(op, Op::Convolve { output: Output::Raw { .. }, .. })
        {
            self.recompute(raw, visit);
        }
        match *op {
            Op::Convolve { conv, transposed, input, output } => {
                self.convolve_backward(conv, transposed, input, output, chunk, visit);
                return;
            }
            Op::Activate { raw, norm, to, pool } => self.activate_backward(raw, norm, to, pool, visit),
            Op::AddNorm { raw, norm, to, scale, relu, .. } => {
                if relu {
                    self.mask_by_output(to, visit);
                }
                self.scaled_gradient(to, scale, visit, |gradient| self.norm_sums((raw, norm), Some(gradient), false, visit));
            }
            Op::Head { from, conv } => self.head_backward(from, conv, chunk, visit),
        }
        self.lap(visit.worker, Part::Sums);
    }

    /// Computes a tensor before a norm again, if it is gone, and first what it is made of.
    fn recompute(&self, raw: Id, visit: Visit) {
        if !self.slots.recomputes(raw) {
            return;
        }
        let Some(op) = self.graph.producer(raw) else { return };
        if let Some((before, _)) = normalised_input(&self.graph.ops[op]) {
            self.recompute(before, visit);
        }
        let under_way = self.begin(visit.worker, op);
        self.forward(op, Pass::Again, visit.without_upcoming());
        self.begin(visit.worker, under_way);
    }

    /// The buffer with the gradient of a tensor that goes from block to block.
    pub(super) fn gradient_of(&self, tensor: Id) -> &Activations<T> {
        &self.memory.gradients[self.graph.tensors[tensor].stage]
    }

    /// Sets the gradient of a ReLU's output `to` to 0 where the output is.
    fn mask_by_output(&self, to: Id, visit: Visit) {
        let output = self.memory.tensors[to].read(visit.image);
        let mut gradient = self.gradient_of(to).write(visit.image);
        let mut scratch = self.memory.scratch(visit.worker, Scratch::OutputGradient);
        let masked = &mut scratch[..gradient.len()];
        self.elementwise().relu_gradient(&output, &gradient, None, masked);
        gradient.copy_from_slice(masked);
    }

    /// Calls `use_gradient` with the gradient of `to`, times `scale`.
    fn scaled_gradient(&self, to: Id, scale: f32, visit: Visit, use_gradient: impl FnOnce(&[T])) {
        let gradient = self.gradient_of(to).read(visit.image);
        if scale == 1.0 {
            return use_gradient(&gradient);
        }
        let mut scratch = self.memory.scratch(visit.worker, Scratch::OutputGradient);
        let scaled = &mut scratch[..gradient.len()];
        self.elementwise().scale(&gradient, scaled, scale);
        use_gradient(scaled);
    }

    /// Through the output of norm (and ReLU): keeps the masked gradient, and sums it for the norm. Without `gradient`, it is already where
    /// the masked one is kept.
    fn norm_sums(&self, (raw, norm): (Id, Id), gradient: Option<&[T]>, relu: bool, visit: Visit) {
        let norm = &self.graph.norms[norm];
        let mut kept = self.memory.raw_gradient.write(visit.image..visit.image + 1);
        let mut sums = self.memory.sums.write(visit.image..visit.image + 1);
        let (sum, products) = sums[..2 * norm.channels].split_at_mut(norm.channels);
        let (scale, shift, mean) = (norm.read(Values::Scale), norm.read(Values::Shift), norm.read(Values::Mean));
        let x = self.memory.tensors[raw].read(visit.image);
        let kept = &mut kept[..x.len()];
        self.elementwise().gradient_statistics(&x, gradient, kept, (&scale, &shift, &mean), relu, (sum, products));
    }

    fn activate_backward(&self, raw: Id, norm: Id, to: Id, pool: bool, visit: Visit) {
        let gradient = self.gradient_of(to).read(visit.image);
        if !pool {
            return self.norm_sums((raw, norm), Some(&gradient), true, visit);
        }
        let (wide, narrow) = (self.memory.tensors[raw].extent, self.memory.tensors[to].extent);
        let mut scratch = self.memory.scratch(visit.worker, Scratch::InputGradient);
        let spread = &mut scratch[..wide.elements()];
        self.unpool(&gradient, narrow, spread, wide);
        self.norm_sums((raw, norm), Some(spread), true, visit);
    }

    /// Adjoint of the 2x2 average pool of a whole image; an odd last row or column gets 0.
    fn unpool(&self, gradient: &[T], narrow: Extent, to: &mut [T], wide: Extent) {
        if wide.height % 2 + wide.width % 2 > 0 {
            to.fill(T::default());
        }
        for (row, gradient) in gradient.chunks_exact(narrow.row()).enumerate() {
            let rows = &mut to[2 * row * wide.row()..(2 * row + 2) * wide.row()];
            self.elementwise().unpool(gradient, rows, wide.row(), wide.channels, 0.25);
        }
    }

    fn convolve_backward(&self, conv: Id, transposed: bool, input: Input, output: Output, chunk: Chunk, visit: Visit) {
        let weights = &self.graph.convolutions[conv];
        match output {
            Output::Sum { to, scale, relu, .. } => {
                if relu {
                    self.mask_by_output(to, visit);
                }
                let extent = self.memory.tensors[to].extent;
                self.scaled_gradient(to, scale, visit, |gradient| {
                    self.lap(visit.worker, Part::Gradient);
                    let between = self.between_gradient(weights, (gradient, extent), visit);
                    self.lap(visit.worker, Part::Data);
                    let gradient = OutputGradient { values: gradient, extent, between: between.as_deref() };
                    self.weight_gradients(conv, transposed, input, gradient, chunk, visit);
                    self.data_gradient(weights, transposed, input, gradient, false, visit.after_weights());
                });
            }
            Output::Raw { raw, norm } => {
                let tensor = &self.memory.tensors[raw];
                let image = visit.image..visit.image + 1;
                // The masked gradient is read here for the last time, and its place takes the result, which keeps fewer bytes in cache.
                // If the input comes from a norm too, that place is for the masked gradient of that norm.
                let is_apart = matches!(input, Input::Activated { .. });
                let mut memory = if is_apart {
                    self.memory.scratch(visit.worker, Scratch::OutputGradient)
                } else {
                    self.memory.raw_gradient.write(image.clone())
                };
                let gradient = &mut memory[..tensor.extent.elements()];
                {
                    let norm = &self.graph.norms[norm];
                    let (p, q, r) =
                        (norm.read(Values::GradientFactor), norm.read(Values::InputFactor), norm.read(Values::Summand));
                    let kept = is_apart.then(|| self.memory.raw_gradient.read(image));
                    let kept = kept.as_ref().map(|kept| &kept[..gradient.len()]);
                    self.elementwise().norm_gradient(&tensor.read(visit.image), kept, gradient, (&p, &q, &r));
                }
                self.lap(visit.worker, Part::Gradient);
                let between = self.between_gradient(weights, (gradient, tensor.extent), visit);
                self.lap(visit.worker, Part::Data);
                let gradient = OutputGradient { values: gradient, extent: tensor.extent, between: between.as_deref() };
                self.weight_gradients(conv, transposed, input, gradient, chunk, visit);
                // Inside a stage the buffer holds the gradient that came past the block; a connection's input has only this one.
                let past_block =
                    matches!(input, Input::Tensor(id) if self.graph.tensors[id].stage == self.graph.tensors[raw].stage);
                self.data_gradient(weights, transposed, input, gradient, past_block, visit.after_weights());
            }
        }
    }

    fn data_gradient(
        &self,
        conv: &TrainedConvolution<T>,
        transposed: bool,
        input: Input,
        OutputGradient { values: gradient, extent, between }: OutputGradient<'_, T>,
        past_block: bool,
        visit: Visit,
    ) {
        let propagate = |y: &mut [T], to: Extent, residual: Residual<'_, T>| {
            if transposed {
                let weights = conv.unbiased.as_ref().unwrap_or(&conv.values);
                self.run_convolution(conv, weights.read(), (gradient, extent), (y, to), residual, false, visit);
            } else if let (Some(separated), Some(between)) = (&conv.separated, between) {
                separated.stencil_transposed(between, y, to, residual, visit.ahead());
            } else {
                self.transpose(conv, (gradient, extent), (y, to), residual, visit);
            }
        };
        match input {
            Input::Images => {}
            Input::Tensor(id) => {
                let to = self.memory.tensors[id].extent;
                let mut y = self.gradient_of(id).write(visit.image);
                propagate(&mut y, to, if past_block { Residual::Output } else { Residual::None });
                self.lap(visit.worker, Part::Data);
            }
            Input::Activated { raw, norm } => {
                let to = self.memory.tensors[raw].extent;
                let mut kept = self.memory.raw_gradient.write(visit.image..visit.image + 1);
                propagate(&mut kept[..to.elements()], to, Residual::None);
                drop(kept);
                self.lap(visit.worker, Part::Data);
                self.norm_sums((raw, norm), None, true, visit);
                self.lap(visit.worker, Part::Sums);
            }
            Input::Pooled(id) => {
                let wide = self.memory.tensors[id].extent;
                let narrow = Extent::new(wide.height / 2, wide.width / 2, wide.channels);
                let mut scratch = self.memory.scratch(visit.worker, Scratch::InputGradient);
                let y = &mut scratch[..narrow.elements()];
                propagate(y, narrow, Residual::None);
                self.unpool(y, narrow, &mut self.gradient_of(id).write(visit.image), wide);
                self.lap(visit.worker, Part::Data);
            }
        }
    }
}
