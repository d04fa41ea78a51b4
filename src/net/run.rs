//! One run of a session: memory, and the plan's steps as phases of tasks.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::conv::pack::PackedWeights;
use crate::exec::activation::Activation;
use crate::exec::region::Program;
use crate::exec::segment::Convolution;
use crate::exec::shared::SharedBuffer;
use crate::exec::tensor::{Activations, Extent, copy_rows_inside};
use crate::kernel::rows::Residual;
use crate::net::images::Images;
use crate::net::op::{Op, TensorId};
use crate::net::plan::Plan;
use crate::net::split::{self, Cut, Part};
use crate::net::timing::{Lap, Timer};

/// Everything that a run writes.
pub(super) struct Memory<T> {
    workers: usize,
    activations: Vec<Activations<T>>,
    /// Per worker: rows between the convolutions of a block or between a pool and its convolution.
    scratch: SharedBuffer<T>,
    /// Per worker: the pooled pixels of a group before the head.
    pooled: SharedBuffer<f32>,
    pub(super) logits: SharedBuffer<f32>,
}

impl<T: Activation> Memory<T> {
    pub(super) fn new(plan: &Plan<T>, max_batch: usize, workers: usize) -> Self {
        let images = |between_stages| if between_stages { max_batch } else { workers };
        let activations =
            plan.tensors.iter().map(|tensor| Activations::new(images(tensor.between_stages), tensor.extent)).collect();
        let group = plan.group(plan.stages.len() - 1, max_batch, 1);
        let scratch = |op: &Op<T>| match op {
            Op::Block { block, .. } => block.ring_elements(),
            Op::PooledConvolve { pair, .. } => pair.scratch_elements(),
            _ => 0,
        };
        let pooled = |op: &Op<T>| match op {
            Op::Head { conv, .. } => group * conv.input.channels,
            Op::GlobalPool { to, .. } => plan.tensors[*to].extent.channels,
            _ => 0,
        };
        let most_pooled = plan.steps.iter().map(|step| pooled(&step.op)).max().unwrap_or(0);
        let most = plan.steps.iter().map(|step| scratch(&step.op)).max().unwrap_or(0);
        Memory {
            workers,
            activations,
            scratch: SharedBuffer::new(workers, most),
            pooled: SharedBuffer::new(workers, most_pooled),
            logits: SharedBuffer::new(max_batch, plan.classes),
        }
    }

    pub(super) fn ensure_workers(&mut self, plan: &Plan<T>, max_batch: usize, workers: usize) {
        if workers > self.workers {
            *self = Memory::new(plan, max_batch, workers);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let activations: usize = self.activations.iter().map(Activations::bytes).sum();
        activations + self.scratch.bytes() + self.pooled.bytes() + self.logits.bytes()
    }
}

/// One run of up to `max_batch` images, as phases of tasks.
///
/// With at least as many images as threads, a phase is a stage and a task a group of images that goes through it depth-first.
/// With fewer, a phase is one operator and a task some of its output rows of one image.
pub(super) struct Run<'a, T: Activation> {
    plan: &'a Plan<T>,
    memory: &'a Memory<T>,
    images: Images<'a>,
    count: usize,
    threads: usize,
    split_images: bool,
    timer: Option<&'a Timer<T>>,
}

impl<'a, T: Activation> Run<'a, T> {
    pub(super) fn new(
        plan: &'a Plan<T>,
        memory: &'a Memory<T>,
        images: Images<'a>,
        threads: usize,
        timer: Option<&'a Timer<T>>,
    ) -> Self {
        let count = images.shape()[0];
        Run { plan, memory, images, count, threads, split_images: count < threads, timer }
    }

    /// Images of a stage's groups.
    fn group(&self, stage: usize) -> usize {
        self.plan.group(stage, self.count, self.threads)
    }

    /// With split images: how a step is cut.
    fn cut(&self, step: usize, half: usize) -> Cut {
        Cut::new(self.plan, &self.plan.steps[step].op, half, self.threads.div_ceil(self.count.max(1)))
    }

    /// The image of a tensor that holds `image`: tensors within a stage have one per worker or, with split images, per image.
    fn slot(&self, tensor: TensorId, image: usize, temporary: usize) -> usize {
        if self.plan.tensors[tensor].between_stages { image } else { temporary }
    }

