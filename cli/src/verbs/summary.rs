//! `leanresnet summary`: the layers of a network with their sizes and costs.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use clap::Args;
use leanresnet::net::LayerSummary;
use leanresnet::train::NetworkExecutor;
use leanresnet::{Model, RunConfig, Session};
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
    /// None for imported graphs, which cannot be trained.
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
    let batch = options.batch as usize;
    let (model, training_bytes) = if let Some(model) = options.network.graph_model()? {
        (model, None)
    } else {
        let RunConfig { network, train, .. } = options.network.configuration()?.run_config()?;
        let bytes = NetworkExecutor::training_bytes(&network, &train.with_batch(batch), context.threads()?.0)?;
        (Model::random(&network, 0), Some(bytes))
    };
    let session = Session::builder(&model).pool(context.pool()?).max_batch(batch).isa(context.isa()?).build()?;
    let kernels: BTreeMap<String, &'static str> = session.kernels().into_iter().collect();
    let layers = model.layers();
    let answer = Answer {
        parameters: layers.iter().map(|layer| layer.parameters).sum(),
        macs: layers.iter().map(|layer| layer.macs).sum(),
        workspace_bytes: session.workspace_bytes(),
        training_bytes,
        layers: layers.into_iter().map(|layer| keys(layer, &kernels)).collect(),
    };
    context.output.answer(&answer, || text(&model, &answer, batch))?;
    Ok(0)
}

fn keys(layer: LayerSummary, kernels: &BTreeMap<String, &'static str>) -> LayerKeys {
    let LayerSummary { name, operation, output, parameters, macs, .. } = layer;
    let kernel = if macs > 0 { kernels.get(&name).copied() } else { None };
    LayerKeys { name, op: operation, output, parameters, macs, kernel }
}

fn text(model: &Model, answer: &Answer, batch: usize) -> String {
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
    let training = answer.training_bytes.map(|training| format!(", {} to train", bytes(training as u64)));
    let memory =
        format!("batches of {batch}: {} of memory to run{}", bytes(answer.workspace_bytes as u64), training.unwrap_or_default());
    let what = model.network().map_or_else(|_| "imported graph".to_owned(), ToString::to_string);
    format!("{what}\n\n{}\n{totals}\n{memory}\n", table.render())
}
