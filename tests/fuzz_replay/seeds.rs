//! Well-formed inputs of the fuzz targets.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use leanresnet::data::SoftLabel;
use leanresnet::net::parameters;
use leanresnet::train::{Executor, RunConfig, StateKind, StateVisitor, StepLoss, Trainer, Update};
use leanresnet::{Model, Network, Pool, Result};

use super::leanresnet_fuzz::small_network;

/// A run before its first step: an executor that has a state and never computes.
struct Resting(Model);

impl Executor for Resting {
    fn forward_backward(&mut self, _: &[f32], _: &[SoftLabel]) -> Result<StepLoss> {
        unreachable!("no step is taken")
    }
    fn gradient_norm(&self) -> f64 {
        0.0
    }
    fn update(&mut self, _: &Update) -> Result<()> {
        Ok(())
    }
    fn forward(&mut self, _: &[f32], _: usize, _: &mut [f32]) -> Result<()> {
        Ok(())
    }
    fn visit_state(&self, visit: &mut StateVisitor<'_>) {
        for spec in parameters(self.0.network().unwrap()) {
            let Some((shape, values)) = self.0.tensor(&spec.name) else { continue };
            visit(StateKind::Model, &spec.name, shape, values);
            if spec.role.is_trainable() {
                visit(StateKind::Momentum, &spec.name, shape, values);
            }
        }
    }
    fn restore_state(&mut self, _: StateKind, _: &str, _: &[usize], _: &[f32]) -> Result<()> {
        Ok(())
    }
    fn first_non_finite(&self) -> Option<String> {
        None
    }
    fn input(&self) -> [usize; 3] {
        self.0.input()
    }
    fn classes(&self) -> usize {
        self.0.classes()
    }
    fn isa(&self) -> String {
        "portable".to_owned()
    }
    fn pool(&self) -> Pool {
        Pool::inline()
    }
}

pub(crate) fn checkpoints() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let network = small_network();
    let executor = Box::new(Resting(Model::random(&network, 1)));
    let trainer = Trainer::with_executor(RunConfig::new(network), executor).expect("a valid configuration");
    trainer.with_training_images(1000).save(folder.path()).expect("a checkpoint");
    vec![fs::read(folder.path().join("last.ckpt")).expect("the checkpoint")]
}

pub(crate) fn cifar_files() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..3 * 32 * 32).map(|position| (position % 251) as u8).collect();
    let cifar10 = |labels: &[u8]| -> Vec<u8> {
        let records = labels.iter().flat_map(|&label| [&[label], &pixels[..]].concat());
        [0].into_iter().chain(records).collect()
    };
    vec![cifar10(&[3]), cifar10(&[0, 9]), [&[1, 19, 99], &pixels[..]].concat()]
}

pub(crate) fn configurations() -> Vec<Vec<u8>> {
    let detailed = r#"
        version = 1
        [network]
        input = [3, 32, 32]
        class_names = ["cat", "dog"]
        norm_epsilon = 1e-4
        stages = [{ width = 8, blocks = 2 }, { width = 16, blocks = 1, stencil = "cross4" }]
        stem = { kernel = 7, stride = 2 }
        block = { form = "symmetric", stencil = "box9", norms = 2, relu_after_sum = true, scale = 0.5 }
        connection = { form = "conv-pool" }
        [data]
        name = "cifar10"
        dir = "data"
        augment = { crop = 2, flip = false }
        [train]
        epochs = 2
        optimizer = { name = "sgd", momentum = 0.8 }
        schedule = { name = "multistep", lr = 0.1, milestones = [1], factor = 0.1 }
    "#;
    let presets = ["small", "base", "imagenet"].map(|name| Network::preset(name).expect("a preset").to_toml());
    let short = ["[network]\npreset = \"small\"\n".to_owned(), detailed.to_owned()];
    short.into_iter().chain(presets).map(String::into_bytes).collect()
}

pub(crate) fn idx_files() -> Vec<Vec<u8>> {
    let images: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4].into_iter().chain(0..24).collect();
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 2, 9, 4];
    vec![gzip(&images), gzip(&labels), images, labels]
}

pub(crate) fn state_dicts() -> Vec<Vec<u8>> {
    let model = Model::random(&small_network(), 1);
    let behind_map = |map: &str, file: &[u8]| [&[map.len() as u8], map.as_bytes(), file].concat();
    vec![
        behind_map("", &state_dict(&model, "")),
        behind_map("module.* = *\n", &state_dict(&model, "module.")),
        behind_map("# all but the head\nhead.* =\n", &state_dict(&model, "")),
    ]
}

/// The tensors of `model`, their names behind `prefix`, as a safetensors file of another program.
pub(crate) fn state_dict(model: &Model, prefix: &str) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    for spec in parameters(model.network().unwrap()) {
        let Some((shape, values)) = model.tensor(&spec.name) else { continue };
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let end = data.len();
        entries.push(format!(r#""{prefix}{}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#, spec.name));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

pub(crate) fn model_files() -> Vec<Vec<u8>> {
    let symmetric = "[network]\ninput = [1, 4, 4]\nclasses = 2\nstages = [{ width = 2, blocks = 1 }, { width = 4, blocks = 1 }]\n\
                     block = { form = \"symmetric\" }\n";
    let networks = [small_network(), Network::from_toml(symmetric).expect("a valid network")];
    networks.map(|network| Model::random(&network, 1).to_bytes().expect("a model fits into a file")).to_vec()
}

/// Arrays that NumPy made.
pub(crate) fn arrays() -> Vec<Vec<u8>> {
    vec![include_bytes!("../npy/float32.npy").to_vec(), include_bytes!("../npy/int32-big-endian.npy").to_vec()]
}

/// Archives that NumPy made.
pub(crate) fn archives() -> Vec<Vec<u8>> {
    vec![include_bytes!("../npy/uint8-deflated.npz").to_vec(), include_bytes!("../npy/float64-stored.npz").to_vec()]
}

pub(crate) fn pictures() -> Vec<Vec<u8>> {
    let picture = image::RgbImage::from_fn(7, 5, |x, y| image::Rgb([30 * x as u8, 40 * y as u8, 90]));
    let written = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("write to memory");
        bytes.into_inner()
    };
    [image::ImageFormat::Png, image::ImageFormat::Jpeg, image::ImageFormat::Pnm].map(written).to_vec()
}

/// An image (cut off by the replay's mutations, which are shorter), and labels.
pub(crate) fn stl10_files() -> Vec<Vec<u8>> {
    let image = (0..3 * 96 * 96).map(|position| (position % 251) as u8);
    vec![[0].into_iter().chain(image).collect(), vec![1, 3, 10, 1, 9]]
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("write to memory");
    encoder.finish().expect("write to memory")
}

/// One problem for every operator; what follows the choices are the bits of small numbers.
pub(crate) fn kernel_problems() -> Vec<Vec<u8>> {
    let numbers: Vec<u8> = (1..40).flat_map(|number| (number as f32 / 8.0 - 2.5).to_le_bytes()).collect();
    (0..4).map(|operator| [&[operator, 3, 17, 36, 40, 1, 1], &numbers[..]].concat()).collect()
}
