//! [`Executor`] for a [`Network`] whose activations have one type.
#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::time::Instant;

use super::graph::Graph;
use super::kernel_weights::Trained;
use super::memory::Memory;
use super::muon::{MuonStep, Workspaces};
use super::norm::{TrainedNorm, Values};
use super::rule::Rule;
use super::slots::Slots;
use super::step::{Phase, Step, phases};
use super::timing::{Between, Timer};
use super::weights::TrainedConvolution;
use super::{finite, state};
use crate::data::SoftLabel;
use crate::dispatch::Kernels;
use crate::error::{Error, Result};
use crate::exec::pool::Pool;
use crate::exec::region::Region;
use crate::isa::Isa;
use crate::net::{Images, LayerTiming, Model, Network, ParameterRole, Session, parameters};
use crate::train::loss::{StepLoss, check_label};
use crate::train::{Executor, GradientVisitor, OptimizerConfig, StateKind, StateVisitor, TrainConfig, Update};

/// Trains a network on the threads of a pool, with activations of a type.
pub(super) struct TypedExecutor<T: Trained> {
    network: Network,
    graph: Graph<T>,
    slots: Slots,
    phases: Vec<Phase>,
    memory: Option<Memory<T>>,
    /// Of Muon's matrices; none for other rules.
    workspaces: Option<Workspaces>,
    /// Images that `memory` holds.
    capacity: usize,
    /// Images of the last batch.
    images: usize,
    workers: usize,
    region: Region,
    pool: Pool,
    kernels: &'static Kernels,
    optimizer: OptimizerConfig,
    label_smoothing: f64,
    keeps_average: bool,
    timer: Option<Timer>,
    /// Evaluation, made from the state when it is asked for and dropped when the state changes.
    session: Option<Session>,
}

/// Images that an evaluation runs at a time.
const EVALUATION_BATCH: usize = 64;

impl<T: Trained> TypedExecutor<T> {
    /// See [`NetworkExecutor::new`](super::NetworkExecutor::new).
    pub(super) fn new(network: &Network, config: &TrainConfig, pool: Pool, isa: Isa) -> Result<Self> {
        config.optimizer.validate()?;
        if let Some(stage) = network.stages().iter().find(|stage| stage.block.group_size != 1) {
            return Err(Error::invalid("network.block.group_size: not supported yet in training", "1", stage.block.group_size));
        }
        let kernels = Kernels::of(isa)?;
        let graph = Graph::new(network, kernels)?;
        let workspaces = workspaces(&graph, &config.optimizer, pool.threads());
        let mut executor = TypedExecutor {
            network: network.clone(),
            phases: phases(&graph, config.recompute),
            slots: Slots::new(&graph, config.recompute),
            graph,
            memory: None,
            workspaces,
            capacity: 0,
            images: 0,
            workers: 0,
            region: Region::default(),
            pool,
            kernels,
            optimizer: config.optimizer.clone(),
            label_smoothing: config.label_smoothing,
            keeps_average: config.ema > 0.0,
            timer: None,
            session: None,
        };
        executor.set_model(&Model::random(network, config.seed))?;
        Ok(executor)
    }

    /// See [`NetworkExecutor::training_bytes`](super::NetworkExecutor::training_bytes).
    pub(super) fn training_bytes(network: &Network, config: &TrainConfig, threads: usize) -> Result<usize> {
        let mut graph = Graph::<T>::new(network, Kernels::of(Isa::Portable)?)?;
        graph.convolutions.iter_mut().for_each(|conv| conv.restart(&config.optimizer, config.ema > 0.0));
        let weights: usize = graph.convolutions.iter().map(TrainedConvolution::bytes).sum();
        let workspaces = workspaces(&graph, &config.optimizer, threads).as_ref().map_or(0, Workspaces::bytes);
        let slots = Slots::new(&graph, config.recompute);
        Ok(weights + workspaces + Memory::<T>::bytes(&graph, &slots, network.input(), config.batch, threads))
    }

    /// Makes room for a batch. Memory grows to the largest batch seen and stays.
    fn prepare(&mut self, images: usize) {
        let workers = self.pool.threads();
        if images > self.capacity || workers > self.workers || self.memory.is_none() {
            self.capacity = images.max(self.capacity);
            self.workers = workers;
            // Free the old buffers before the new ones are made.
            self.memory = None;
            self.memory = Some(Memory::new(&self.graph, &self.slots, self.network.input(), self.capacity, workers));
        }
    }

