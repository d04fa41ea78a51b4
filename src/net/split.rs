//! How threads share a run of fewer images than there are threads: a phase is one operator, and its tasks are rows of the output, or
//! panels of its channels.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::conv::pack::panels;
use crate::exec::activation::Activation;
use crate::exec::shared::PANEL_BITS;
use crate::exec::tensor::Extent;
use crate::net::op::Op;
use crate::net::plan::Plan;

/// What one task of an operator computes of one image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    /// `None`: all channels.
    pub(super) panels: Option<Range<usize>>,
}

/// Into how many ranges of rows, and each of them into how many ranges of panels, an operator's output is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    rows: usize,
    panels: usize,
}

/// With split images: the step of a phase, and which half of a block it is.
pub(super) fn phase<T: Activation>(plan: &Plan<T>, phase: usize) -> (usize, usize) {
    let mut left = phase;
    for (index, step) in plan.steps.iter().enumerate() {
        if left < halves(&step.op) {
            return (index, left);
        }
        left -= halves(&step.op);
    }
    (plan.steps.len() - 1, 0)
}

/// Phases of a run with split images.
pub(super) fn phases<T: Activation>(plan: &Plan<T>) -> usize {
    plan.steps.iter().map(|step| halves(&step.op)).sum()
}

/// The second convolution of a block reads rows that other tasks of the first one have computed.
fn halves<T: Activation>(op: &Op<T>) -> usize {
    if matches!(op, Op::Block { .. }) { 2 } else { 1 }
}

impl Cut {
    /// The cut of an operator, half of it if it is a block, for so many threads per image.
    pub(super) fn new<T: Activation>(plan: &Plan<T>, op: &Op<T>, half: usize, threads: usize) -> Self {
        let rows = plan.output_extent(op).height;
        match op {
            Op::Load { .. } | Op::Pad { .. } | Op::Pool { .. } | Op::Add { .. } | Op::Relu { .. } => {
                Cut { rows: rows.min(threads), panels: 1 }
            }
            Op::GlobalPool { .. } | Op::Flatten { .. } | Op::Output { .. } => Cut { rows: 1, panels: 1 },
            Op::PooledConvolve { pair, .. } if !pair.pool_first => Cut { rows: rows.min(threads), panels: 1 },
            Op::PooledConvolve { pair, .. } => Cut::of_convolution(pair.conv.output, threads),
            Op::Convolve { conv, .. } => Cut::of_convolution(conv.output, threads),
            Op::Head { conv, .. } => Cut::of_convolution(conv.output, threads),
            Op::Block { block, .. } if half == 0 => Cut::of_convolution(block.first.output, threads),
            Op::Block { block, .. } => Cut::of_convolution(block.second.output, threads),
        }
    }

    /// The cut whose largest part is the smallest. Among equals rows are cut, not panels: tasks of panels all read the whole input, much
    /// of it from other cores' caches.
    fn of_convolution(output: Extent, threads: usize) -> Self {
        let (rows, panels) = (output.height, panels(output.channels));
        let most_panels = if panels <= PANEL_BITS { panels.min(threads) } else { 1 };
        let cuts = (1..=most_panels).map(|panels| Cut { rows: rows.min(threads / panels), panels });
        cuts.min_by_key(|cut| rows.div_ceil(cut.rows) * panels.div_ceil(cut.panels)).unwrap_or(Cut { rows: 1, panels: 1 })
    }

    /// Number of parts.
    pub(super) fn parts(&self) -> usize {
        self.rows * self.panels
    }

    /// One of the parts of an output.
    pub(super) fn part<T: Activation>(&self, index: usize, plan: &Plan<T>, op: &Op<T>) -> Part {
        let range = |length: usize, parts: usize, part: usize| length * part / parts..length * (part + 1) / parts;
        let rows = range(plan.output_extent(op).height, self.rows, index / self.panels);
        let panels = (self.panels > 1).then(|| range(panels(plan.output_extent(op).channels), self.panels, index % self.panels));
        Part { rows, panels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Kernels;
    use crate::isa::Isa;
    use crate::net::{Connection, ConnectionForm, Model, Network};

    fn plan(network: &Network) -> std::sync::Arc<Plan<f32>> {
        Plan::new(&Model::random(network, 1), Kernels::of(Isa::Portable).unwrap()).unwrap()
    }

    #[test]
    fn parts_are_the_whole_output_and_never_overlap() {
        let conv_pool = Connection::default().with_form(ConnectionForm::ConvPool);
        let other = Network::builder().with_input([3, 9, 5]).with_connection(&conv_pool).with_stage(70, 1).with_stage(1100, 1);
        for network in [Network::preset("small").unwrap(), Network::preset("imagenet").unwrap(), other.build().unwrap()] {
            let plan = plan(&network);
            for (phase, threads) in (0..phases(&plan)).flat_map(|phase| [1, 2, 3, 7, 16, 64].map(|threads| (phase, threads))) {
                let (step, half) = super::phase(&plan, phase);
                let op = &plan.steps[step].op;
                let cut = Cut::new(&plan, op, half, threads);
                assert!(
                    (1..=threads).contains(&cut.parts()),
                    "{} has {} parts for {threads} threads",
                    plan.steps[step].name,
                    cut.parts()
                );
                let Extent { height, channels, .. } = plan.output_extent(op);
                let mut computed = vec![0; height * panels(channels)];
                for part in (0..cut.parts()).map(|part| cut.part(part, &plan, op)) {
                    let all = part.panels.unwrap_or(0..panels(channels));
                    part.rows.flat_map(|row| all.clone().map(move |panel| (row, panel))).for_each(|(row, panel)| {
                        computed[row * panels(channels) + panel] += 1;
                    });
                }
                assert!(computed.iter().all(|times| *times == 1), "{} on {threads} threads", plan.steps[step].name);
            }
        }
    }

    #[test]
    fn panels_are_cut_where_rows_would_leave_threads_waiting() {
        let plan = plan(&Network::preset("imagenet").unwrap());
        let cut = |name: &str, threads| {
            let step = plan.steps.iter().find(|step| step.name == name).unwrap();
            Cut::new(&plan, &step.op, 1, threads)
        };
        assert_eq!(cut("stages.0.0", 2), Cut { rows: 2, panels: 1 }, "56 rows");
        assert_eq!(cut("stages.3.0", 2), Cut { rows: 1, panels: 2 }, "7 rows of 16 panels");
        assert_eq!(cut("stages.3.0", 16), Cut { rows: 1, panels: 16 });
        assert_eq!(cut("stages.2.0", 14), Cut { rows: 14, panels: 1 }, "14 rows");
        assert_eq!(cut("head", 2), Cut { rows: 1, panels: 2 });
        assert_eq!(cut("connections.2", 2), Cut { rows: 1, panels: 2 });
    }
}
