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
const TARGETS: [Target; 2] = [
    Target { name: "cifar", run: leanresnet_fuzz::cifar, seeds: cifar_files },
    Target { name: "idx", run: leanresnet_fuzz::idx, seeds: idx_files },
];

fn cifar_files() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..3 * 32 * 32).map(|position| (position % 251) as u8).collect();
    let cifar10 = |labels: &[u8]| -> Vec<u8> {
        let records = labels.iter().flat_map(|&label| [&[label], &pixels[..]].concat());
        [0].into_iter().chain(records).collect()
    };
    vec![cifar10(&[3]), cifar10(&[0, 9]), [&[1, 19, 99], &pixels[..]].concat()]
}

fn idx_files() -> Vec<Vec<u8>> {
    let images: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4].into_iter().chain(0..24).collect();
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 2, 9, 4];
    vec![gzip(&images), gzip(&labels), images, labels]
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
fn idx() {
    replay_corpus(&TARGETS[1]);
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
