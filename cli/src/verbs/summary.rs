//! `leanresnet summary`: the layers of a network with their sizes and costs.
#![forbid(unsafe_code)]

use clap::Args;
use leanresnet::Network;
use leanresnet::net::{LayerSummary, layers};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Outcome;
use crate::network_source::NetworkSource;
use crate::table::{Table, grouped};

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    network: NetworkSource,
    /// Images at once, for the sizes in memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
}

#[derive(Serialize)]
struct Answer {
    parameters: u64,
    macs: u64,
    workspace_bytes: Option<usize>,
    training_bytes: Option<usize>,
    layers: Vec<LayerKeys>,
}

#[derive(Serialize)]
struct LayerKeys {
    name: String,
    op: String,
    output: [usize; 3],
    parameters: u64,
    macs: u64,
    kernel: Option<&'static str>,
}

/// Lists the layers.
pub fn run(context: &Context<'_>, options: &Options) -> Outcome {
    let network = options.network.network()?;
    let rows = layers(&network).into_iter().map(|layer| keys(layer, None)).collect();
    let answer = Answer {
        parameters: network.parameter_count(),
        macs: network.macs(),
        workspace_bytes: None,
        training_bytes: None,
        layers: rows,
    };
    context.output.answer(&answer, || text(&network, &answer))?;
    Ok(0)
}

fn keys(layer: LayerSummary, kernel: Option<&'static str>) -> LayerKeys {
    let LayerSummary { name, operation, output, parameters, macs, .. } = layer;
    LayerKeys { name, op: operation, output, parameters, macs, kernel }
}

fn text(network: &Network, answer: &Answer) -> String {
    let mut table = Table::new(&["layer", "operation", "output", "parameters", "MACs", "kernel"]);
    for layer in &answer.layers {
        let [channels, height, width] = layer.output;
        table.row(vec![
            layer.name.clone(),
            layer.op.clone(),
            format!("{channels} x {height} x {width}"),
            grouped(layer.parameters),
            grouped(layer.macs),
            layer.kernel.unwrap_or_default().to_owned(),
        ]);
    }
    let totals = format!("{} parameters, {} multiply-accumulates per image", grouped(answer.parameters), grouped(answer.macs));
    format!("{network}\n\n{}\n{totals}\n", table.render())
}
