//! The fuzz targets of `fuzz/` on a corpus that is the same every time: well-formed inputs written here, and mutations of them.
//!
//! `cargo test --test fuzz_replay -- --ignored` writes the well-formed inputs to `fuzz/corpus`, where cargo-fuzz starts from.
#![forbid(unsafe_code)]

#[path = "../../fuzz/src/lib.rs"]
pub mod leanresnet_fuzz;
mod onnx_seeds;
mod seeds;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use leanresnet::train::RunConfig;
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
const TARGETS: [Target; 8] = [
    Target { name: "checkpoint", run: leanresnet_fuzz::checkpoint, seeds: seeds::checkpoints },
    Target { name: "cifar", run: leanresnet_fuzz::cifar, seeds: seeds::cifar_files },
    Target { name: "config", run: leanresnet_fuzz::config, seeds: seeds::configurations },
    Target { name: "idx", run: leanresnet_fuzz::idx, seeds: seeds::idx_files },
    Target { name: "import", run: leanresnet_fuzz::import, seeds: seeds::state_dicts },
    Target { name: "kernels", run: leanresnet_fuzz::kernels, seeds: seeds::kernel_problems },
    Target { name: "model", run: leanresnet_fuzz::model, seeds: seeds::model_files },
    Target { name: "onnx", run: leanresnet_fuzz::onnx, seeds: onnx_seeds::onnx_models },
];

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
fn checkpoint() {
    replay_corpus(&TARGETS[0]);
}

#[test]
fn cifar() {
    replay_corpus(&TARGETS[1]);
}

#[test]
fn config() {
    replay_corpus(&TARGETS[2]);
}

#[test]
fn idx() {
    replay_corpus(&TARGETS[3]);
}

#[test]
fn import() {
    replay_corpus(&TARGETS[4]);
}

#[test]
fn kernels() {
    replay_corpus(&TARGETS[5]);
}

#[test]
fn model() {
    replay_corpus(&TARGETS[6]);
}

#[test]
fn onnx() {
    replay_corpus(&TARGETS[7]);
}

/// A corpus whose inputs are all refused at the door would test little.
#[test]
fn the_seeds_are_accepted() {
    for seed in seeds::model_files() {
        Model::from_bytes(&seed).expect("a model");
    }
    for seed in seeds::configurations() {
        let text = str::from_utf8(&seed).expect("text");
        Network::from_toml(text).expect("a network");
        RunConfig::from_toml(text).expect("a training run");
    }
    for seed in onnx_seeds::onnx_models() {
        leanresnet::onnx::import(&seed, "seed").expect("an ONNX model");
    }
    let folder = tempfile::tempdir().expect("a folder");
    for seed in seeds::checkpoints() {
        let path = folder.path().join("last.ckpt");
        fs::write(&path, seed).expect("write a file");
        leanresnet::train::model_of_checkpoint(&path).expect("a checkpoint");
    }
    let network = leanresnet_fuzz::small_network();
    let file = seeds::state_dict(&Model::random(&network, 1), "");
    let report = leanresnet::net::import(&file, "seed", &network, &[]).expect("a state dict");
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
