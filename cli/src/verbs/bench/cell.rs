//! One combination of what is measured with batch, threads and instruction set; and measuring all of them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;
use std::time::Duration;

use leanresnet::{Isa, Pool, Precision, load_peak_gflops, peak_gflops};
use serde::Serialize;

use super::layers::{self, LayerClock, LayerRow};
use super::options::Measure;
use crate::bandwidth::Bandwidths;
use crate::context::Context;
use crate::failure::{Failure, expected};
use crate::progress;
use crate::stopwatch::{Stopwatch, Work, median};
use crate::table::Table;

/// What a cell measures; the keys of the answer that are not results.
#[derive(Clone, Serialize)]
pub struct Subject {
    pub what: &'static str,
    pub preset: Option<String>,
    /// Height, width, channels.
    pub shape: Option<[usize; 3]>,
    pub op: Option<String>,
    pub stencil: Option<&'static str>,
    pub variant: Option<String>,
    pub group_size: Option<usize>,
    pub stride: Option<usize>,
    /// What training computes twice, and the memory that it takes.
    pub recompute: Option<&'static str>,
    pub training_bytes: Option<usize>,
    pub batch: usize,
    pub threads: usize,
    pub isa: &'static str,
    pub dtype: &'static str,
}

impl Subject {
    /// What it is, in the words of the answer.
    fn words(&self) -> String {
        let shape = self.shape.map(|[height, width, channels]| format!("{height}x{width}x{channels}"));
        let stencil = self.stencil.map(str::to_owned);
        let beyond_one =
            |what: &str, value: Option<usize>| value.filter(|&value| value > 1).map(|value| format!("{what} {value}"));
        let (groups, stride) = (beyond_one("groups of", self.group_size), beyond_one("stride", self.stride));
        let recompute = self.recompute.filter(|which| *which != "none").map(|which| format!("recompute {which}"));
        let words = [self.preset.clone(), self.op.clone(), self.variant.clone(), stencil, groups, stride, recompute, shape];
        let all: Vec<String> = [Some(self.what.to_owned())].into_iter().chain(words).flatten().collect();
        all.join(" ")
    }
}

/// A combination that is to be measured.
pub struct Cell {
    pub subject: Subject,
    pub kernel: Option<String>,
    pub isa: Isa,
    pub work: Work<'static>,
    /// For the times of its layers.
    pub layers: Option<LayerClock>,
}

/// A cell that is being measured.
struct Timed {
    subject: Subject,
    kernel: Option<String>,
    stopwatch: Stopwatch<'static>,
    layers: Option<LayerClock>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    subject: Subject,
    ms_per_image: f64,
    ms_min: f64,
    spread: f64,
    images_per_second: f64,
    gflops: f64,
    /// None without a kernel to measure it with.
    peak_gflops: Option<f64>,
    fraction: Option<f64>,
    /// The same of multiply-adds that load what they multiply.
    load_peak_gflops: Option<f64>,
    load_fraction: Option<f64>,
    kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<LayerRow>>,
}

/// What is varied for every subject.
pub struct Setting {
    pub dtype: Precision,
    pub batch: usize,
    pub pool: Pool,
    pub isa: Isa,
}

/// All combinations of the command line; `batches` where it names none. `precisions`: those that the subject has.
pub fn settings(
    context: &Context<'_>,
    measure: &Measure,
    batches: &[u32],
    precisions: &[Precision],
) -> Result<Vec<Setting>, Failure> {
    if let Some(other) = measure.dtype.iter().find(|dtype| !precisions.contains(dtype)) {
        let names: Vec<&str> = precisions.iter().map(|precision| precision.name()).collect();
        let hint = "bf16 is for `bench net` and `bench train`, auto for `bench net`";
        return Err(Failure::usage(expected("--dtype", names.join(" or "), other), hint));
    }
    let batches = if measure.batch.is_empty() { batches } else { &measure.batch };
    let mut settings = Vec::new();
    for &dtype in &measure.dtype {
        for &batch in batches {
            for isa in context.isa_list_for(dtype)? {
                for threads in context.threads_list()? {
                    settings.push(Setting { dtype, batch: batch as usize, pool: Pool::new(threads)?, isa });
                }
            }
        }
    }
    Ok(settings)
}

impl Setting {
    /// The keys that the setting decides.
    pub fn subject(&self, what: &'static str) -> Subject {
        Subject {
            what,
            preset: None,
            shape: None,
            op: None,
            stencil: None,
            variant: None,
            group_size: None,
            stride: None,
            recompute: None,
            training_bytes: None,
            batch: self.batch,
            threads: self.pool.threads(),
            isa: self.isa.name(),
            dtype: self.dtype.name(),
        }
    }
}

/// How long a round measures each peak.
const PEAK_TIME: Duration = Duration::from_millis(40);

/// The peaks of threads and instruction set, once per round: multiply-adds alone, and with loads.
struct Peaks {
    pool: Pool,
    isa: Isa,
    pure: Vec<f64>,
    with_loads: Vec<f64>,
}

