//! [`Executor`] for a [`Network`].
#![forbid(unsafe_code)]

use std::sync::Mutex;

use rayon::prelude::*;

use super::graph::Graph;
use super::memory::Memory;
use super::norm::{TrainedNorm, Values};
use super::step::{CHUNKS, Phase, Step, phases};
use super::weights::TrainedConvolution;
use crate::data::SoftLabel;
use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::exec::region::Region;
use crate::isa::Isa;
use crate::kernel::elementwise::MomentumStep;
use crate::net::{Images, Model, Network, Session, parameters};
use crate::train::loss::StepLoss;
use crate::train::{Executor, OptimizerConfig, StateKind, StateVisitor, TrainConfig, Update};

/// Trains a network on the threads of a pool. Same bits for any number of threads and any instruction set with fused
/// multiply-add.
pub struct NetworkExecutor {
    network: Network,
    graph: Graph,
    phases: Vec<Phase>,
    memory: Option<Memory>,
    /// Images that `memory` holds.
    capacity: usize,
    workers: usize,
    region: Region,
    pool: Pool,
    kernels: &'static Kernels,
    optimizer: MomentumStep,
    label_smoothing: f64,
    keeps_average: bool,
    /// Evaluation, made from the state when it is asked for and dropped when the state changes.
    session: Option<Session>,
}

/// Images that an evaluation runs at a time.
const EVALUATION_BATCH: usize = 64;

impl NetworkExecutor {
    /// An executor with the initial weights of `config.seed`, the same as [`Model::random`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for an optimiser that is not supported, [`Error::Isa`] for an instruction set that cannot run here.
    pub fn new(network: &Network, config: &TrainConfig, pool: Pool, isa: Isa) -> Result<Self> {
        let OptimizerConfig::Sgd { momentum, nesterov, weight_decay } = config.optimizer else {
            return Err(Error::invalid("train.optimizer.name", "sgd", "adamw"));
        };
        let kernels = Kernels::of(isa)?;
        let graph = Graph::new(network, CHUNKS)?;
        let optimizer = MomentumStep {
            learning_rate: 0.0,
            momentum: momentum as f32,
            weight_decay: weight_decay as f32,
            gradient_factor: 1.0,
            nesterov,
        };
        let mut executor = NetworkExecutor {
            network: network.clone(),
            phases: phases(&graph),
            graph,
            memory: None,
            capacity: 0,
            workers: 0,
            region: Region::default(),
            pool,
            kernels,
            optimizer,
            label_smoothing: f64::from(config.label_smoothing),
            keeps_average: config.ema > 0.0,
            session: None,
        };
        executor.set_model(&Model::random(network, config.seed))?;
        Ok(executor)
    }

    /// Replaces weights and running statistics by those of a model of the same network; momentum starts again, and so does the
    /// moving average.
    ///
    /// # Errors
    /// [`Error::Model`] if a tensor is missing or has another shape.
    pub fn set_model(&mut self, model: &Model) -> Result<()> {
        for parameter in parameters(&self.network) {
            if let Some((shape, values)) = model.tensor(&parameter.name) {
                self.restore_state(StateKind::Model, &parameter.name, shape, values)?;
            }
        }
        for conv in &mut self.graph.convolutions {
            conv.momentum.fill(0.0);
            if self.keeps_average {
                conv.average = conv.flat_values();
            }
        }
        for norm in &mut self.graph.norms {
            let keeps_average = self.keeps_average;
            for parameter in [&mut norm.weight, &mut norm.bias] {
                parameter.momentum.fill(0.0);
                if keeps_average {
                    parameter.average = parameter.values.clone();
                }
            }
            if keeps_average {
                let running = [Values::RunningMean, Values::RunningVariance].map(|values| norm.read(values).to_vec());
                norm.running_average = running;
            }
        }
        Ok(())
    }

    /// Bytes of activations, gradients and scratch for a batch.
    pub fn training_bytes(network: &Network, batch: usize, threads: usize) -> Result<usize> {
        let graph = Graph::new(network, CHUNKS)?;
        let elements: usize = graph.tensors.iter().map(|tensor| tensor.extent.elements()).sum();
        let largest = graph.tensors.iter().map(|tensor| tensor.extent.elements()).max().unwrap_or(0);
        let weights: usize = graph.convolutions.iter().map(|conv| conv.momentum.len()).sum();
        Ok(4 * (batch * (elements + 2 * largest) + 4 * threads * largest + (CHUNKS + 4) * weights))
    }

    /// Makes room for a batch. Memory grows to the largest batch seen and stays.
    fn prepare(&mut self, images: usize) {
        let workers = self.pool.threads();
        if images > self.capacity || workers > self.workers || self.memory.is_none() {
            self.capacity = images.max(self.capacity);
            self.workers = workers;
            // Free the old buffers before the new ones are made.
            self.memory = None;
            self.memory = Some(Memory::new(&self.graph, self.network.input(), self.capacity, workers));
        }
    }

