//! Progress on stderr: a bar on a terminal, one plain line per epoch elsewhere.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use leanresnet::train::{EpochMetrics, EpochReport, Observer, RunFolder, StepReport, StopReason};

use crate::answer::Output;
use crate::arguments::ProgressKind;
use crate::context::Context;
use crate::curves;
use crate::interrupt::Interrupt;
use crate::table::percent;

/// How often the picture of the curves is drawn while a run goes on.
const CURVES_EVERY: Duration = Duration::from_secs(10);

/// A bar for `length` items on a terminal, or one that is not seen.
pub fn bar(kind: ProgressKind, length: u64, template: &str) -> ProgressBar {
    if kind != ProgressKind::Auto || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

/// Shows the course of a training run, draws its curves, and stops it after a signal.
pub struct TrainingProgress<'a> {
    output: &'a Output,
    kind: ProgressKind,
    folder: RunFolder,
    interrupt: Interrupt,
    epochs: u64,
    history: Vec<EpochMetrics>,
    bar: Option<ProgressBar>,
    drawn: Instant,
    images: usize,
    start: Instant,
}

impl<'a> TrainingProgress<'a> {
    /// For a run of `epochs` epochs, of which those in `history` are done.
    pub fn new(context: &Context<'a>, folder: RunFolder, interrupt: Interrupt, epochs: u64, history: &[EpochMetrics]) -> Self {
        let now = Instant::now();
        Self {
            output: context.output,
            kind: context.progress(),
            folder,
            interrupt,
            epochs,
            history: history.to_vec(),
            bar: None,
            drawn: now,
            images: 0,
            start: now,
        }
    }

    /// Prints a line above the bar.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            _ => self.output.note(text),
        }
    }

    /// Removes the bar.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn epoch_line(&self, report: &EpochReport<'_>) -> String {
        let (metrics, timing) = (report.metrics, report.timing);
        let mut line = format!(
            "epoch {}/{}  loss {:.4}  top-1 {}",
            metrics.epoch,
            self.epochs,
            metrics.train_loss,
            percent(metrics.train_top1)
        );
        if let (Some(loss), Some(top1)) = (metrics.val_loss, metrics.val_top1) {
            line.push_str(&format!("  validation loss {loss:.4}  top-1 {}", percent(top1)));
        }
        line.push_str(&format!("  {:.0} images/s  {:.1} s", timing.images_per_second, timing.train_seconds));
        if report.best {
            line.push_str("  best so far");
        }
        line
    }
}

impl Observer for TrainingProgress<'_> {
    fn on_step(&mut self, report: &StepReport) {
        let total = self.epochs * report.steps_per_epoch;
        let kind = self.kind;
        let template = "{prefix} {wide_bar} {pos}/{len} steps  {msg}  ETA {eta}";
        let bar = self.bar.get_or_insert_with(|| {
            let bar = bar(kind, total, template);
            bar.set_position(report.step);
            bar.reset_eta();
            bar
        });
        self.images += report.images;
        let rate = self.images as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
        bar.set_prefix(format!("epoch {}/{}", report.epoch + 1, self.epochs));
        bar.set_message(format!("loss {:.3}  {rate:.0} images/s", report.loss));
        bar.set_position(report.step + 1);
    }

    fn on_epoch(&mut self, report: &EpochReport<'_>) {
        if self.kind != ProgressKind::None {
            self.line(&self.epoch_line(report));
        }
        self.history.push(report.metrics.clone());
        if self.drawn.elapsed() >= CURVES_EVERY {
            // The picture is drawn again at the end, where a failure is reported.
            let _ = curves::write(&self.folder, &self.history, None);
            self.drawn = Instant::now();
        }
    }

    fn on_checkpoint(&mut self, path: &Path) {
        self.output.detail(&format!("saved {}", path.display()));
    }

    fn on_notice(&mut self, message: &str) {
        self.line(&format!("note: {message}"));
    }

    fn should_stop(&mut self) -> Option<StopReason> {
        let signal = self.interrupt.received()?;
        self.line(&format!("{}: saving after this step; a second signal leaves at once, without saving", signal.name()));
        Some(StopReason::Interrupted)
    }
}
