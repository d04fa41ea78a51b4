//! Inference: a model made ready to run on a pool of threads.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::exec::region::{Program, Region};
use crate::exec::shared::SharedBuffer;
use crate::exec::tensor::{Activations, copy_rows_inside};
use crate::isa::Isa;
use crate::kernel::rows::{Layout, Residual};
use crate::log;
use crate::net::images::Images;
use crate::net::log_report::dispatch_report;
use crate::net::model::Model;
use crate::net::plan::{Op, Plan, TensorId};
use crate::net::timing::{Lap, LayerTiming, Timer};

/// Options of a [`Session`]; made by [`Session::builder`].
#[derive(Clone, Debug)]
pub struct SessionBuilder {
    model: Model,
    pool: Pool,
    max_batch: usize,
    isa: Option<Isa>,
    timing: bool,
}

impl SessionBuilder {
    /// The threads to use. Default: [`Pool::shared`].
    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pool = pool;
        self
    }

    /// The most images that run at a time; larger batches are cut up. Memory grows with it. Default: 64.
    #[must_use]
    pub fn max_batch(mut self, images: usize) -> Self {
        self.max_batch = images;
        self
    }

    /// The instruction set. Default: [`Isa::active`].
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Whether the session keeps the time of every layer for [`Session::timings`], which costs some 50 ns per layer and image.
    /// Default: false, unless `LEANRESNET_LOG` has the word `timing`.
    #[must_use]
    pub fn timing(mut self, timing: bool) -> Self {
        self.timing = timing;
        self
    }

    /// Folds norms, packs weights, picks kernels and allocates all memory that runs need.
    ///
    /// # Errors
    /// [`Error::Isa`] for an instruction set that cannot run here, [`Error::Invalid`] for a batch of 0 images.
    pub fn build(self) -> Result<Session> {
        if self.max_batch == 0 {
            return Err(Error::invalid("max_batch", "at least 1", 0));
        }
        let kernels = self.isa.map_or_else(Kernels::active, Kernels::of)?;
        let plan = Plan::new(&self.model, kernels)?;
        let session = Session::with_plan(plan, self.pool, self.max_batch, self.timing || log::words().timing);
        if log::words().dispatch {
            log::write(&dispatch_report(session.isa(), session.pool.threads(), &session.kernels()));
        }
        Ok(session)
    }
}

/// A model that is ready to run: packed weights, kernels, memory, threads.
///
/// ```
/// use leanresnet::{Images, Model, Network, Session};
///
/// let model = Model::random(&Network::preset("small")?, 1);
/// let mut session = Session::builder(&model).max_batch(2).build()?;
/// let pixels = vec![0.5; 2 * 3 * 32 * 32];
/// let logits = session.run(Images::nchw_f32(&pixels, [2, 3, 32, 32])?)?;
/// assert_eq!(logits.row(1).len(), 10);
/// # Ok::<(), leanresnet::Error>(())
/// ```
pub struct Session {
    plan: Arc<Plan>,
    pool: Pool,
    max_batch: usize,
    memory: Memory,
    region: Region,
    logits: Vec<f32>,
    timer: Option<Timer>,
}

/// The outputs of a run: one number per image and class. Borrows the session.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    classes: usize,
}

impl<'a> Logits<'a> {
    /// Number of images.
    pub fn images(&self) -> usize {
        self.values.len() / self.classes
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The numbers of one image; `image < images()`.
    pub fn row(&self, image: usize) -> &'a [f32] {
        &self.values[image * self.classes..(image + 1) * self.classes]
    }

    /// All numbers, [images, classes].
    pub fn as_slice(&self) -> &'a [f32] {
        self.values
    }
}

impl Session {
    /// A builder with the default options.
    pub fn builder(model: &Model) -> SessionBuilder {
        SessionBuilder { model: model.clone(), pool: Pool::shared(), max_batch: 64, isa: None, timing: false }
    }

    fn with_plan(plan: Arc<Plan>, pool: Pool, max_batch: usize, timing: bool) -> Self {
        let memory = Memory::new(&plan, max_batch, pool.threads());
        let timer = timing.then(|| Timer::new(&plan));
        Session { plan, pool, max_batch, memory, region: Region::default(), logits: Vec::new(), timer }
    }