    fn check_images(&self, images: &[f32], count: usize) -> Result<()> {
        let [channels, height, width] = self.network.input();
        let each = channels * height * width;
        if images.len() == count * each && count > 0 {
            return Ok(());
        }
        Err(Error::shape("images", format!("at least one image, {count} of {each} values"), format!("{} values", images.len())))
    }

    /// The state that evaluation uses: the average where one is kept.
    fn evaluated_model(&self) -> Result<Model> {
        let wanted = if self.keeps_average { StateKind::Ema } else { StateKind::Model };
        let mut tensors = Vec::new();
        self.visit_state(&mut |kind, name, shape, values| {
            if kind == wanted {
                tensors.push((name.to_string(), shape.to_vec(), values.to_vec()));
            }
        });
        Model::from_tensors(&self.network, tensors)
    }
}

/// Calls `visit` with the parts of a norm's state of one kind.
fn visit_norm(norm: &TrainedNorm, kind: StateKind, visit: &mut StateVisitor<'_>) {
    if !norm.active {
        return;
    }
    let shape = [norm.channels];
    for (part, parameter) in [("weight", &norm.weight), ("bias", &norm.bias)] {
        let values = match kind {
            StateKind::Model => &parameter.values,
            StateKind::Momentum => &parameter.momentum,
            StateKind::Ema => &parameter.average,
        };
        visit(kind, &format!("{}.{part}", norm.name), &shape, values);
    }
    let running = [("running_mean", Values::RunningMean), ("running_var", Values::RunningVariance)];
    for (index, (part, values)) in running.into_iter().enumerate() {
        let name = format!("{}.{part}", norm.name);
        match kind {
            StateKind::Model => visit(kind, &name, &shape, &norm.read(values)),
            StateKind::Ema => visit(kind, &name, &shape, &norm.running_average[index]),
            StateKind::Momentum => {}
        }
    }
}

/// Calls `visit` with the tensors of a convolution's state of one kind.
fn visit_convolution(conv: &TrainedConvolution, kind: StateKind, visit: &mut StateVisitor<'_>) {
    let tensors = match kind {
        StateKind::Model => conv.unpack(&conv.flat_values()),
        StateKind::Momentum => conv.unpack(&conv.momentum),
        StateKind::Ema => conv.unpack(&conv.average),
    };
    for (name, shape, values) in tensors {
        visit(kind, &name, &shape, &values);
    }
}

/// Writes one tensor of a norm's state; false if the norm has none of this name.
fn restore_norm(norm: &mut TrainedNorm, kind: StateKind, part: &str, values: &[f32]) -> bool {
    if !norm.active || values.len() != norm.channels {
        return false;
    }
    let running = match part {
        "running_mean" => Some((0, Values::RunningMean)),
        "running_var" => Some((1, Values::RunningVariance)),
        _ => None,
    };
    match (running, kind) {
        (Some((_, target)), StateKind::Model) => norm.set(target, |channel| values[channel]),
        (Some((index, _)), StateKind::Ema) => norm.running_average[index] = values.to_vec(),
        (Some(_), StateKind::Momentum) => return false,
        (None, _) => {
            let parameter = match part {
                "weight" => &mut norm.weight,
                "bias" => &mut norm.bias,
                _ => return false,
            };
            match kind {
                StateKind::Model => parameter.values = values.to_vec(),
                StateKind::Momentum => parameter.momentum = values.to_vec(),
                StateKind::Ema => parameter.average = values.to_vec(),
            }
        }
    }
    true
}

impl Executor for NetworkExecutor {
    fn forward_backward(&mut self, images: &[f32], labels: &[SoftLabel]) -> Result<StepLoss> {
        self.check_images(images, labels.len())?;
        self.prepare(labels.len());
        self.session = None;
        let Some(memory) = &self.memory else {
            return Err(Error::shape("batch", "memory for it", "none"));
        };
        let step = Step {
            graph: &self.graph,
            phases: &self.phases,
            memory,
            kernels: self.kernels,
            images,
            labels,
            label_smoothing: self.label_smoothing,
            loss: Mutex::new(Ok(StepLoss::default())),
        };
        self.region.run(&self.pool, &step)?;
        step.loss.into_inner().unwrap_or_else(|_| Err(Error::Panicked { message: "the loss was not computed".into() }))
    }

