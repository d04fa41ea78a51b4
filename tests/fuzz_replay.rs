//! The fuzz targets of `fuzz/` on a corpus that is the same every time: well-formed inputs written here, and mutations of them.
//!
//! `cargo test --test fuzz_replay -- --ignored` writes the well-formed inputs to `fuzz/corpus`, where cargo-fuzz starts from.
#![forbid(unsafe_code)]

#[path = "../fuzz/src/lib.rs"]
pub mod leanresnet_fuzz;

use std::fs;
use std::io::Write;
use std::panic::catch_unwind;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use leanresnet::net::parameters;
use leanresnet::{Model, Network};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Mutated inputs per target.
const MUTATIONS: usize = 2_000;
/// Longer mutations are cut off.
const MAX_BYTES: usize = 16 << 10;

/// A fuzz target, and inputs that its reader accepts.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets, in alphabetical order.
const TARGETS: [Target; 5] = [
    Target { name: "cifar", run: leanresnet_fuzz::cifar, seeds: cifar_files },
    Target { name: "config", run: leanresnet_fuzz::config, seeds: configurations },
    Target { name: "idx", run: leanresnet_fuzz::idx, seeds: idx_files },
    Target { name: "import", run: leanresnet_fuzz::import, seeds: state_dicts },
    Target { name: "model", run: leanresnet_fuzz::model, seeds: model_files },
];

fn cifar_files() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..3 * 32 * 32).map(|position| (position % 251) as u8).collect();
    let cifar10 = |labels: &[u8]| -> Vec<u8> {
        let records = labels.iter().flat_map(|&label| [&[label], &pixels[..]].concat());
        [0].into_iter().chain(records).collect()
    };
    vec![cifar10(&[3]), cifar10(&[0, 9]), [&[1, 19, 99], &pixels[..]].concat()]
}

fn configurations() -> Vec<Vec<u8>> {
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
        [train]
        epochs = 2
    "#;
    let presets = ["small", "base", "imagenet"].map(|name| Network::preset(name).expect("a preset").to_toml());
    let short = ["[network]\npreset = \"small\"\n".to_owned(), detailed.to_owned()];
    short.into_iter().chain(presets).map(String::into_bytes).collect()
}

fn idx_files() -> Vec<Vec<u8>> {
    let images: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4].into_iter().chain(0..24).collect();
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 2, 9, 4];
    vec![gzip(&images), gzip(&labels), images, labels]
}

fn state_dicts() -> Vec<Vec<u8>> {
    let model = Model::random(&leanresnet_fuzz::small_network(), 1);
    let behind_map = |map: &str, file: &[u8]| [&[map.len() as u8], map.as_bytes(), file].concat();
    vec![
        behind_map("", &state_dict(&model, "")),
        behind_map("module.* = *\n", &state_dict(&model, "module.")),
        behind_map("# all but the head\nhead.* =\n", &state_dict(&model, "")),
    ]
}

