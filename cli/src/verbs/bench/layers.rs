//! `bench net --layers` and `bench train --layers`: the time of every layer, and the bound that applies to it.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;

use leanresnet::Session;
use leanresnet::net::LayerTiming;
use leanresnet::train::NetworkExecutor;
use serde::Serialize;

use crate::bandwidth::Bandwidths;
use crate::stopwatch::median;
use crate::table::{Table, grouped};

/// The word for layers that the speed of fused multiply-adds bounds.
const MULTIPLY_ADDS: &str = "fma";

/// A layer in the answer.
#[derive(Serialize)]
pub struct LayerRow {
    name: String,
    /// Milliseconds per image: summed over threads, by their number.
    ms: f64,
    gflops: f64,
    /// Per image.
    bytes: u64,
    /// None where the peak was not measured.
    bound: Option<&'static str>,
    fraction: Option<f64>,
    kernel: Option<&'static str>,
}

/// What keeps the times of layers while it runs.
pub trait KeepsTimings {
    /// The layers' times since the last reset.
    fn timings(&self) -> Vec<LayerTiming>;
    /// Forgets them.
    fn reset(&mut self);
}

impl KeepsTimings for Session {
    fn timings(&self) -> Vec<LayerTiming> {
        self.timings()
    }

    fn reset(&mut self) {
        self.reset_timings();
    }
}

impl KeepsTimings for NetworkExecutor {
    fn timings(&self) -> Vec<LayerTiming> {
        self.timings()
    }

    fn reset(&mut self) {
        self.reset_timings();
    }
}

/// Collects the layers' times of what others run, round by round.
pub struct LayerClock {
    source: Rc<RefCell<dyn KeepsTimings>>,
    rounds: Vec<Vec<LayerTiming>>,
}

impl LayerClock {
    /// For a session or an executor that keeps timings.
    pub fn new(source: Rc<RefCell<dyn KeepsTimings>>) -> Self {
        Self { source, rounds: Vec::new() }
    }

    /// Forgets what was run so far.
    pub fn reset(&self) {
        self.source.borrow_mut().reset();
    }

    /// What ran since the last call is a round.
    pub fn end_round(&mut self) {
        self.rounds.push(self.source.borrow().timings());
        self.reset();
    }

    /// The layers with the median of the rounds.
    pub fn rows(&self, peak_gflops: Option<f64>, bandwidths: &mut Bandwidths) -> Vec<LayerRow> {
        let layers = self.rounds.first().into_iter().flatten();
        layers
            .map(|layer| {
                let same = self.rounds.iter().flatten().filter(|other| other.name == layer.name);
                let times: Vec<f64> = same.map(LayerTiming::milliseconds).collect();
                row(layer, median(&times), peak_gflops, bandwidths)
            })
            .collect()
    }
}

fn row(layer: &LayerTiming, ms: f64, peak_gflops: Option<f64>, bandwidths: &mut Bandwidths) -> LayerRow {
    let level = bandwidths.level(layer.working_set as usize, layer.threads);
    // 1e9 per second are 1e6 per millisecond.
    let memory_ms = layer.bytes as f64 / bandwidths.gbs(level, layer.threads) / 1e6;
    let flops = 2.0 * layer.macs as f64;
    let bound = bound((memory_ms, level.name()), flops, peak_gflops);
    LayerRow {
        name: layer.name.clone(),
        ms,
        gflops: if ms > 0.0 { flops / ms / 1e6 } else { 0.0 },
        bytes: layer.bytes,
        bound: bound.map(|(_, name)| name),
        fraction: bound.map(|(least, _)| if ms > 0.0 { least / ms } else { 1.0 }),
        kernel: layer.kernel,
    }
}

/// The bound that allows less: milliseconds that it takes at least, and its name. Unknown if the peak of what the layer does is.
fn bound(memory: (f64, &'static str), flops: f64, peak_gflops: Option<f64>) -> Option<(f64, &'static str)> {
    if flops == 0.0 {
        return Some(memory);
    }
    let multiply_adds = flops / peak_gflops? / 1e6;
    Some(if multiply_adds >= memory.0 { (multiply_adds, MULTIPLY_ADDS) } else { memory })
}

/// The layers as text.
pub fn table(rows: &[LayerRow]) -> String {
    let total: f64 = rows.iter().map(|row| row.ms).sum();
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let mut table = Table::new(&["layer", "ms/image", "of time", "GFLOP/s", "bytes", "bound", "of bound", "kernel"]);
    for row in rows {
        table.row(vec![
            row.name.clone(),
            format!("{:.4}", row.ms),
            format!("{:.1} %", 100.0 * row.ms / total),
            format!("{:.1}", row.gflops),
            grouped(row.bytes),
            row.bound.unwrap_or("unknown").to_owned(),
            row.fraction.map_or_else(|| "unknown".to_owned(), percent),
            row.kernel.unwrap_or_default().to_owned(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_bound_applies() {
        let memory = (2.0, "l2");
        assert_eq!(bound(memory, 0.0, None), Some(memory));
        assert_eq!(bound(memory, 1e6, None), None);
        assert_eq!(bound(memory, 1e6, Some(1.0)), Some(memory));
        assert_eq!(bound(memory, 3e8, Some(100.0)), Some((3.0, "fma")));
    }
}