    /// Another session on the same packed weights, with memory and timings of its own, to run at the same time.
    #[must_use]
    pub fn fork(&self) -> Session {
        Session::with_plan(Arc::clone(&self.plan), self.pool.clone(), self.max_batch, self.timer.is_some())
    }

    /// Runs the network on a batch of any size.
    ///
    /// The same image gives the same bits at any position of any batch, on any number of threads. The calling thread works too. After
    /// the first run with a batch of some size, runs of up to that size allocate nothing, but for the record of a task, a few words,
    /// that rayon takes to ask the other threads of a pool for help.
    ///
    /// # Errors
    /// [`Error::Shape`] if the images are not of the network's size; [`Error::Panicked`] after a defect of this library.
    pub fn run(&mut self, images: Images<'_>) -> Result<Logits<'_>> {
        let [count, channels, height, width] = images.shape();
        if [channels, height, width] != self.plan.input {
            let [c, h, w] = self.plan.input;
            return Err(Error::shape("images", format!("{c} x {h} x {w} each"), format!("{channels} x {height} x {width}")));
        }
        let classes = self.plan.classes;
        self.logits.resize(count * classes, 0.0);
        // A pool that got more threads since the session was built must not index beyond its memory.
        let threads = self.pool.threads();
        self.memory.ensure_workers(&self.plan, self.max_batch, threads);
        for first in (0..count).step_by(self.max_batch) {
            let part = images.part(first, self.max_batch.min(count - first));
            let part_count = part.shape()[0];
            let run = Run::new(&self.plan, &self.memory, part, threads, self.timer.as_ref());
            self.region.run(&self.pool, &run)?;
            let rows = self.memory.logits.read(0..part_count);
            self.logits[first * classes..(first + part_count) * classes].copy_from_slice(&rows);
        }
        if let Some(timer) = &mut self.timer {
            timer.end_run(count, self.max_batch, threads);
        }
        Ok(Logits { values: &self.logits, classes })
    }

    /// Bytes of memory that runs work in, without the weights.
    pub fn workspace_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// The kernel behind every convolution: layer, kernel.
    pub fn kernels(&self) -> Vec<(String, &'static str)> {
        let mut kernels = Vec::new();
        for step in &self.plan.steps {
            match &step.op {
                Op::Convolve { conv, .. } | Op::Head { conv, .. } => kernels.push((step.name.clone(), conv.kernel.name)),
                Op::Block { block, .. } => {
                    kernels.push((format!("{}.conv1", step.name), block.first.kernel.name));
                    kernels.push((format!("{}.conv2", step.name), block.second.kernel.name));
                }
                Op::Load { .. } | Op::Pad { .. } | Op::Pool { .. } => {}
            }
        }
        kernels
    }

    /// Where the time of the runs went since the session was built or [`Session::reset_timings`] called: one entry per layer in
    /// the order of execution. Empty without [`SessionBuilder::timing`].
    pub fn timings(&self) -> Vec<LayerTiming> {
        self.timer.as_ref().map_or_else(Vec::new, Timer::timings)
    }

    /// Forgets the times so far.
    pub fn reset_timings(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.reset();
        }
    }

    /// The instruction set that the session runs on.
    pub fn isa(&self) -> Isa {
        self.plan.kernels.isa
    }
}

/// Everything that a run writes.
struct Memory {
    workers: usize,
    activations: Vec<Activations>,
    /// Per worker: the middle rows of a block.
    rings: SharedBuffer<f32>,
    /// Per worker: the pooled pixel before the head.
    pooled: SharedBuffer<f32>,
    logits: SharedBuffer<f32>,
}

impl Memory {
    fn new(plan: &Plan, max_batch: usize, workers: usize) -> Self {
        let images = |between_stages| if between_stages { max_batch } else { workers };
        let activations =
            plan.tensors.iter().map(|tensor| Activations::new(images(tensor.between_stages), tensor.extent)).collect();
        let ring = |op: &Op| if let Op::Block { block, .. } = op { block.ring_elements() } else { 0 };
        let pixel = |op: &Op| if let Op::Head { conv, .. } = op { conv.input.channels } else { 0 };
        let most = |size: &dyn Fn(&Op) -> usize| plan.steps.iter().map(|step| size(&step.op)).max().unwrap_or(0);
        Memory {
            workers,
            activations,
            rings: SharedBuffer::new(workers, most(&ring)),
            pooled: SharedBuffer::new(workers, most(&pixel)),
            logits: SharedBuffer::new(max_batch, plan.classes),
        }
    }

