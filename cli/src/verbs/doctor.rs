//! `leanresnet doctor`: what this machine and this build can do, and what is wrong with them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use leanresnet::{Calibration, Isa, Pool, Precision, build_info, load_peak_gflops, machine, peak_gflops};
use serde::Serialize;

use crate::bandwidth::{Bandwidths, Level};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::table;

/// How long the peak of an instruction set is measured.
const PEAK_TIME: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Answer {
    version: &'static str,
    commit: Option<&'static str>,
    compiler: Option<&'static str>,
    c_kernels: bool,
    isas: Vec<&'static str>,
    isa: &'static str,
    threads: usize,
    threads_from: &'static str,
    cpu: String,
    caches: BTreeMap<String, u64>,
    /// Whether AVX-512 convolutions of 64 channels and more use tiles of two panels.
    wide_tiles: bool,
    peak_gflops: BTreeMap<&'static str, f64>,
    load_peak_gflops: BTreeMap<&'static str, f64>,
    bandwidth_gbs: f64,
    /// What `--dtype auto` is here, and the speeds of a lean convolution that say so; none without kernels of bf16.
    auto_dtype: &'static str,
    /// The same for `--dtype auto-near-f32`.
    auto_near_f32_dtype: &'static str,
    calibration_gflops: BTreeMap<&'static str, f64>,
    profile: &'static str,
    warnings: Vec<String>,
}

/// Examines and measures; takes about a second.
pub fn run(context: &Context<'_>) -> Outcome {
    let isa = context.isa()?;
    let calibration = Calibration::of(context.isa_for(Precision::Auto)?)?;
    let (threads, threads_from) = context.threads()?;
    let answer = Answer {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("LEANRESNET_COMMIT"),
        compiler: build_info::c_compiler(),
        c_kernels: !build_info::compiled_isas().is_empty(),
        isas: Isa::available().map(Isa::name).collect(),
        isa: isa.name(),
        threads,
        threads_from,
        cpu: machine::processor(),
        caches: machine::caches(),
        wide_tiles: machine::prefers_wide_tiles(),
        peak_gflops: peaks(peak_gflops)?,
        load_peak_gflops: peaks(load_peak_gflops)?,
        bandwidth_gbs: Bandwidths::new().gbs(Level::Memory, 1),
        auto_dtype: calibration.map_or(Precision::F32, |calibration| calibration.precision()).name(),
        auto_near_f32_dtype: calibration.map_or(Precision::F32, |calibration| calibration.near_f32()).name(),
        calibration_gflops: calibration.map_or_else(BTreeMap::new, |rates| {
            let rate = |precision: Precision, gflops: Option<f64>| gflops.map(|gflops| (precision.name(), gflops));
            let rates = [
                rate(Precision::F32, Some(rates.f32_gflops)),
                rate(Precision::Bf16, Some(rates.bf16_gflops)),
                rate(Precision::Bf16x3, rates.bf16x3_gflops),
            ];
            rates.into_iter().flatten().collect()
        }),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        warnings: warnings(isa, threads),
    };
    context.output.answer(&answer, || text(&answer, calibration))?;
    Ok(0)
}

/// The instruction sets with kernels of f32 of their own, and portable Rust.
fn tiers() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|isa| isa.base() == *isa)
}

/// The peak of one thread in f32 on every instruction set with kernels, by what measures it.
fn peaks(measure: fn(&Pool, Isa, Duration) -> leanresnet::Result<Option<f64>>) -> Result<BTreeMap<&'static str, f64>, Failure> {
    let mut peaks = BTreeMap::new();
    for isa in tiers() {
        if let Some(gflops) = measure(&Pool::inline(), isa, PEAK_TIME)? {
            peaks.insert(isa.name(), gflops);
        }
    }
    Ok(peaks)
}

/// What keeps this build or this call from being as fast as the machine.
fn warnings(isa: Isa, threads: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let notes = build_info::kernel_notes();
    if build_info::compiled_isas().is_empty() {
        let remedy = "install a C compiler and build again";
        warnings.push(format!("no C kernels: everything runs on portable Rust, which is slower ({notes}); {remedy}"));
    } else if !notes.is_empty() {
        warnings.push(notes.to_owned());
    }
    if cfg!(debug_assertions) {
        warnings.push("debug build: build with --release".to_owned());
    }
    let best = tiers().max().unwrap_or(Isa::Portable);
    if isa < best {
        warnings.push(format!("instruction set {isa} is in force although {best} is available"));
    }
    if isa == Isa::Portable && cfg!(all(target_arch = "x86_64", not(target_feature = "fma"))) {
        let note = "portable code without fused multiply-add: results differ in their last bits from those of the C kernels";
        warnings.push(note.to_owned());
    }
    if threads == 1 {
        warnings.push("one thread".to_owned());
    }
    warnings
}

fn text(answer: &Answer, calibration: Option<Calibration>) -> String {
    let list = |pairs: Vec<String>| if pairs.is_empty() { "unknown".to_owned() } else { pairs.join(", ") };
    let caches = answer.caches.iter().map(|(name, &size)| format!("{name} {}", table::bytes(size))).collect();
    let peaks = |peaks: &BTreeMap<&str, f64>| list(peaks.iter().map(|(isa, gflops)| format!("{isa} {gflops:.0}")).collect());
    let reason = calibration.map_or_else(|| "no kernels of bf16".to_owned(), |rates| format!("a lean convolution: {rates}"));
    let rows = [
        ("version", format!("{} ({}, {})", answer.version, answer.commit.unwrap_or("unknown commit"), answer.profile)),
        ("C compiler", answer.compiler.unwrap_or("none").to_owned()),
        ("C kernels", if answer.c_kernels { "yes" } else { "no" }.to_owned()),
        ("instruction sets", format!("{} (in force: {})", answer.isas.join(", "), answer.isa)),
        ("threads", format!("{} (from {})", answer.threads, answer.threads_from)),
        ("processor", answer.cpu.clone()),
        ("caches", list(caches)),
        ("wide tiles", if answer.wide_tiles { "yes, on avx512 from 64 channels on" } else { "no" }.to_owned()),
        ("GFLOP/s per thread", peaks(&answer.peak_gflops)),
        ("with loads", peaks(&answer.load_peak_gflops)),
        ("memory GB/s", format!("{:.1}", answer.bandwidth_gbs)),
        ("--dtype auto", format!("{} ({reason})", answer.auto_dtype)),
        ("or auto-near-f32", answer.auto_near_f32_dtype.to_owned()),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<19} {value}");
    }
    for warning in &answer.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}
