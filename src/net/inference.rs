//! A plan with its memory, whatever type its activations have.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::error::Result;
use crate::exec::activation::Activation;
use crate::exec::pool::Pool;
use crate::exec::region::Region;
use crate::isa::Isa;
use crate::net::images::Images;
use crate::net::op::Op;
use crate::net::plan::Plan;
use crate::net::run::{Memory, Run};
use crate::net::timing::{LayerTiming, Timer};

/// What a session asks of its engine.
pub(super) trait Inference: Send + Sync {
    /// Another one on the same packed weights, with memory and clocks of its own.
    fn fork(&self, threads: usize) -> Box<dyn Inference>;

    /// Runs images of the right size, and writes their logits, [images, classes].
    fn run(&mut self, images: Images<'_>, pool: &Pool, region: &mut Region, logits: &mut [f32]) -> Result<()>;

    /// Channels, height and width of an image.
    fn input(&self) -> [usize; 3];

    /// Number of classes.
    fn classes(&self) -> usize;

    /// The instruction set.
    fn isa(&self) -> Isa;

    /// The kernel behind every convolution: layer, kernel.
    fn kernels(&self) -> Vec<(String, &'static str)>;

    /// Bytes of memory that runs work in.
    fn workspace_bytes(&self) -> usize;

    /// The layers' times; none without clocks.
    fn timings(&self) -> Vec<LayerTiming>;

    /// Forgets the times so far.
    fn reset_timings(&mut self);
}

/// A plan with memory for batches of up to `max_batch` images.
pub(super) struct Engine<T: Activation> {
    plan: Arc<Plan<T>>,
    max_batch: usize,
    memory: Memory<T>,
    timer: Option<Timer<T>>,
}

impl<T: Activation> Engine<T> {
    pub(super) fn new(plan: Arc<Plan<T>>, max_batch: usize, threads: usize, timing: bool) -> Self {
        let memory = Memory::new(&plan, max_batch, threads);
        let timer = timing.then(|| Timer::new(&plan));
        Engine { plan, max_batch, memory, timer }
    }
}

impl<T: Activation> Inference for Engine<T> {
    fn fork(&self, threads: usize) -> Box<dyn Inference> {
        Box::new(Engine::new(Arc::clone(&self.plan), self.max_batch, threads, self.timer.is_some()))
    }

    fn run(&mut self, images: Images<'_>, pool: &Pool, region: &mut Region, logits: &mut [f32]) -> Result<()> {
        let (count, classes) = (images.shape()[0], self.plan.classes);
        // A pool that got more threads since the session was built must not index beyond its memory.
        let threads = pool.threads();
        self.memory.ensure_workers(&self.plan, self.max_batch, threads);
        for first in (0..count).step_by(self.max_batch) {
            let part = images.part(first, self.max_batch.min(count - first));
            let part_count = part.shape()[0];
            let run = Run::new(&self.plan, &self.memory, part, threads, self.timer.as_ref());
            region.run(pool, &run)?;
            let rows = self.memory.logits.read(0..part_count);
            logits[first * classes..(first + part_count) * classes].copy_from_slice(&rows);
        }
        if let Some(timer) = &mut self.timer {
            timer.end_run(count, self.max_batch, threads);
        }
        Ok(())
    }

    fn input(&self) -> [usize; 3] {
        self.plan.input
    }

    fn classes(&self) -> usize {
        self.plan.classes
    }

    fn isa(&self) -> Isa {
        self.plan.kernels.isa
    }

    fn kernels(&self) -> Vec<(String, &'static str)> {
        let mut kernels = Vec::new();
        for step in &self.plan.steps {
            match &step.op {
                Op::Convolve { conv, .. } => kernels.push((step.name.clone(), conv.kernel.name)),
                Op::Head { conv, .. } => kernels.push((step.name.clone(), conv.kernel.name)),
                Op::Block { block, .. } => {
                    kernels.push((format!("{}.conv1", step.name), block.first.kernel.name));
                    kernels.push((format!("{}.conv2", step.name), block.second.kernel.name));
                }
                Op::PooledConvolve { pair, .. } => kernels.push((format!("{}.conv", step.name), pair.conv.kernel.name)),
                Op::Load { .. }
                | Op::Pad { .. }
                | Op::Pool { .. }
                | Op::GlobalPool { .. }
                | Op::Flatten { .. }
                | Op::Add { .. }
                | Op::Relu { .. }
                | Op::Output { .. } => {}
            }
        }
        kernels
    }

    fn workspace_bytes(&self) -> usize {
        self.memory.bytes()
    }

    fn timings(&self) -> Vec<LayerTiming> {
        self.timer.as_ref().map_or_else(Vec::new, Timer::timings)
    }

    fn reset_timings(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.reset();
        }
    }
}