    fn ensure_workers(&mut self, plan: &Plan, max_batch: usize, workers: usize) {
        if workers > self.workers {
            *self = Memory::new(plan, max_batch, workers);
        }
    }

    fn bytes(&self) -> usize {
        let activations: usize = self.activations.iter().map(Activations::bytes).sum();
        activations + self.rings.bytes() + self.pooled.bytes() + self.logits.bytes()
    }
}

/// One run of up to `max_batch` images, as phases of tasks.
///
/// With at least as many images as threads, a phase is a stage and a task a group of images that goes through it depth-first.
/// With fewer, a phase is one operator and a task some of its output rows of one image.
struct Run<'a> {
    plan: &'a Plan,
    memory: &'a Memory,
    images: Images<'a>,
    count: usize,
    threads: usize,
    split_images: bool,
    timer: Option<&'a Timer>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, memory: &'a Memory, images: Images<'a>, threads: usize, timer: Option<&'a Timer>) -> Self {
        let count = images.shape()[0];
        Run { plan, memory, images, count, threads, split_images: count < threads, timer }
    }

    /// Images of a stage's groups.
    fn group(&self, stage: usize) -> usize {
        self.plan.group(stage, self.count, self.threads)
    }

    /// With split images: the step of a phase, and which half of a block it is.
    fn split_phase(&self, phase: usize) -> (usize, usize) {
        let mut left = phase;
        for (index, step) in self.plan.steps.iter().enumerate() {
            let halves = if matches!(step.op, Op::Block { .. }) { 2 } else { 1 };
            if left < halves {
                return (index, left);
            }
            left -= halves;
        }
        (self.plan.steps.len() - 1, 0)
    }

    /// The image of a tensor that holds `image`: tensors within a stage have one per worker or, with split images, per image.
    fn slot(&self, tensor: TensorId, image: usize, temporary: usize) -> usize {
        if self.plan.tensors[tensor].between_stages { image } else { temporary }
    }

    /// Runs `rows` of a step on one image; blocks are run whole, by `block`, or by halves.
    fn step(&self, op: &Op, half: usize, image: usize, temporary: usize, rows: Range<usize>, worker: usize) {
        let tensors = &self.memory.activations;
        let slot = |tensor| self.slot(tensor, image, temporary);
        match op {
            Op::Load { to } => {
                let extent = tensors[*to].extent;
                let inner = rows.start + extent.border..rows.end + extent.border;
                let mut band = tensors[*to].write_rows(slot(*to), inner);
                let origin = (extent.border * extent.channels, extent.row());
                self.images.copy_rows(image, rows, &mut band, origin, &self.plan.byte_map);
            }
            Op::Pad { from, to } => {
                let (from_extent, extent) = (tensors[*from].extent, tensors[*to].extent);
                let inside = rows.start + extent.border..rows.end + extent.border;
                let x = tensors[*from].read(slot(*from));
                let mut y = tensors[*to].write_rows(slot(*to), inside);
                let source = &x[rows.start * from_extent.row()..rows.end * from_extent.row()];
                copy_rows_inside(source, &mut y, extent);
            }
            Op::Convolve { from, to, conv, weights, add_to_output } => {
                let x = tensors[*from].read(slot(*from));
                let mut y = tensors[*to].write_rows(slot(*to), rows.clone());
                let residual = if *add_to_output { Residual::Output } else { Residual::None };
                let layout = conv.output_layout().starting_at(rows.start);
                conv.run(weights, (&x, conv.input_layout()), (&mut y, layout), residual, rows);
            }
            Op::Block { y, middle, block, weights, .. } => {
                let (from, to, conv) = if half == 0 { (*y, *middle, &block.first) } else { (*middle, *y, &block.second) };
                let x = tensors[from].read(slot(from));
                let mut output = tensors[to].write_rows(slot(to), rows.clone());
                let residual = if half == 0 { Residual::None } else { Residual::Output };
                let layout: Layout = conv.output_layout().starting_at(rows.start);
                conv.run(&weights[half], (&x, conv.input_layout()), (&mut output, layout), residual, rows);
            }
            Op::Pool { from, to } => {
                let (input, output) = (tensors[*from].extent, tensors[*to].extent);
                let x = tensors[*from].read(slot(*from));
                let mut y = tensors[*to].write_rows(slot(*to), rows.clone());
                for (row, y) in rows.zip(y.chunks_exact_mut(output.row())) {
                    let upper = &x[2 * row * input.row()..(2 * row + 2) * input.row()];
                    self.plan.kernels.elementwise.pool(upper, input.row(), y, output.channels, 0.25);
                }
            }
            Op::Head { from, conv, weights } => {
                let x = tensors[*from].read(slot(*from));
                let mut pooled = self.memory.pooled.write(worker..worker + 1);
                let pixel = &mut pooled[..conv.input.channels];
                self.plan.kernels.elementwise.global_pool(&x, pixel, 1.0 / tensors[*from].extent.pixels() as f32);
                let mut logits = self.memory.logits.write(image..image + 1);
                conv.image(weights, pixel, &mut logits, Residual::None);
            }
        }
    }

    /// One group of images through a whole stage.
    fn run_group(&self, stage: usize, group: usize, worker: usize) {
        let size = self.group(stage);
        let images = group * size..((group + 1) * size).min(self.count);
        let steps = &self.plan.steps;
        let Range { start: mut first, end: stage_end } = self.plan.stage(stage);
        let mut lap = Lap::start(self.timer);
        while first < stage_end {
            // Tensors within a stage hold one image, so steps that hand one to the next run together, image by image.
            let last = (first..stage_end).find(|&step| self.ends_image(&steps[step].op)).unwrap_or(stage_end - 1);
            for image in images.clone() {
                for index in first..=last {
                    let op = &steps[index].op;
                    if let Op::Block { y, block, weights, .. } = op {
                        let mut y = self.memory.activations[*y].write(self.slot(*y, image, worker));
                        let mut ring = self.memory.rings.write(worker..worker + 1);
                        block.run(weights, &mut y, &mut ring, |half| lap.end(index, half));
                    } else {
                        self.step(op, 0, image, worker, 0..self.plan.output(op).0, worker);
                        lap.end(index, 0);
                    }
                }
            }
            first = last + 1;
        }
    }

    /// True if an operator leaves its image in a tensor between stages, so that another image may follow.
    fn ends_image(&self, op: &Op) -> bool {
        match op {
            Op::Load { to } | Op::Pad { to, .. } | Op::Convolve { to, .. } | Op::Pool { to, .. } | Op::Block { y: to, .. } => {
                self.plan.tensors[*to].between_stages
            }
            Op::Head { .. } => true,
        }
    }
}

impl Program for Run<'_> {
    fn phases(&self) -> usize {
        if !self.split_images {
            return self.plan.stages.len();
        }
        self.plan.steps.iter().map(|step| if matches!(step.op, Op::Block { .. }) { 2 } else { 1 }).sum()
    }

    fn tasks(&self, phase: usize) -> usize {
        if !self.split_images {
            return self.count.div_ceil(self.group(phase));
        }
        let (step, _) = self.split_phase(phase);
        let (rows, _) = self.plan.output(&self.plan.steps[step].op);
        self.count * rows.min(self.threads.div_ceil(self.count.max(1)))
    }

    fn run(&self, phase: usize, task: usize, worker: usize) {
        if !self.split_images {
            return self.run_group(phase, task, worker);
        }
        let (step, half) = self.split_phase(phase);
        let parts = self.tasks(phase) / self.count;
        let (image, part) = (task / parts, task % parts);
        let op = &self.plan.steps[step].op;
        let (rows, _) = self.plan.output(op);
        let mut lap = Lap::start(self.timer);
        self.step(op, half, image, image, rows * part / parts..rows * (part + 1) / parts, worker);
        lap.end(step, half);
    }
}
