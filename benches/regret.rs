//! Regret: how much slower the chosen kernels are than the best candidates, layer by layer.
//!
//! `cargo bench --features all-kernels -- regret` times every compiled tile of each operator on the layers of the presets and names each
//! chosen one that is over 10 % slower than the best. Rounds are interleaved, and each row's time is the median over rounds, so that slow
//! moments of the machine meet all rows. Without the feature there are no candidates, and nothing to regret.
#![forbid(unsafe_code)]

#[path = "common/data.rs"]
mod data;
#[path = "../kernels/gen/mod.rs"]
#[allow(dead_code, reason = "the names and the rows are all that is needed here")]
mod generator;

use data::values;
use generator::name::format;
use generator::registry::{ROWS, Row};
use leanresnet::internals::compiled;
use leanresnet::internals::dispatch::Kernels;
use leanresnet::internals::kernel::conv::{ConvCall, ConvKernel};
use leanresnet::internals::kernel::rows::{Layout, Source};
use leanresnet::internals::kernel::target::Target;
use leanresnet::internals::pack::{PackedWeights, zeros};
use leanresnet::{Isa, Stencil};
use std::time::{Duration, Instant};

/// Height (and width) and channels of the presets' layers.
const LAYERS: [(usize, usize); 9] =
    [(32, 32), (112, 32), (32, 64), (56, 64), (16, 128), (28, 128), (8, 256), (14, 256), (7, 512)];
const ROUNDS: usize = 9;
/// How long a round measures one kernel.
const TIME: Duration = Duration::from_millis(20);
/// Slower than the best by more than this is a regret.
const TOLERANCE: f64 = 0.10;

fn main() {
    // Criterion's benches take the rest of the command line as a filter; so does this one. Without `--bench` it is a test.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if !(filters.is_empty() || filters.iter().any(|filter| "regret".contains(filter.as_str()))) {
        return;
    }
    let rounds = if arguments.iter().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    let mut regrets = 0;
    for isa in Isa::available() {
        for (op, spatial) in [("fused", Some("cross5")), ("dense", None)] {
            let rows: Vec<Candidate> = ROWS
                .iter()
                .filter(|row| row.isa == isa.name() && row.op == op && row.spatial == spatial)
                .filter_map(|row| Candidate::of(row, isa))
                .collect();
            if rows.len() < 2 {
                println!("regret/{op} {isa}: nothing to compare ({} compiled; --features all-kernels has more)", rows.len());
                continue;
            }
            regrets += LAYERS.iter().map(|&layer| compare(&rows, layer, rounds)).filter(|&is_regret| is_regret).count();
        }
    }
    println!("regret: {regrets} chosen kernels are over {:.0} % slower than the best", 100.0 * TOLERANCE);
}

/// A compiled kernel for 1x1 or lean convolutions. The first one of a list is in force.
struct Candidate {
    name: String,
    kernel: ConvKernel,
}

impl Candidate {
    fn of(row: &Row, isa: Isa) -> Option<Self> {
        let name = format(row);
        if !compiled().any(|(_, compiled)| compiled == name) {
            return None;
        }
        let kernels = Kernels::with_row(isa, &name).ok()??;
        let kernel = if row.op == "fused" { kernels.f32.fused(Stencil::Cross5) } else { kernels.f32.dense };
        Some(Candidate { name, kernel })
    }
}

/// Measures all rows on one layer, and prints them; true if the chosen one is too slow.
fn compare(rows: &[Candidate], (side, channels): (usize, usize), rounds: usize) -> bool {
    let is_lean = rows[0].name.contains("_fused_");
    let matrix = values(channels * channels);
    let weights = if is_lean {
        PackedWeights::lean(Stencil::Cross5, channels, &values(9 * channels), &matrix, &[])
    } else {
        PackedWeights::dense(channels, channels, 1, &matrix, &[])
    };
    let weights = weights.expect("sizes that fit");
    let (x, mut y) = (values(side * side * channels), zeros(side * side * channels));
    let mut times = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for (row, times) in rows.iter().zip(&mut times) {
            let layout = Layout::image(side, side, channels);
            times.push(time(|| {
                let (source, target) = (Source { data: &x, layout }, Target::new(&mut y, layout));
                row.kernel.run(&mut ConvCall::new(&weights, source, target, (side, side)));
            }));
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let best = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let regret = medians[0] / best - 1.0;
    let list: Vec<String> =
        rows.iter().zip(&medians).map(|(row, time)| format!("{} {:.1} us", tile(&row.name), 1e6 * time)).collect();
    let verdict = if regret > TOLERANCE { "  REGRET" } else { "" };
    println!("regret/{} {side}x{side}x{channels}: {}; {:.0} %{verdict}", rows[0].name, list.join(", "), 100.0 * regret);
    regret > TOLERANCE
}

/// The tile in a kernel's name.
fn tile(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or(name)
}

/// Seconds of a run, from as many as fill [`TIME`].
fn time(mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    let mut runs = 0;
    while runs == 0 || start.elapsed() < TIME {
        run();
        runs += 1;
    }
    start.elapsed().as_secs_f64() / f64::from(runs)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
