//! Inference: a model made ready to run on a pool of threads.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::exec::region::Region;
use crate::isa::Isa;
use crate::log;
use crate::net::images::Images;
use crate::net::log_report::dispatch_report;
use crate::net::model::Model;
use crate::net::plan::{Op, Plan};
use crate::net::run::{Memory, Run};
use crate::net::timing::{LayerTiming, Timer};

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
                Op::PooledConvolve { pair, .. } => kernels.push((format!("{}.conv", step.name), pair.conv.kernel.name)),
                Op::Load { .. } | Op::Pad { .. } => {}
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