    fn check_images(&self, images: &[f32], count: usize) -> Result<()> {
        let [channels, height, width] = self.network.input();
        let values = count * channels * height * width;
        if images.len() == values && count > 0 {
            return Ok(());
        }
        let expected = match count {
            0 => "at least one image".to_string(),
            _ => format!("{values} values ({count} x {height} x {width} x {channels})"),
        };
        Err(Error::shape("images", expected, format!("{} values", images.len())))
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

/// What [`NetworkExecutor`](super::NetworkExecutor) has beside an [`Executor`], whatever the type of activations.
pub(super) trait TypedNetworkExecutor: Executor {
    fn set_model(&mut self, model: &Model) -> Result<()>;

    fn visit_gradients(&self, visit: &mut GradientVisitor<'_>);

    fn start_timing(&mut self);

    fn timings(&self) -> Vec<LayerTiming>;

    fn reset_timings(&mut self);

    fn kernels(&self) -> Vec<(String, Vec<&'static str>)>;
}

impl<T: Trained> TypedNetworkExecutor for TypedExecutor<T> {
    fn set_model(&mut self, model: &Model) -> Result<()> {
        for parameter in parameters(&self.network).iter().filter(|parameter| parameter.role != ParameterRole::NumBatchesTracked) {
            let Some((shape, values)) = model.tensor(&parameter.name) else {
                return Err(Error::model("model", format!("tensor {}", parameter.name), "one, as the network has", "none"));
            };
            self.restore_state(StateKind::Model, &parameter.name, shape, values)?;
        }
        let keeps_average = self.keeps_average;
        self.graph.convolutions.iter_mut().for_each(|conv| conv.restart(&self.optimizer, keeps_average));
        self.graph.norms.iter_mut().for_each(|norm| norm.restart(&self.optimizer, keeps_average));
        Ok(())
    }

    fn visit_gradients(&self, visit: &mut GradientVisitor<'_>) {
        state::visit_gradients(&self.graph, visit);
    }

    fn timings(&self) -> Vec<LayerTiming> {
        self.timer.as_ref().map_or_else(Vec::new, |timer| timer.timings(&self.graph, self.kernels, self.pool.threads()))
    }

    fn reset_timings(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.reset();
        }
    }

    fn kernels(&self) -> Vec<(String, Vec<&'static str>)> {
        let kernels = |conv: &TrainedConvolution<T>| {
            let stencil = conv.separated.as_ref().map(|_| conv.kernel.name);
            let matrix = [conv.matrix_kernel(self.kernels), conv.weight_gradient_kernel(self.kernels)];
            stencil.into_iter().chain(matrix).chain(conv.stencil_gradient.map(|kernel| kernel.name)).collect()
        };
        self.graph.convolutions.iter().map(|conv| (conv.name.clone(), kernels(conv))).collect()
    }

    fn start_timing(&mut self) {
        self.timer = Some(Timer::new(&self.graph));
    }
}

/// Those of the matrices that the optimiser treats by a rule of their own; none for most optimisers.
fn workspaces<T: Trained>(graph: &Graph<T>, optimizer: &OptimizerConfig, threads: usize) -> Option<Workspaces> {
    matches!(optimizer, OptimizerConfig::Muon { .. }).then(|| {
        let hidden = graph.convolutions.iter().filter(|conv| conv.is_hidden());
        Workspaces::new(hidden.map(TrainedConvolution::matrix_shape), threads)
    })
}

impl<T: Trained> Executor for TypedExecutor<T> {
    fn forward_backward(&mut self, images: &[f32], labels: &[SoftLabel]) -> Result<StepLoss> {
        self.check_images(images, labels.len())?;
        labels.iter().try_for_each(|label| check_label(label, self.network.classes()))?;
        self.prepare(labels.len());
        self.images = labels.len();
        self.session = None;
        if let Some(timer) = &mut self.timer {
            timer.begin_step(labels.len(), self.workers);
        }
        let Some(memory) = &self.memory else {
            return Err(Error::shape("batch", "memory for it", "none"));
        };
        let step = Step {
            graph: &self.graph,
            slots: &self.slots,
            phases: &self.phases,
            memory,
            kernels: self.kernels,
            images,
            channels: self.network.input()[0],
            labels,
            label_smoothing: self.label_smoothing,
            loss: Mutex::new(Ok(StepLoss::default())),
            timer: self.timer.as_ref(),
        };
        self.region.run(&self.pool, &step)?;
        step.loss.into_inner().unwrap_or_else(|_| Err(Error::Panicked { message: "the loss was not computed".into() }))
    }

    fn gradient_norm(&self) -> f64 {
        let square = |values: &[f32]| values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
        let convolution = |conv: &TrainedConvolution<T>| {
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
        let start = Instant::now();
        let rule = Rule::new(&self.optimizer, update);
        let muon = MuonStep::new(&self.optimizer, update);
        let muon = muon.as_ref().zip(self.workspaces.as_ref());
        let (kernels, decay) = (self.kernels, update.average_decay.filter(|_| self.keeps_average));
        let (convolutions, norms) = (&mut self.graph.convolutions, &mut self.graph.norms);
        // Tensors are independent, so the order does not matter.
        self.pool.try_for_each(&mut convolutions[..], |conv| {
            conv.update(kernels, &rule, muon, decay);
            Ok(())
        })?;
        for norm in norms {
            norm.update(kernels, &rule, decay);
        }
        if let Some(timer) = &self.timer {
            timer.add_for_all(Between::Update, start.elapsed(), self.pool.threads());
        }
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
        state::visit(&self.graph, self.keeps_average, visit);
    }

    fn restore_state(&mut self, kind: StateKind, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        self.session = None;
        let is_kept = kind != StateKind::Ema || self.keeps_average;
        if is_kept && state::restore(&mut self.graph, kind, name, shape, values) {
            return Ok(());
        }
        let got = format!("{}.{name} of shape {shape:?} with {} values", kind.prefix(), values.len());
        Err(Error::model("state", format!("tensor `{name}`"), "a tensor of the network", got))
    }

    fn first_non_finite(&self) -> Option<String> {
        finite::first_non_finite(&self.graph, self.memory.as_ref(), self.images)
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

    fn pool(&self) -> Pool {
        self.pool.clone()
    }
}