    /// Runs a part of a step on one image; of a block, one half. `lap`: gets the time.
    fn part(
        &self,
        (index, half): (usize, usize),
        (image, temporary): (usize, usize),
        part: Part,
        worker: usize,
        lap: &mut Lap<'_>,
    ) {
        let tensors = &self.memory.activations;
        let slot = |tensor| self.slot(tensor, image, temporary);
        let rows = part.rows.clone();
        match &self.plan.steps[index].op {
            Op::Load { to } => {
                let extent = tensors[*to].extent;
                let inner = rows.start + extent.border..rows.end + extent.border;
                let mut band = tensors[*to].write_rows(slot(*to), inner);
                let origin = (extent.border * extent.channels, extent.row(), extent.channels);
                self.images.copy_rows(image, rows, &mut band, origin, &self.plan.byte_map);
            }
            Op::Pad { from, to, at: [top, left] } => {
                let (from_extent, extent) = (tensors[*from].extent, tensors[*to].extent);
                let inside = rows.start + top..rows.end + top;
                let x = tensors[*from].read(slot(*from));
                let mut y = tensors[*to].write_rows(slot(*to), inside);
                let source = &x[rows.start * from_extent.row()..rows.end * from_extent.row()];
                copy_rows_inside(source, &mut y, extent, *left);
            }
            Op::Convolve { from, to, conv, weights, add_to_output, .. } => {
                let x = tensors[*from].read(slot(*from));
                let residual = if *add_to_output { Residual::Output } else { Residual::None };
                let mut output = tensors[*to].write_part(slot(*to), rows.clone(), part.panels);
                conv.run(weights, (&x, conv.input_layout()), output.target(rows.start), residual, rows);
            }
            Op::PooledConvolve { from, to, pair, weights } => {
                let x = tensors[*from].read(slot(*from));
                let mut output = tensors[*to].write_part(slot(*to), rows.clone(), part.panels);
                let mut scratch = self.memory.scratch.write(worker..worker + 1);
                pair.run(weights, &x, output.target(rows.start), rows, &mut scratch, |half| lap.end(index, half));
                return;
            }
            Op::Block { y, middle, block, weights, .. } => {
                let (from, to, conv) = if half == 0 { (*y, *middle, &block.first) } else { (*middle, *y, &block.second) };
                let x = tensors[from].read(slot(from));
                let residual = if half == 0 { Residual::None } else { Residual::Output };
                let mut output = tensors[to].write_part(slot(to), rows.clone(), part.panels);
                conv.run(&weights[half], (&x, conv.input_layout()), output.target(rows.start), residual, rows);
            }
            Op::Pool { from, to, pool } => {
                let (x, mut y) = (tensors[*from].read(slot(*from)), tensors[*to].write_rows(slot(*to), rows.clone()));
                pool.run((&x, tensors[*from].extent), (&mut y, tensors[*to].extent), rows);
            }
            Op::GlobalPool { from, to } => {
                let (x, mut y) = (tensors[*from].read(slot(*from)), tensors[*to].write(slot(*to)));
                let mut means = self.memory.pooled.write(worker..worker + 1);
                self.global_pool(&x, &mut means[..y.len()]);
                y.iter_mut().zip(means.iter()).for_each(|(y, mean)| *y = T::nearest(*mean));
            }
            Op::Flatten { from, to, channels } => {
                let (x, mut y) = (tensors[*from].read(slot(*from)), tensors[*to].write(slot(*to)));
                flatten(&x, tensors[*from].extent, &mut y[..channels * tensors[*from].extent.pixels()]);
            }
            Op::Add { from, to, relu } => {
                let (from_extent, extent) = (tensors[*from].extent, tensors[*to].extent);
                let x = tensors[*from].read(slot(*from));
                let mut y = tensors[*to].write_rows(slot(*to), rows.clone());
                add(&x[rows.start * from_extent.row()..rows.end * extent.row()], &mut y, *relu);
            }
            Op::Relu { y } => relu(&mut tensors[*y].write_rows(slot(*y), rows)),
            Op::Head { from, conv, weights } => {
                self.head(*from, (conv, weights), image..image + 1, part.panels, temporary, worker);
            }
            Op::Output { from } => {
                let (x, mut logits) = (tensors[*from].read(slot(*from)), self.memory.logits.write(image..image + 1));
                logits.iter_mut().zip(x.iter()).for_each(|(logit, x)| *logit = x.widened());
            }
        }
        lap.end(index, half);
    }