/// The tensors of `model`, their names behind `prefix`, as a safetensors file of another program.
fn state_dict(model: &Model, prefix: &str) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    for spec in parameters(model.network()) {
        let Some((shape, values)) = model.tensor(&spec.name) else { continue };
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let end = data.len();
        entries.push(format!(r#""{prefix}{}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#, spec.name));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn model_files() -> Vec<Vec<u8>> {
    let symmetric = "[network]\ninput = [1, 4, 4]\nclasses = 2\nstages = [{ width = 2, blocks = 1 }, { width = 4, blocks = 1 }]\n\
                     block = { form = \"symmetric\" }\n";
    let networks = [leanresnet_fuzz::small_network(), Network::from_toml(symmetric).expect("a valid network")];
    networks.map(|network| Model::random(&network, 1).to_bytes().expect("a model fits into a file")).to_vec()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("write to memory");
    encoder.finish().expect("write to memory")
}

/// Changes `input` in one of the ways that find mistakes in readers.
fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut ChaCha8Rng) {
    let mut below = |limit: usize| random.next_u32() as usize % limit.max(1);
    let position = below(input.len() + 1);
    let end = position + below((input.len() - position).min(64) + 1);
    match below(8) {
        0 => input.truncate(position),
        1 => drop(input.drain(position..end)),
        2 => {
            let copy = input[position..end].to_vec();
            input.splice(position..position, copy);
        }
        3 => {
            let other = &others[below(others.len())];
            let start = below(other.len());
            input.splice(position.., other[start..].iter().copied());
        }
        // Sizes and offsets: a whole little-endian or big-endian word of an extreme value.
        4 => {
            let word = [0, 1, 0x7f, u32::MAX >> 1, u32::MAX - 1, u32::MAX, 1 << 31, 1 << 20][below(8)];
            let bytes = if below(2) == 0 { word.to_le_bytes() } else { word.to_be_bytes() };
            input.splice(position..input.len().min(position + 4), bytes);
        }
        5 => input.insert(position, below(256) as u8),
        _ if position < input.len() => match below(3) {
            0 => input[position] ^= 1 << below(8),
            1 => input[position] = [0, 1, 9, b'"', b'{', b'0', 0x7f, 0xff][below(8)],
            _ => input[position] = below(256) as u8,
        },
        _ => {}
    }
    input.truncate(MAX_BYTES);
}

fn replay(target: &Target, input: &[u8], origin: &str) {
    if catch_unwind(|| (target.run)(input)).is_err() {
        let shown = input.escape_ascii().to_string();
        panic!("target {} fails on {origin}, {} bytes: {:.2000}", target.name, input.len(), shown);
    }
}

fn replay_corpus(target: &Target) {
    let seeds = (target.seeds)();
    replay(target, &[], "the empty input");
    for (index, seed) in seeds.iter().enumerate() {
        replay(target, seed, &format!("seed {index}"));
    }
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for index in 0..MUTATIONS {
        let mut input = seeds[index % seeds.len()].clone();
        for _ in 0..=random.next_u32() % 4 {
            mutate(&mut input, &seeds, &mut random);
        }
        replay(target, &input, &format!("mutation {index}"));
    }
}

#[test]
fn cifar() {
    replay_corpus(&TARGETS[0]);
}

#[test]
fn config() {
    replay_corpus(&TARGETS[1]);
}

#[test]
fn idx() {
    replay_corpus(&TARGETS[2]);
}

#[test]
fn import() {
    replay_corpus(&TARGETS[3]);
}

#[test]
fn model() {
    replay_corpus(&TARGETS[4]);
}

/// A corpus whose inputs are all refused at the door would test little.
#[test]
fn the_seeds_are_accepted() {
    for seed in model_files() {
        assert!(Model::from_bytes(&seed).is_ok());
    }
    for seed in configurations() {
        assert!(Network::from_toml(str::from_utf8(&seed).expect("text")).is_ok());
    }
    let file = state_dict(&Model::random(&leanresnet_fuzz::small_network(), 1), "");
    let report = leanresnet::net::import(&file, "seed", &leanresnet_fuzz::small_network(), &[]).expect("a state dict");
    assert!(report.model.is_some());
}

#[test]
fn every_fuzz_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut files: Vec<String> = fs::read_dir(folder.join("fuzz_targets"))
        .expect("the fuzz targets")
        .map(|entry| entry.expect("a readable folder").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS.map(|target| target.name.to_owned()));
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("the manifest");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"\n", target.name)), "{} is no binary of fuzz/Cargo.toml", target.name);
    }
}

#[test]
#[should_panic(expected = "target broken fails on seed 0, 3 bytes: a\\x00b")]
fn a_target_that_panics_is_reported_with_its_input() {
    replay_corpus(&Target { name: "broken", run: |data| assert!(data.is_empty()), seeds: || vec![b"a\0b".to_vec()] });
}

#[test]
#[ignore = "writes files: where cargo-fuzz starts from"]
fn write_corpus() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        fs::create_dir_all(&folder).expect("create the corpus");
        for (index, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{index}")), seed).expect("write a seed");
        }
    }
}
