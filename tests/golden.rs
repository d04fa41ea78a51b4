//! Hashes of what the operators compute, made on one machine and held by every other: all instruction sets with fused
//! multiply-add, and the oracle, have the same bits. `LEANRESNET_BLESS=1` writes them anew.

mod common;
mod operators;

use common::guard::Edge;
use common::hash::Hash;
use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::reference::{dense_data_gradient, dense_weight_gradients, lean_data_gradient, lean_weight_gradients};
use leanresnet::{Isa, Stencil};
use operators::convolution::{Convolution, Finish, Weights};
use operators::elementwise::{Outputs, Problem, WORDS};
use operators::fill::Fill;
use operators::naive::{Reading, naive};
use operators::setup::{Place, run_whole};
use operators::{gradients, has_fused_multiply_add, transpose};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::slice::from_ref;

/// Who computes.
#[derive(Clone, Copy)]
enum Engine {
    Kernels(&'static Kernels),
    Oracle,
}

/// The hash of everything that an elementwise operator writes.
fn hash_of_outputs(outputs: &Outputs<f32>) -> u64 {
    let mut hash = Hash::new();
    hash.add_values(&outputs.values);
    hash.add_doubles(&outputs.sums);
    hash.value()
}

/// What one engine computes for every problem, by name.
fn hashes(engine: Engine) -> Result<BTreeMap<String, u64>, String> {
    let mut all = BTreeMap::new();
    for (index, problem) in convolutions().into_iter().enumerate() {
        let dy = Fill::Wide.inputs(index as u64, problem.output().elements(), 1);
        for (what, values) in convolution(engine, &problem, &dy)? {
            all.insert(format!("{what} {}", problem_name(&problem)), Hash::of(&values));
        }
    }
    for word in WORDS {
        for (index, (pixels, channels)) in [(3, 37), (17, 16), (4, 5)].into_iter().enumerate() {
            let problem = Problem::new(word, pixels, channels, index + 1, Fill::Uniform, 40 + index as u64);
            let outputs = match engine {
                Engine::Kernels(kernels) => problem.run(&kernels.f32.elementwise, Edge::End)?,
                Engine::Oracle => naive::<f32>(&problem, Reading::Values),
            };
            all.insert(format!("{word} {pixels}x{channels}"), hash_of_outputs(&outputs));
        }
    }
    Ok(all)
}

/// A problem's place in the list decides its data: what is new goes to the end.
fn convolutions() -> Vec<Convolution> {
    let (first_stencils, later_stencils) = Stencil::ALL.split_at(3);
    let mut list: Vec<Convolution> = first_stencils.iter().enumerate().flat_map(lean_convolutions).collect();
    for (index, geometry) in [(1, 1), (1, 2), (3, 1), (3, 2), (3, 4), (7, 1), (7, 2), (7, 4)].into_iter().enumerate() {
        let channels = [(33, 20), (3, 35), (5, 64)][index % 3];
        let image = [(7, 9), (6, 17)][index % 2];
        list.push(Convolution::dense(geometry, image, channels, Finish::number(index), Fill::Uniform, index as u64));
    }
    list.extend(later_stencils.iter().enumerate().flat_map(lean_convolutions));
    for (index, group_size) in [1, 2, 4, 8, 16, 32].into_iter().enumerate() {
        let (stencil, stride) = (Stencil::ALL[index], 1 + (index + 1) % 2);
        let (shape, finish) = ((5, 9, 32 + group_size), Finish::number(index));
        list.push(Convolution::grouped(stencil, (group_size, stride), shape, finish, Fill::Uniform, index as u64));
    }
    list
}

/// Groups and strides of lean convolutions have no gradients yet.
fn has_gradients(problem: &Convolution) -> bool {
    match &problem.weights {
        Weights::Lean(_, weights) => weights.group_size == 1 && problem.stride == 1,
        Weights::Dense(_) => true,
    }
}

fn lean_convolutions((index, stencil): (usize, &Stencil)) -> Vec<Convolution> {
    let shapes = [
        ((5, 9, 37), 11, Fill::Uniform),
        ((6, 15, 16), 4, Fill::Wide),
        ((1, 3, 70), 8, Fill::Cancelling),
        ((8, 8, 32), 0, Fill::Uniform),
    ];
    shapes.map(|(shape, finish, fill)| Convolution::lean(*stencil, shape, Finish::number(finish), fill, index as u64)).into()
}

fn problem_name(problem: &Convolution) -> String {
    let kind = match &problem.weights {
        Weights::Lean(stencil, _) if has_gradients(problem) => stencil.to_string(),
        Weights::Lean(stencil, weights) => format!("{stencil} groups of {} stride {}", weights.group_size, problem.stride),
        Weights::Dense(weights) => format!("dense{} stride {}", weights.kernel, weights.stride),
    };
    let (input, finish) = (problem.input, problem.finish);
    let scale = if finish.scale { ", scale" } else { "" };
    let relu = if finish.relu { ", relu" } else { "" };
    format!("{kind} {}x{}x{} to {}, {:?}{scale}{relu}", input.h, input.w, input.c, problem.output().c, finish.added)
}

/// Output, data gradient and gradients of the weights.
fn convolution(engine: Engine, problem: &Convolution, dy: &[f32]) -> Result<Vec<(&'static str, Vec<f32>)>, String> {
    let rows = 0..problem.output().h;
    let mut results = Vec::new();
    match engine {
        Engine::Kernels(kernels) => {
            results.push(("forward", run_whole(problem.kernel(kernels), problem, &Place::number(0))?));
            if !has_gradients(problem) {
                return Ok(results);
            }
            results.push(("data gradient", transpose::data_gradient(kernels, problem, dy, Edge::End)?));
            results.push(("matrix gradient", gradients::matrix::<f32>(kernels, problem, dy, Edge::End, from_ref(&rows))?));
            if matches!(problem.weights, Weights::Lean(..)) {
                let (spatial, bias) = gradients::stencil::<f32>(kernels, problem, dy, Edge::End, from_ref(&rows))?;
                results.extend([("stencil gradient", spatial), ("bias gradient", bias)]);
            }
        }
        Engine::Oracle => {
            results.push(("forward", problem.expected()));
            if !has_gradients(problem) {
                return Ok(results);
            }
            match &problem.weights {
                Weights::Lean(_, weights) => {
                    results.push(("data gradient", lean_data_gradient(dy, problem.input, weights)));
                    let gradients = lean_weight_gradients(&problem.x, dy, problem.input, &weights.taps);
                    results.push(("matrix gradient", gradients.pointwise));
                    results.extend([("stencil gradient", gradients.spatial), ("bias gradient", gradients.bias)]);
                }
                Weights::Dense(weights) => {
                    results.push(("data gradient", dense_data_gradient(dy, problem.input, weights)));
                    let gradients = dense_weight_gradients(&problem.x, dy, problem.input, weights);
                    results.push(("matrix gradient", gradients.weight));
                }
            }
        }
    }
    Ok(results)
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hashes.txt")
}

/// One line per problem: 16 hexadecimal digits and the name.
fn stored() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path()).unwrap_or_else(|error| panic!("read {}: {error}", path().display()));
    let line = |line: &str| {
        let (hash, name) = line.split_once(' ').expect("a hash and a name");
        (name.to_string(), u64::from_str_radix(hash, 16).expect("sixteen hexadecimal digits"))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

fn bless() {
    let isa = Isa::active().expect("a tier");
    assert!(has_fused_multiply_add(isa), "goldens come from a tier with fused multiply-add, not from {isa}");
    let kernels = Kernels::of(isa).expect("an available tier");
    let mut text = format!("# Written on {isa} by LEANRESNET_BLESS=1 cargo test --test golden; see tests/golden.rs.\n");
    for (name, hash) in hashes(Engine::Kernels(kernels)).expect("kernels run") {
        let _ = writeln!(text, "{hash:016x} {name}");
    }
    std::fs::write(path(), text).unwrap_or_else(|error| panic!("write {}: {error}", path().display()));
}

#[test]
fn every_tier_with_fused_multiply_add_has_the_stored_bits() {
    if std::env::var_os("LEANRESNET_BLESS").is_some_and(|value| value == "1") {
        bless();
    }
    let stored = stored();
    let tiers = Isa::available().filter(|isa| has_fused_multiply_add(*isa));
    let engines = tiers.map(|isa| (isa.name(), Engine::Kernels(Kernels::of(isa).expect("an available tier"))));
    for (name, engine) in engines.chain([("oracle", Engine::Oracle)]) {
        let computed = hashes(engine).unwrap_or_else(|message| panic!("{name}: {message}"));
        let different: Vec<&String> = computed.keys().filter(|key| stored.get(*key) != computed.get(*key)).collect();
        assert!(different.is_empty(), "{name} has other bits in {different:#?}");
        assert_eq!(computed.len(), stored.len(), "{name}: goldens of problems that are gone; write them anew");
    }
}

#[test]
fn the_hash_is_that_of_fowler_noll_and_vo() {
    // Their test vector "foobar", taken apart into four and two bytes.
    let mut hash = Hash::new();
    hash.add(u64::from(u32::from_le_bytes(*b"foob")), 4);
    hash.add(u64::from(u16::from_le_bytes(*b"ar")), 2);
    assert_eq!(hash.value(), 0x8594_4171_f739_67e8);
    assert_eq!(Hash::of(&[f32::NAN]), Hash::of(&[-f32::NAN]));
    assert_ne!(Hash::of(&[0.0]), Hash::of(&[-0.0]));
}