    /// Global average pool and linear layer of some images, whose weights are read once.
    fn head(
        &self,
        from: TensorId,
        (conv, weights): (&Convolution, &PackedWeights),
        images: Range<usize>,
        panels: Option<Range<usize>>,
        temporary: usize,
        worker: usize,
    ) {
        let tensor = &self.memory.activations[from];
        let mut pooled = self.memory.pooled.write(worker..worker + 1);
        let pooled = &mut pooled[..images.len() * conv.input.channels];
        for (pixel, image) in pooled.chunks_exact_mut(conv.input.channels).zip(images.clone()) {
            let x = tensor.read(self.slot(from, image, temporary));
            self.global_pool(&x, pixel);
        }
        // An image's logits are a pixel, and a tile of their own: a column of pixels.
        let column = |extent: Extent| Extent { height: images.len(), ..extent };
        let conv = Convolution { input: column(conv.input), output: column(conv.output), ..*conv };
        let mut logits = self.memory.logits.write_part(images.clone(), panels);
        conv.run(weights, (pooled, conv.input_layout()), logits.target(0), Residual::None, 0..images.len());
    }

    /// The mean of the pixels of an image.
    fn global_pool(&self, x: &[T], mean: &mut [f32]) {
        let factor = mean.len() as f32 / x.len() as f32;
        T::kernels(self.plan.kernels).elementwise.global_pool(x, mean, factor);
    }

    /// One group of images through a whole stage.
    fn run_group(&self, stage: usize, group: usize, worker: usize) {
        let size = self.group(stage);
        let images = group * size..((group + 1) * size).min(self.count);
        let steps = &self.plan.steps;
        let Range { start: mut first, end: stage_end } = self.plan.stage(stage);
        let mut lap = Lap::start(self.timer);
        while first < stage_end {
            if let Op::Head { from, conv, weights } = &steps[first].op {
                self.head(*from, (conv, weights), images.clone(), None, worker, worker);
                lap.end(first, 0);
                first += 1;
                continue;
            }
            // Tensors within a stage hold one image, so steps that hand one to the next run together, image by image.
            let last = (first..stage_end).find(|&step| self.ends_image(&steps[step].op)).unwrap_or(stage_end - 1);
            for image in images.clone() {
                for index in first..=last {
                    let op = &steps[index].op;
                    if let Op::Block { y, block, weights, .. } = op {
                        let mut y = self.memory.activations[*y].write(self.slot(*y, image, worker));
                        let mut ring = self.memory.scratch.write(worker..worker + 1);
                        block.run(weights, &mut y, &mut ring, |half| lap.end(index, half));
                    } else {
                        let whole = Part { rows: 0..self.plan.output_extent(op).height, panels: None };
                        self.part((index, 0), (image, worker), whole, worker, &mut lap);
                    }
                }
            }
            first = last + 1;
        }
    }

    /// True if an operator leaves its image in a tensor between stages, so that another image may follow.
    fn ends_image(&self, op: &Op<T>) -> bool {
        op.output().is_none_or(|to| self.plan.tensors[to].between_stages)
    }
}

impl<T: Activation> Program for Run<'_, T> {
    fn phases(&self) -> usize {
        if self.split_images { split::phases(self.plan) } else { self.plan.stages.len() }
    }

    fn tasks(&self, phase: usize) -> usize {
        if !self.split_images {
            return self.count.div_ceil(self.group(phase));
        }
        let (step, half) = split::phase(self.plan, phase);
        self.count * self.cut(step, half).parts()
    }

    fn run(&self, phase: usize, task: usize, worker: usize) {
        if !self.split_images {
            return self.run_group(phase, task, worker);
        }
        let (step, half) = split::phase(self.plan, phase);
        let cut = self.cut(step, half);
        let (image, part) = (task / cut.parts(), task % cut.parts());
        let mut lap = Lap::start(self.timer);
        let part = cut.part(part, self.plan, &self.plan.steps[step].op);
        self.part((step, half), (image, image), part, worker, &mut lap);
    }
}

/// Pixels of channels as channels of pixels: all of the first channel, then those of the next, as long as `y` has room.
fn flatten<T: Copy>(x: &[T], extent: Extent, y: &mut [T]) {
    for (channel, y) in y.chunks_exact_mut(extent.pixels()).enumerate() {
        y.iter_mut().zip(x.chunks_exact(extent.channels)).for_each(|(y, pixel)| *y = pixel[channel]);
    }
}

fn add<T: Activation>(x: &[T], y: &mut [T], with_relu: bool) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = T::nearest(y.widened() + x.widened()));
    if with_relu {
        relu(y);
    }
}

/// What is below 0 becomes 0; NaN stays.
fn relu<T: Activation>(y: &mut [T]) {
    for y in y {
        *y = if y.widened() < 0.0 { T::default() } else { *y };
    }
}