    fn gradient_norm(&self) -> f64 {
        let square = |values: &[f32]| values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
        let convolution = |conv: &TrainedConvolution| {
            let gradient = conv.gradient.read(0..1);
            let trained = if conv.has_bias { gradient.len() } else { gradient.len() - conv.values.bias.len() };
            square(&gradient[..trained])
        };
        let norm = |norm: &TrainedNorm| square(&norm.read(Values::WeightGradient)) + square(&norm.read(Values::BiasGradient));
        let convolutions: f64 = self.graph.convolutions.iter().map(convolution).sum();
        let norms: f64 = self.graph.norms.iter().filter(|norm| norm.active).map(norm).sum();
        (convolutions + norms).sqrt()
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        let step = MomentumStep { learning_rate: update.learning_rate, gradient_factor: update.gradient_scale, ..self.optimizer };
        let (kernels, decay) = (self.kernels, update.average_decay.filter(|_| self.keeps_average));
        let (convolutions, norms) = (&mut self.graph.convolutions, &mut self.graph.norms);
        // Tensors are independent, so the order does not matter.
        if self.pool.threads() == 1 {
            convolutions.iter_mut().for_each(|conv| conv.update(kernels, &step, decay));
        } else {
            self.pool.enter(|| convolutions.par_iter_mut().for_each(|conv| conv.update(kernels, &step, decay)));
        }
        norms.iter_mut().for_each(|norm| norm.update(kernels, &step, decay));
        self.session = None;
        Ok(())
    }

    fn forward(&mut self, images: &[f32], n: usize, logits: &mut [f32]) -> Result<()> {
        self.check_images(images, n)?;
        if logits.len() != n * self.classes() {
            return Err(Error::shape("logits", n * self.classes(), logits.len()));
        }
        if self.session.is_none() {
            let model = self.evaluated_model()?;
            let builder = Session::builder(&model).pool(self.pool.clone()).max_batch(EVALUATION_BATCH).isa(self.kernels.isa);
            self.session = Some(builder.build()?);
        }
        let [channels, height, width] = self.network.input();
        if let Some(session) = &mut self.session {
            let result = session.run(Images::nhwc_f32(images, [n, channels, height, width])?)?;
            logits.copy_from_slice(result.as_slice());
        }
        Ok(())
    }

    fn visit_state(&self, visit: &mut StateVisitor<'_>) {
        for kind in StateKind::ALL {
            if kind == StateKind::Ema && !self.keeps_average {
                continue;
            }
            self.graph.convolutions.iter().for_each(|conv| visit_convolution(conv, kind, visit));
            self.graph.norms.iter().for_each(|norm| visit_norm(norm, kind, visit));
        }
    }

    fn restore_state(&mut self, kind: StateKind, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        self.session = None;
        let fits = shape.iter().product::<usize>() == values.len();
        for conv in &mut self.graph.convolutions {
            let mut flat = match kind {
                StateKind::Model => conv.flat_values(),
                StateKind::Momentum => std::mem::take(&mut conv.momentum),
                StateKind::Ema => std::mem::take(&mut conv.average),
            };
            flat.resize(conv.momentum.len().max(super::weights::flat_length(&conv.values)), 0.0);
            let found = fits && conv.pack(&mut flat, name, shape, values);
            match kind {
                StateKind::Model if found => conv.set_flat_values(&flat),
                StateKind::Model => {}
                StateKind::Momentum => conv.momentum = flat,
                StateKind::Ema => conv.average = flat,
            }
            if found {
                return Ok(());
            }
        }
        for norm in &mut self.graph.norms {
            let part = name.strip_prefix(&norm.name).and_then(|rest| rest.strip_prefix('.')).map(str::to_string);
            if let Some(part) = part
                && shape == [norm.channels]
                && restore_norm(norm, kind, &part, values)
            {
                return Ok(());
            }
        }
        Err(Error::model(
            "state",
            format!("tensor `{name}`"),
            "a tensor of the network",
            format!("{}.{name} of shape {shape:?}", kind.prefix()),
        ))
    }

    fn first_non_finite(&self) -> Option<String> {
        let bad = |values: &[f32]| values.iter().any(|value| !value.is_finite());
        let norm_values = |norm: &TrainedNorm| {
            bad(&norm.weight.values) || bad(&norm.bias.values) || bad(&norm.read(Values::Mean)) || bad(&norm.read(Values::Scale))
        };
        for conv in &self.graph.convolutions {
            if bad(&conv.values.matrix) || bad(&conv.values.stencil) || bad(&conv.values.bias) {
                return Some(conv.name.clone());
            }
        }
        if let Some(norm) = self.graph.norms.iter().find(|norm| norm_values(norm)) {
            return Some(norm.name.clone());
        }
        self.graph.convolutions.iter().rev().find(|conv| bad(&conv.gradient.read(0..1))).map(|conv| conv.name.clone())
    }

    fn input(&self) -> [usize; 3] {
        self.network.input()
    }

    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn isa(&self) -> String {
        self.kernels.isa.to_string()
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }
}
