//! Inference: a model made ready to run on a pool of threads.
#![forbid(unsafe_code)]

use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::exec::region::Region;
use crate::isa::Isa;
use crate::log;
use crate::net::calibration::Calibration;
use crate::net::images::Images;
use crate::net::inference::{Engine, Inference};
use crate::net::log_report::dispatch_report;
use crate::net::model::Model;
use crate::net::plan::Plan;
use crate::net::precision::Precision;
use crate::net::preprocess::Preprocess;
use crate::net::timing::LayerTiming;

/// Options of a [`Session`]; made by [`Session::builder`].
#[derive(Clone, Debug)]
pub struct SessionBuilder {
    model: Model,
    pool: Pool,
    max_batch: usize,
    isa: Option<Isa>,
    precision: Precision,
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

    /// The instruction set. Default: that of [`Precision::isa`].
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// The type of activations and matrices. Default: [`Precision::F32`].
    ///
    /// [`Precision::Bf16`] runs on the tier of [`Precision::isa`] unless [`SessionBuilder::isa`] names one; on tiers without kernels for
    /// it, portable code gives the same precision slowly. [`Precision::Bf16x3`] runs on the same tier, in f32 where that has no kernels for it.
    /// [`Precision::Auto`] and [`Precision::AutoNearF32`] leave the choice to a [`Calibration`] on that tier.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
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
    /// [`Error::Isa`] for an instruction set that cannot run here, [`Error::Invalid`] for a batch of 0 images, and in bf16
    /// for stencils that read groups of channels or a build without the feature.
    pub fn build(self) -> Result<Session> {
        if self.max_batch == 0 {
            return Err(Error::invalid("max_batch", "at least 1", 0));
        }
        let (threads, timing) = (self.pool.threads(), self.timing || log::words().timing);
        let kernels = Kernels::of(self.isa.map_or_else(|| self.precision.isa(), Ok)?)?;
        let calibration = self.calibration(kernels.isa)?;
        let three_products = Kernels::of_three_products(kernels.isa)?.filter(|_| !self.model.has_groups());
        let precision = match self.precision {
            Precision::Auto => calibration.map_or(Precision::F32, |calibration| calibration.precision()),
            Precision::AutoNearF32 => calibration.map_or(Precision::F32, |calibration| calibration.near_f32()),
            Precision::Bf16x3 if three_products.is_none() => Precision::F32,
            named => named,
        };
        let kernels = three_products.filter(|_| precision == Precision::Bf16x3).unwrap_or(kernels);
        let engine: Box<dyn Inference> = match precision {
            Precision::F32 | Precision::Bf16x3 | Precision::Auto | Precision::AutoNearF32 => {
                Box::new(Engine::<f32>::new(Plan::new(&self.model, kernels)?, self.max_batch, threads, timing))
            }
            #[cfg(not(feature = "bf16"))]
            Precision::Bf16 => return Err(Error::invalid("precision", "f32, or a build with the feature `bf16`", "bf16")),
            #[cfg(feature = "bf16")]
            Precision::Bf16 => {
                Box::new(Engine::<half::bf16>::new(Plan::new(&self.model, kernels)?, self.max_batch, threads, timing))
            }
        };
        let preprocess = self.model.preprocess().clone();
        let session = Session { engine, precision, pool: self.pool, region: Region::default(), logits: Vec::new(), preprocess };
        if log::words().dispatch {
            log::write(&dispatch_report(&session, self.precision, calibration, threads));
        }
        Ok(session)
    }

    /// What [`Precision::Auto`] and [`Precision::AutoNearF32`] go by; `None` where there is nothing to choose.
    fn calibration(&self, isa: Isa) -> Result<Option<Calibration>> {
        let is_open = matches!(self.precision, Precision::Auto | Precision::AutoNearF32);
        if is_open && !self.model.has_groups() { Calibration::of(isa) } else { Ok(None) }
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
    engine: Box<dyn Inference>,
    precision: Precision,
    pool: Pool,
    region: Region,
    logits: Vec<f32>,
    preprocess: Preprocess,
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
        SessionBuilder {
            model: model.clone(),
            pool: Pool::shared(),
            max_batch: 64,
            isa: None,
            precision: Precision::F32,
            timing: false,
        }
    }

    /// Another session on the same packed weights, with memory and timings of its own, to run at the same time.
    #[must_use]
    pub fn fork(&self) -> Session {
        let engine = self.engine.fork(self.pool.threads());
        let (pool, preprocess) = (self.pool.clone(), self.preprocess.clone());
        Session { engine, precision: self.precision, pool, region: Region::default(), logits: Vec::new(), preprocess }
    }

    /// Runs the network on a batch of any size.
    ///
    /// The same image gives the same bits at any position of any batch, on any number of threads. The calling thread works too. After
    /// the first run with a batch of some size, runs of up to that size allocate nothing, but for the record of a task, a few words,
    /// that rayon takes to ask the other threads of a pool for help.
    ///
    /// # Errors
    /// [`Error::Shape`] if the images are not of the network's size; [`Error::Invalid`] for bytes if the model's
    /// [`Preprocess`] refuses them; [`Error::Panicked`] after a defect of this library.
    pub fn run(&mut self, images: Images<'_>) -> Result<Logits<'_>> {
        let values = self.outputs(&images)?;
        self.logits.resize(values, 0.0);
        self.engine.run(images, &self.pool, &mut self.region, &mut self.logits)?;
        Ok(Logits { values: &self.logits, classes: self.engine.classes() })
    }

    /// [`Session::run`] that writes the outputs, [images, classes], to memory of the caller.
    ///
    /// # Errors
    /// Those of [`Session::run`], and [`Error::Shape`] if `logits` has another length.
    pub fn run_into(&mut self, images: Images<'_>, logits: &mut [f32]) -> Result<()> {
        let values = self.outputs(&images)?;
        if logits.len() != values {
            return Err(Error::shape("logits", format!("{values} values"), format!("{} values", logits.len())));
        }
        self.engine.run(images, &self.pool, &mut self.region, logits)
    }

    /// The number of outputs for images that the model takes.
    fn outputs(&self, images: &Images<'_>) -> Result<usize> {
        let [count, channels, height, width] = images.shape();
        if [channels, height, width] != self.engine.input() {
            let [c, h, w] = self.engine.input();
            return Err(Error::shape("images", format!("{c} x {h} x {w} each"), format!("{channels} x {height} x {width}")));
        }
        if images.are_bytes() {
            self.preprocess.check_bytes()?;
        }
        Ok(count * self.engine.classes())
    }

    /// Bytes of memory that runs work in, without the weights.
    pub fn workspace_bytes(&self) -> usize {
        self.engine.workspace_bytes()
    }

    /// The kernel behind every convolution: layer, kernel.
    pub fn kernels(&self) -> Vec<(String, &'static str)> {
        self.engine.kernels()
    }

    /// Where the time of the runs went since the session was built or [`Session::reset_timings`] called: one entry per layer in
    /// the order of execution. Empty without [`SessionBuilder::timing`].
    pub fn timings(&self) -> Vec<LayerTiming> {
        self.engine.timings()
    }

    /// Forgets the times so far.
    pub fn reset_timings(&mut self) {
        self.engine.reset_timings();
    }

    /// The precision that the session computes in: the one that was asked for, the one that [`Precision::Auto`] or
    /// [`Precision::AutoNearF32`] chose, or f32 where [`Precision::Bf16x3`] has no kernels.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set that the session runs on.
    pub fn isa(&self) -> Isa {
        self.engine.isa()
    }
}
