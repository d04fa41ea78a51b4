//! The forward pass of one image.
#![forbid(unsafe_code)]

use super::graph::{Id, Input, Op, Output};
use super::kernel_weights::Trained;
use super::memory::Scratch;
use super::norm::Values;
use super::step::{Pass, Step};
use super::timing::Part;
use super::visit::Visit;
use super::weights::{Kind, TrainedConvolution};
use crate::conv::pack::PackedWeights;
use crate::exec::segment::{Convolution, average_pool};
use crate::exec::tensor::{Extent, copy_rows_inside};
use crate::kernel::conv::ConvCall;
use crate::kernel::element::Element;
use crate::kernel::rows::{Residual, Source};
use crate::kernel::target::Target;
use crate::kernel::upcoming::Ahead;

/// A whole image into the inside of one with a border of zeros.
pub(super) fn pad<T: Element>(from: &[T], to: &mut [T], extent: Extent) {
    to.fill(T::default());
    let inside = extent.border * extent.row()..(extent.border + extent.height) * extent.row();
    copy_rows_inside(from, &mut to[inside], extent, extent.border);
}

impl<T: Trained> Step<'_, T> {
    /// Runs one operator on one image.
    pub(super) fn forward(&self, op: usize, pass: Pass, visit: Visit) {
        self.begin(visit.worker, op);
        match self.graph.ops[op] {
            Op::Convolve { conv, transposed, input, output } => {
                self.convolve(conv, transposed, input, output, visit);
                if let (Pass::First, Output::Raw { raw, norm }) = (pass, output) {
                    self.image_statistics(norm, raw, visit);
                    self.lap(visit.worker, Part::Statistics);
                }
                return;
            }
            Op::Activate { raw, norm, to, pool } => self.activate(raw, norm, to, pool, visit),
            Op::AddNorm { raw, norm, x, to, relu, .. } => self.add_norm((raw, norm), x, to, relu, visit),
            Op::Head { from, conv } => self.head(from, conv, visit),
        }
        self.lap(visit.worker, Part::Forward);
    }

    /// Calls `use_input` with the image that a convolution reads, without a border.
    pub(super) fn with_input<R>(&self, input: Input, visit: Visit, use_input: impl FnOnce(&[T], Extent) -> R) -> R {
        let memory = self.memory;
        match input {
            Input::Images => {
                let extent = memory.input.with_border(0);
                let values = extent.pixels() * self.channels;
                let pixels = &self.images[visit.image * values..(visit.image + 1) * values];
                let mut scratch = memory.scratch(visit.worker, Scratch::Input);
                use_input(T::image(pixels, (self.channels, extent.channels), &mut scratch), extent)
            }
            Input::Tensor(id) => use_input(&memory.tensors[id].read(visit.image), memory.tensors[id].extent),
            Input::Activated { raw, norm } => {
                let tensor = &memory.tensors[raw];
                let mut scratch = memory.scratch(visit.worker, Scratch::Input);
                let activated = &mut scratch[..tensor.extent.elements()];
                let x = tensor.read(visit.image);
                self.with_map(norm, |scale, shift| {
                    self.elementwise().normalize(&x, None, activated, (scale, shift), true);
                });
                use_input(activated, tensor.extent)
            }
            Input::Pooled(id) => {
                let tensor = &memory.tensors[id];
                let mut scratch = memory.scratch(visit.worker, Scratch::Input);
                let extent = Extent::new(tensor.extent.height / 2, tensor.extent.width / 2, tensor.extent.channels);
                let pooled = &mut scratch[..extent.elements()];
                average_pool(self.elementwise(), &tensor.read(visit.image), tensor.extent, pooled);
                use_input(pooled, extent)
            }
        }
    }

    /// y = (residual +) convolution of x on whole images; `x` without a border. Separable convolutions have weights of their own.
    pub(super) fn run_convolution(
        &self,
        conv: &TrainedConvolution<T>,
        weights: &PackedWeights<T>,
        (x, from): (&[T], Extent),
        (y, to): (&mut [T], Extent),
        residual: Residual<'_, T>,
        relu: bool,
        visit: Visit,
    ) {
        if let Some(separated) = &conv.separated {
            let mut between = self.memory.scratch(visit.worker, Scratch::Between);
            let between = &mut between[..from.elements()];
            separated.stencil(x, between, from);
            return separated.matrix(between, y, to, residual, relu, visit.ahead());
        }
        let kernel = conv.kernel;
        let (border, stride) = ((conv.kind.side() - 1) / 2, conv.kind.stride());
        let input = from.with_border(border);
        let plan = Convolution { kernel, input, output: to, stride, relu };
        if border == 0 {
            plan.image(weights, x, y, residual, visit.ahead());
        } else {
            let mut padded = self.memory.scratch(visit.worker, Scratch::Padded);
            pad(x, &mut padded[..input.elements()], input);
            plan.image(weights, &padded[..input.elements()], y, residual, visit.ahead());
        }
    }

    fn convolve(&self, conv: Id, transposed: bool, input: Input, output: Output, visit: Visit) {
        let conv = &self.graph.convolutions[conv];
        self.with_input(input, visit, |x, from| {
            self.lap(visit.worker, Part::Input);
            self.convolve_input(conv, transposed, (x, from), output, visit);
            self.lap(visit.worker, Part::Forward);
        });
    }

    fn convolve_input(
        &self,
        conv: &TrainedConvolution<T>,
        transposed: bool,
        (x, from): (&[T], Extent),
        output: Output,
        visit: Visit,
    ) {
        match output {
            Output::Raw { raw, .. } => {
                let tensor = &self.memory.tensors[raw];
                let mut y = tensor.write(visit.image);
                if transposed {
                    self.transpose(conv, (x, from), (&mut y, tensor.extent), Residual::None, visit);
                } else {
                    self.run_convolution(
                        conv,
                        conv.values.read(),
                        (x, from),
                        (&mut y, tensor.extent),
                        Residual::None,
                        false,
                        visit,
                    );
                }
            }
            Output::Sum { norm, x: residual, to, scale, relu } => {
                let tensor = &self.memory.tensors[to];
                let residual = self.memory.tensors[residual].read(visit.image);
                let mut y = tensor.write(visit.image);
                let addend = Residual::Rows(Source { data: &residual, layout: tensor.extent.layout() });
                if scale == 1.0 && !transposed {
                    self.run_convolution(conv, conv.values.read(), (x, from), (&mut y, tensor.extent), addend, relu, visit);
                    return;
                }
                // A scale or a transpose: the sum is a pass of its own over the image in cache.
                let mut scratch = self.memory.scratch(visit.worker, Scratch::OutputGradient);
                let result = &mut scratch[..tensor.extent.elements()];
                if transposed {
                    self.transpose(conv, (x, from), (result, tensor.extent), Residual::None, visit);
                } else {
                    self.run_convolution(
                        conv,
                        conv.values.read(),
                        (x, from),
                        (result, tensor.extent),
                        Residual::None,
                        false,
                        visit,
                    );
                }
                let branch = &self.graph.norms[norm];
                let map = (&branch.read(Values::BranchScale)[..], &branch.read(Values::BranchShift)[..]);
                self.elementwise().normalize(result, Some(&residual), &mut y, map, relu);
            }
        }
    }

    /// The transpose of a lean or dense convolution on a whole image: y (+)= L^T x.
    pub(super) fn transpose(
        &self,
        conv: &TrainedConvolution<T>,
        (x, from): (&[T], Extent),
        (y, to): (&mut [T], Extent),
        residual: Residual<'_, T>,
        visit: Visit,
    ) {
        let kernel = conv.kernel;
        if let Kind::Lean(_) = conv.kind {
            let plan = Convolution { kernel, input: from, output: to, stride: 1, relu: false };
            plan.image(conv.transposed.read(), x, y, residual, visit.ahead());
            return;
        }
        let Kind::Dense { side, stride } = conv.kind else { return };
        // Enough zeros around for every phase: a row of the input reads at most `side` rows of the gradient.
        let border = if side == 1 { 0 } else { side };
        let extent = from.with_border(border);
        let mut scratch = (border > 0).then(|| self.memory.scratch(visit.worker, Scratch::Padded));
        let padded = match &mut scratch {
            Some(scratch) => {
                pad(x, &mut scratch[..extent.elements()], extent);
                &scratch[..extent.elements()]
            }
            None => x,
        };
        for (index, phase) in conv.phases.iter().enumerate() {
            let rows = (to.height + stride - 1 - phase.row) / stride;
            let width = (to.width + stride - 1 - phase.column) / stride;
            if rows == 0 || width == 0 {
                continue;
            }
            let first_row = (border as isize + phase.first.0) as usize;
            let first_column = (border as isize + phase.first.1) as usize;
            let mut x_layout = extent.layout();
            x_layout.origin = first_row * extent.row() + first_column * extent.channels;
            x_layout.ring = extent.rows() - first_row;
            let mut y_layout = to.layout();
            y_layout.origin = phase.row * to.row() + phase.column * to.channels;
            y_layout.row_step = stride * to.row();
            y_layout.pixel_step = stride * to.channels;
            let (x, y) = (Source { data: padded, layout: x_layout }, Target::new(&mut *y, y_layout));
            let ahead = if index == 0 { visit.ahead() } else { Ahead::default() };
            kernel.run(&mut ConvCall { residual, ahead, ..ConvCall::new(phase.weights.read(), x, y, (rows, width)) });
        }
    }

    /// Sums of one image for a norm's statistics, relative to its first pixel.
    fn image_statistics(&self, norm: Id, raw: Id, visit: Visit) {
        let norm = &self.graph.norms[norm];
        if norm.active {
            let y = self.memory.tensors[raw].read(visit.image);
            let mut sums = self.memory.sums.write(visit.image..visit.image + 1);
            let (sum, squares) = sums[..2 * norm.channels].split_at_mut(norm.channels);
            let mut shift = self.memory.channels(visit.worker);
            let shift = &mut shift[..norm.channels];
            shift.iter_mut().zip(&y[..]).for_each(|(to, from)| *to = from.widened());
            self.elementwise().statistics(&y, shift, sum, squares);
        }
    }

    fn activate(&self, raw: Id, norm: Id, to: Id, pool: bool, visit: Visit) {
        let (raw, to) = (&self.memory.tensors[raw], &self.memory.tensors[to]);
        let x = raw.read(visit.image);
        let mut y = to.write(visit.image);
        self.with_map(norm, |scale, shift| {
            if pool {
                let mut scratch = self.memory.scratch(visit.worker, Scratch::Input);
                let activated = &mut scratch[..raw.extent.elements()];
                self.elementwise().normalize(&x, None, activated, (scale, shift), true);
                average_pool(self.elementwise(), activated, raw.extent, &mut y);
            } else {
                self.elementwise().normalize(&x, None, &mut y, (scale, shift), true);
            }
        });
    }

    fn add_norm(&self, (raw, norm): (Id, Id), x: Id, to: Id, relu: bool, visit: Visit) {
        let (raw, residual) = (self.memory.tensors[raw].read(visit.image), self.memory.tensors[x].read(visit.image));
        let mut y = self.memory.tensors[to].write(visit.image);
        let norm = &self.graph.norms[norm];
        let map = (&norm.read(Values::BranchScale)[..], &norm.read(Values::BranchShift)[..]);
        self.elementwise().normalize(&raw, Some(&residual), &mut y, map, relu);
    }
}
