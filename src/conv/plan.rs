//! A convolution that is ready to run.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::desc::{ConvDesc, ConvOperator};
use super::pack::PackedWeights;
use super::view::{Residual, TensorView, TensorViewMut, text};
use super::work::{Work, convolution, output_size, scratch_values};
use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::exec::region::{Program, Region};
use crate::exec::shared::SharedBuffer;
use crate::isa::Isa;
use crate::kernel::conv::ConvKernel;

/// Tasks for each thread, so that one that is late can leave work to the others.
const TASKS_PER_THREAD: usize = 4;

/// A convolution with its kernel and threads, for images of any size. The example is in the [module](super)'s documentation.
///
/// Weights, input and output are arguments of every run, so one plan serves all layers of one description.
pub struct ConvPlan {
    desc: ConvDesc,
    isa: Isa,
    kernel: ConvKernel,
    pool: Pool,
    region: Region,
    /// Per thread: scratch memory of a task.
    scratch: SharedBuffer<f32>,
}

/// A part of a convolution: some output rows of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTask {
    /// The image, counted from 0.
    pub image: usize,
    /// The rows of the output.
    pub rows: Range<usize>,
}

impl ConvPlan {
    /// Checks a description and picks its kernel. `pool`: the threads that [`ConvPlan::run`] works on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for channels, kernel sizes and strides that there is no kernel for; [`Error::Isa`] for an
    /// instruction set that cannot run here.
    pub fn new(desc: &ConvDesc, pool: &Pool) -> Result<Self> {
        desc.validate()?;
        let kernels = Kernels::of(desc.isa.map_or_else(Isa::active, Ok)?)?;
        let kernel = match desc.operator {
            ConvOperator::Lean(stencil) | ConvOperator::Depthwise(stencil) => kernels.lean(stencil, desc.group_size),
            ConvOperator::Dense(_) => kernels.f32.dense,
        };
        let (region, scratch) = (Region::default(), SharedBuffer::new(0, 0));
        Ok(ConvPlan { desc: *desc, isa: kernels.isa, kernel, pool: pool.clone(), region, scratch })
    }

    /// The description.
    pub fn desc(&self) -> &ConvDesc {
        &self.desc
    }

