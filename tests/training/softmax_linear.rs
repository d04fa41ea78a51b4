//! A small executor in plain Rust: logits = weight (image - mean) + bias, with the mean of the batch in training and the running mean
//! in evaluation, SGD with momentum, and a moving average.
//!
//! Weight, bias and running mean are the network's `head.weight`, `head.bias` and `stem.norm.running_mean`, for images with as many
//! values as the network is wide; its other tensors are carried along.

use std::sync::{Arc, Mutex};

use leanresnet::data::SoftLabel;
use leanresnet::net::{ParameterSpec, parameters};
use leanresnet::train::{
    Executor, OptimizerConfig, RunConfig, StateKind, StateVisitor, StepLoss, Update, softmax_cross_entropy, update_average,
};
use leanresnet::{Error, Model, Pool, Result};

/// A named tensor with everything that is kept about it.
struct Parameter {
    name: String,
    shape: Vec<usize>,
    value: Vec<f32>,
    gradient: Vec<f32>,
    /// Empty for what is not trained.
    momentum: Vec<f32>,
    /// Empty where no average is kept.
    average: Vec<f32>,
}

impl Parameter {
    fn state(&self) -> [(StateKind, &Vec<f32>); 3] {
        [(StateKind::Model, &self.value), (StateKind::Momentum, &self.momentum), (StateKind::Ema, &self.average)]
    }

    fn state_mut(&mut self, kind: StateKind) -> &mut Vec<f32> {
        match kind {
            StateKind::Model => &mut self.value,
            StateKind::Momentum => &mut self.momentum,
            _ => &mut self.average,
        }
    }
}

pub(crate) struct SoftmaxLinear {
    input: [usize; 3],
    classes: usize,
    smoothing: f64,
    momentum: f32,
    weight_decay: f32,
    parameters: Vec<Parameter>,
    updates: u64,
    /// The bias becomes infinite in the update after so many.
    pub(crate) poisoned_after: Option<u64>,
    pub(crate) isa: &'static str,
    /// What the trainer asked for, step by step.
    pub(crate) asked: Arc<Mutex<Vec<Update>>>,
}

impl SoftmaxLinear {
    pub(crate) fn new(config: &RunConfig) -> Self {
        let OptimizerConfig::Sgd { momentum, weight_decay, .. } = config.train.optimizer else { panic!("SGD only") };
        let model = Model::random(&config.network, config.train.seed);
        let parameter = |spec: ParameterSpec| {
            let (shape, value) = model.tensor(&spec.name)?;
            let zeros = if spec.name.starts_with("head.") { vec![0.0; value.len()] } else { Vec::new() };
            let average = if config.train.ema > 0.0 { value.to_vec() } else { Vec::new() };
            let (shape, value) = (shape.to_vec(), value.to_vec());
            Some(Parameter { name: spec.name, shape, value, gradient: zeros.clone(), momentum: zeros, average })
        };
        Self {
            input: config.network.input(),
            classes: config.network.classes(),
            smoothing: config.train.label_smoothing,
            momentum: momentum as f32,
            weight_decay: weight_decay as f32,
            parameters: parameters(&config.network).into_iter().filter_map(parameter).collect(),
            updates: 0,
            poisoned_after: None,
            isa: "portable",
            asked: Arc::default(),
        }
    }

    fn parameter(&mut self, name: &str) -> &mut Parameter {
        self.parameters.iter_mut().find(|parameter| parameter.name == name).expect("a tensor of the network")
    }

    fn size(&self) -> usize {
        self.input.iter().product()
    }

    fn logits(image: &[f32], weight: &[f32], bias: &[f32], mean: &[f32], logits: &mut [f32]) {
        for ((logit, row), bias) in logits.iter_mut().zip(weight.chunks_exact(image.len())).zip(bias) {
            *logit = row.iter().zip(image).zip(mean).fold(*bias, |sum, ((w, x), m)| sum + w * (x - m));
        }
    }
}

