//! Training: configuration, learning-rate schedules, the loss, the loop over epochs, checkpoints and exact resume.
//!
//! - [`RunConfig`] is a whole configuration file; its table `[train]` is a [`TrainConfig`].
//! - [`Trainer`] runs it: [`Trainer::fit`] with files and checkpoints in a [`RunFolder`], or [`Trainer::step`] by step.
//!   An [`Observer`] hears about steps, epochs and checkpoints, and can stop the run.
//! - [`Trainer::resume`] continues a run from its last checkpoint, to the bit.
//! - An [`Executor`] computes: forward, backward, update.

mod checkpoint;
mod config;
mod engine;
mod evaluation;
mod executor;
mod fit;
mod folder;
mod generations;
mod loss;
mod metrics;
mod model;
mod observer;
mod optimizer;
mod progress;
mod recipe;
mod resume;
mod run_config;
mod schedule;
mod tensorboard;
mod trainer;

pub use config::{Dtype, Recompute, TrainConfig};
pub use engine::NetworkExecutor;
pub use evaluation::Evaluation;
pub use executor::{Executor, GradientVisitor, StateKind, StateVisitor, Update};
pub use fit::FitReport;
pub use folder::RunFolder;
pub use loss::{StepLoss, cross_entropy, rank, softmax_cross_entropy};
pub use metrics::{EpochMetrics, EpochTiming};
pub use model::model_of_checkpoint;
pub use observer::{EpochReport, Observer, Silent, StepReport, StopReason};
pub use optimizer::{OptimizerConfig, average_decay, clip_factor, update_average};
pub use progress::Best;
pub use recipe::recipe;
pub use resume::{ResumeReport, config_of_checkpoint};
pub use run_config::RunConfig;
pub use schedule::{ScheduleConfig, learning_rate};
pub use trainer::{Batch, FitOptions, Trainer};