impl Peaks {
    fn new(threads: usize, isa: Isa) -> Result<Self, Failure> {
        Ok(Peaks { pool: Pool::new(threads)?, isa, pure: Vec::new(), with_loads: Vec::new() })
    }

    fn round(&mut self) -> Result<(), Failure> {
        self.pure.extend(peak_gflops(&self.pool, self.isa, PEAK_TIME)?);
        self.with_loads.extend(load_peak_gflops(&self.pool, self.isa, PEAK_TIME)?);
        Ok(())
    }
}

/// Measures all cells in rounds, each cell once per round, so that slow moments of the machine meet all of them; and beside them the
/// peaks of every combination of threads and instruction set.
pub fn measure(context: &Context<'_>, cells: Vec<Cell>, measure: &Measure) -> Result<(), Failure> {
    if !(measure.seconds.is_finite() && measure.seconds > 0.0) {
        let message = expected("--seconds", "a number above 0", measure.seconds);
        return Err(Failure::usage(message, "leanresnet bench net --seconds 1"));
    }
    let seconds = measure.seconds / f64::from(measure.rounds);
    let bar = progress::bar(
        context.progress(),
        u64::from(measure.rounds) * cells.len() as u64,
        "{wide_bar} {pos}/{len} measurements  ETA {eta}",
    );
    let mut peaks = BTreeMap::new();
    let mut timed = Vec::new();
    for Cell { subject, kernel, isa, work, layers } in cells {
        let key = (subject.isa, subject.threads);
        if let Entry::Vacant(place) = peaks.entry(key) {
            place.insert(Peaks::new(subject.threads, isa)?);
        }
        let stopwatch = Stopwatch::new(work, seconds)?;
        layers.iter().for_each(LayerClock::reset);
        timed.push(Timed { subject, kernel, stopwatch, layers });
    }
    for _ in 0..measure.rounds {
        for peak in peaks.values_mut() {
            peak.round()?;
        }
        for cell in &mut timed {
            cell.stopwatch.round()?;
            cell.layers.iter_mut().for_each(LayerClock::end_round);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut bandwidths = Bandwidths::new();
    let answers: Vec<Answer> = timed
        .into_iter()
        .map(|cell| {
            let peaks = &peaks[&(cell.subject.isa, cell.subject.threads)];
            answer(cell, peaks, &mut bandwidths)
        })
        .collect();
    if context.output.is_json() {
        return answers.iter().try_for_each(|answer| context.output.answer(answer, String::new));
    }
    crate::answer::print(&text(&answers))
}

fn answer(cell: Timed, peaks: &Peaks, bandwidths: &mut Bandwidths) -> Answer {
    let [peak_gflops, load_peak_gflops] =
        [&peaks.pure, &peaks.with_loads].map(|rounds| (!rounds.is_empty()).then(|| median(rounds)));
    let Timed { subject, kernel, stopwatch, layers } = cell;
    let images = stopwatch.images() as f64;
    Answer {
        subject,
        ms_per_image: 1e3 * stopwatch.median() / images,
        ms_min: 1e3 * stopwatch.minimum() / images,
        spread: stopwatch.spread(),
        images_per_second: images / stopwatch.median(),
        gflops: stopwatch.gflops(),
        peak_gflops,
        fraction: peak_gflops.map(|peak| stopwatch.gflops() / peak),
        load_peak_gflops,
        load_fraction: load_peak_gflops.map(|peak| stopwatch.gflops() / peak),
        kernel,
        layers: layers.map(|clock| clock.rows(peak_gflops, bandwidths)),
    }
}

fn text(answers: &[Answer]) -> String {
    let header = ["what", "batch", "threads", "isa", "dtype", "ms/image", "min", "spread", "images/s", "GFLOP/s", "of peak"];
    let mut table = Table::new(&[&header[..], &["with loads", "kernel"]].concat());
    let share =
        |fraction: Option<f64>| fraction.map_or_else(|| "unknown".to_owned(), |fraction| format!("{:.0} %", 100.0 * fraction));
    for answer in answers {
        let subject = &answer.subject;
        table.row(vec![
            subject.words(),
            subject.batch.to_string(),
            subject.threads.to_string(),
            subject.isa.to_owned(),
            subject.dtype.to_owned(),
            format!("{:.4}", answer.ms_per_image),
            format!("{:.4}", answer.ms_min),
            format!("{:.0} %", 100.0 * answer.spread),
            format!("{:.0}", answer.images_per_second),
            format!("{:.1}", answer.gflops),
            share(answer.fraction),
            share(answer.load_fraction),
            answer.kernel.clone().unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    for answer in answers {
        let Answer { subject, layers: Some(rows), .. } = answer else { continue };
        let Subject { batch, threads, isa, .. } = subject;
        let _ = write!(text, "\n{}, batch {batch}, threads {threads}, {isa}\n{}", subject.words(), layers::table(rows));
    }
    text
}