impl Executor for SoftmaxLinear {
    fn forward_backward(&mut self, images: &[f32], labels: &[SoftLabel]) -> Result<StepLoss> {
        let (size, classes, n) = (self.size(), self.classes, labels.len());
        assert_eq!(images.len(), n * size);
        let mut mean = vec![0.0; size];
        for image in images.chunks_exact(size) {
            mean.iter_mut().zip(image).for_each(|(mean, x)| *mean += x / n as f32);
        }
        let running = &mut self.parameter("stem.norm.running_mean").value;
        running.iter_mut().zip(&mean).for_each(|(running, mean)| *running += 0.1 * (mean - *running));
        let [weight, bias] = ["head.weight", "head.bias"].map(|name| self.parameter(name).value.clone());
        let mut logits = vec![0.0; n * classes];
        for (image, logits) in images.chunks_exact(size).zip(logits.chunks_exact_mut(classes)) {
            Self::logits(image, &weight, &bias, &mean, logits);
        }
        let mut gradient = vec![0.0; logits.len()];
        let loss = softmax_cross_entropy(&logits, labels, classes, self.smoothing, &mut gradient)?;
        let (mut weight, mut bias) = (vec![0.0; weight.len()], vec![0.0; classes]);
        for (image, gradient) in images.chunks_exact(size).zip(gradient.chunks_exact(classes)) {
            for (class, g) in gradient.iter().enumerate() {
                bias[class] += g;
                for (position, sum) in weight[class * size..][..size].iter_mut().enumerate() {
                    *sum += g * (image[position] - mean[position]);
                }
            }
        }
        self.parameter("head.weight").gradient = weight;
        self.parameter("head.bias").gradient = bias;
        Ok(loss)
    }

    fn gradient_norm(&self) -> f64 {
        let gradients = self.parameters.iter().flat_map(|parameter| &parameter.gradient);
        gradients.map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt()
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        self.asked.lock().unwrap().push(*update);
        for parameter in &mut self.parameters {
            let decay = if parameter.name == "head.weight" { self.weight_decay } else { 0.0 };
            let gradients = parameter.gradient.iter().zip(&mut parameter.momentum);
            for (value, (&gradient, momentum)) in parameter.value.iter_mut().zip(gradients) {
                *momentum = self.momentum * *momentum + gradient * update.gradient_scale + decay * *value;
                *value -= update.learning_rate * *momentum;
            }
            if self.poisoned_after == Some(self.updates) && parameter.name == "head.bias" {
                parameter.value[0] = f32::INFINITY;
            }
            if let Some(decay) = update.average_decay {
                update_average(&mut parameter.average, &parameter.value, decay);
            }
        }
        self.updates += 1;
        Ok(())
    }

    fn forward(&mut self, images: &[f32], n: usize, logits: &mut [f32]) -> Result<()> {
        assert_eq!((images.len(), logits.len()), (n * self.size(), n * self.classes));
        let [weight, bias, mean] = ["head.weight", "head.bias", "stem.norm.running_mean"].map(|name| {
            let parameter = self.parameter(name);
            if parameter.average.is_empty() { parameter.value.clone() } else { parameter.average.clone() }
        });
        for (image, logits) in images.chunks_exact(self.size()).zip(logits.chunks_exact_mut(self.classes)) {
            Self::logits(image, &weight, &bias, &mean, logits);
        }
        Ok(())
    }

    fn visit_state(&self, visit: &mut StateVisitor<'_>) {
        for parameter in &self.parameters {
            for (kind, values) in parameter.state().into_iter().filter(|(_, values)| !values.is_empty()) {
                visit(kind, &parameter.name, &parameter.shape, values);
            }
        }
    }

    fn restore_state(&mut self, kind: StateKind, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        let found = self.parameters.iter_mut().find(|parameter| parameter.name == name && parameter.shape == shape);
        let missing = || Error::Model {
            source_name: "state".to_owned(),
            what: name.to_owned(),
            expected: "a tensor of the network".to_owned(),
            got: format!("{shape:?}"),
        };
        found.ok_or_else(missing)?.state_mut(kind).copy_from_slice(values);
        Ok(())
    }

    fn first_non_finite(&self) -> Option<String> {
        let bad = |parameter: &&Parameter| parameter.value.iter().any(|value| !value.is_finite());
        self.parameters.iter().find(bad).map(|parameter| parameter.name.clone())
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn isa(&self) -> String {
        self.isa.to_owned()
    }

    fn pool(&self) -> Pool {
        Pool::inline()
    }
}
