//! `leanresnet summary`: the layers of a network with their sizes and costs.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use clap::Args;
use leanresnet::net::{LayerSummary, layers};
use leanresnet::train::NetworkExecutor;
use leanresnet::{Model, Network, RunConfig, Session};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Outcome;
use crate::network_source::NetworkSource;
use crate::table::{Table, bytes, grouped};

/// Arguments of the verb.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    network: NetworkSource,
    /// Images at once, for the sizes in memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    batch: u32,
}

#[derive(Serialize)]
struct Answer {
    parameters: u64,
    macs: u64,
    workspace_bytes: usize,
    training_bytes: usize,
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
    let RunConfig { network, train, .. } = options.network.configuration()?.run_config()?;
    let batch = options.batch as usize;
    let model = Model::random(&network, 0);
    let session = Session::builder(&model).pool(context.pool()?).max_batch(batch).isa(context.isa()?).build()?;
    let kernels: BTreeMap<String, &'static str> = session.kernels().into_iter().collect();
    let rows = layers(&network).into_iter().map(|layer| keys(layer, &kernels)).collect();
    let answer = Answer {
        parameters: network.parameter_count(),
        macs: network.macs(),
        workspace_bytes: session.workspace_bytes(),
        training_bytes: NetworkExecutor::training_bytes(&network, &train.with_batch(batch), context.threads()?.0)?,
        layers: rows,
    };
    context.output.answer(&answer, || text(&network, &answer, batch))?;
    Ok(0)
}

fn keys(layer: LayerSummary, kernels: &BTreeMap<String, &'static str>) -> LayerKeys {
    let LayerSummary { name, operation, output, parameters, macs, .. } = layer;
    let kernel = if macs > 0 { kernels.get(&name).copied() } else { None };
    LayerKeys { name, op: operation, output, parameters, macs, kernel }
}

fn text(network: &Network, answer: &Answer, batch: usize) -> String {
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
    let memory = format!(
        "batches of {batch}: {} of memory to run, {} to train",
        bytes(answer.workspace_bytes as u64),
        bytes(answer.training_bytes as u64)
    );
    format!("{network}\n\n{}\n{totals}\n{memory}\n", table.render())
}