    /// The kernel's name, as `kernels/README.md` spells it.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name
    }

    /// The instruction set that the plan runs on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The shape of the output for an input of `shape`: images, height, width, channels. Height and width become
    /// (size - 1) / stride + 1, rounded down.
    ///
    /// # Errors
    /// [`Error::Shape`] for an input without pixels or with another number of channels.
    pub fn output_shape(&self, shape: [usize; 4]) -> Result<[usize; 4]> {
        let [images, height, width, channels] = shape;
        if channels != self.desc.inputs || height == 0 || width == 0 {
            let expected = format!("at least one pixel of {} channels", self.desc.inputs);
            return Err(Error::shape("input", expected, text(shape)));
        }
        let size = |size| output_size(size, self.desc.stride);
        Ok([images, size(height), size(width), self.desc.outputs])
    }

    /// Computes `y` from `x` on all threads of the pool.
    ///
    /// `weights`: packed for the same operator and channels. `y`: of [`ConvPlan::output_shape`]; what it holds is replaced.
    /// Memory that a run needs is kept for the next one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for weights of another convolution, or if the description asks for a residual; [`Error::Shape`] if a
    /// tensor has another shape; [`Error::Panicked`] after a defect of this library.
    pub fn run(&mut self, weights: &PackedWeights, x: TensorView<'_>, y: TensorViewMut<'_>) -> Result<()> {
        self.run_with_residual(weights, x, Residual::None, y)
    }

    /// [`ConvPlan::run`] that adds `residual` before the ReLU; its values are read, and with [`Residual::Output`] those of `y`.
    ///
    /// # Errors
    /// Those of [`ConvPlan::run`]; [`Error::Invalid`] if the description asks for no residual.
    pub fn run_with_residual(
        &mut self,
        weights: &PackedWeights,
        x: TensorView<'_>,
        residual: Residual<'_>,
        y: TensorViewMut<'_>,
    ) -> Result<()> {
        let output = self.check(weights, x, residual)?;
        if y.shape != output {
            return Err(Error::shape("output", text(output), text(y.shape)));
        }
        let [images, height, width, channels] = output;
        let (rows, row) = (images * height, width * channels);
        if rows == 0 {
            return Ok(());
        }
        let threads = self.pool.threads();
        let scratch = self.scratch_values(x.shape[2]);
        if scratch > self.scratch.tile() || threads > self.scratch.tiles() {
            self.scratch = SharedBuffer::new(threads, scratch);
        }
        let tasks = if threads == 1 { 1 } else { rows.min(TASKS_PER_THREAD * threads) };
        let mut rest = y.data;
        let parts = (0..tasks).map(|task| {
            let rows = rows * task / tasks..rows * (task + 1) / tasks;
            let (part, after) = std::mem::take(&mut rest).split_at_mut(rows.len() * row);
            rest = after;
            (rows, Mutex::new(part))
        });
        let run = Run { parts: parts.collect(), work: self.work(weights, x, residual), scratch: &self.scratch };
        self.region.run(&self.pool, &run)
    }

    /// Values of scratch memory that [`ConvPlan::rows`] needs for images `width` pixels wide; 0 for lean and 1x1 convolutions.
    pub fn scratch_values(&self, width: usize) -> usize {
        scratch_values(&self.desc, width)
    }

    /// Computes one task on the calling thread, for callers with threads of their own. Allocates nothing.
    ///
    /// `y`: the task's output rows and nothing else, [rows, width, channels] side by side. `scratch`: at least
    /// [`ConvPlan::scratch_values`] values, whatever they are. A tensor as `residual` is the whole one, as `x` is.
    ///
    /// # Errors
    /// Those of [`ConvPlan::run_with_residual`]; [`Error::Invalid`] for an image or rows that there are not; [`Error::Shape`] if `y`
    /// or `scratch` has another length.
    pub fn rows(
        &self,
        task: &ConvTask,
        weights: &PackedWeights,
        x: TensorView<'_>,
        residual: Residual<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<()> {
        let [images, height, width, channels] = self.check(weights, x, residual)?;
        if task.image >= images {
            return Err(Error::invalid("image of the task", format!("less than {images}"), task.image));
        }
        if task.rows.start > task.rows.end || task.rows.end > height {
            return Err(Error::invalid("rows of the task", format!("a range in 0..{height}"), format!("{:?}", task.rows)));
        }
        let expected = task.rows.len() * width * channels;
        if y.len() != expected {
            return Err(Error::shape("rows of the output", format!("{expected} values"), format!("{} values", y.len())));
        }
        let needed = self.scratch_values(x.shape[2]);
        if scratch.len() < needed {
            return Err(Error::shape("scratch", format!("at least {needed} values"), format!("{} values", scratch.len())));
        }
        if !task.rows.is_empty() {
            self.work(weights, x, residual).rows(task.image, task.rows.clone(), y, &mut scratch[..needed]);
        }
        Ok(())
    }

    fn work<'a>(&self, weights: &'a PackedWeights, x: TensorView<'a>, residual: Residual<'a>) -> Work<'a> {
        Work { weights, x, residual, convolution: convolution(self.kernel, &self.desc, x.shape) }
    }

    /// Checks everything but the output; returns its shape.
    fn check(&self, weights: &PackedWeights, x: TensorView<'_>, residual: Residual<'_>) -> Result<[usize; 4]> {
        self.desc.check_weights(weights)?;
        let output = self.output_shape(x.shape)?;
        match residual {
            Residual::Tensor(tensor) if self.desc.residual && tensor.shape != output => {
                Err(Error::shape("residual", text(output), text(tensor.shape)))
            }
            Residual::None if self.desc.residual => {
                Err(Error::invalid("residual", "one, as the description says", "Residual::None"))
            }
            Residual::Output | Residual::Tensor(_) if !self.desc.residual => {
                Err(Error::invalid("residual", "none, as the description says", "one"))
            }
            _ => Ok(output),
        }
    }
}

impl fmt::Debug for ConvPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConvPlan").field("desc", &self.desc).field("kernel", &self.kernel.name).finish_non_exhaustive()
    }
}

/// A run on the threads of a pool: ranges of rows, counted through all images, with their part of the output.
struct Run<'a> {
    /// The lock is never waited for: each part belongs to one task.
    parts: Vec<(Range<usize>, Mutex<&'a mut [f32]>)>,
    work: Work<'a>,
    scratch: &'a SharedBuffer<f32>,
}

impl Program for Run<'_> {
    fn phases(&self) -> usize {
        1
    }

    fn tasks(&self, _: usize) -> usize {
        self.parts.len()
    }

    fn run(&self, _: usize, task: usize, worker: usize) {
        let (rows, part) = &self.parts[task];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = self.scratch.write(worker..worker + 1);
        let output = self.work.convolution.output;
        let (mut next, mut at) = (rows.start, 0);
        while next < rows.end {
            let (image, row) = (next / output.height, next % output.height);
            let count = (output.height - row).min(rows.end - next);
            let values = count * output.row();
            self.work.rows(image, row..row + count, &mut part[at..at + values], &mut scratch);
            (next, at) = (next + count, at + values);
        }
    }
}

const _: () = {
    const fn assert_send_and_sync<T: Send + Sync>() {}
    assert_send_and_sync::<ConvPlan>();
    assert_send_and_sync::<ConvDesc>();
    assert_send_and_sync::<PackedWeights>();
};
