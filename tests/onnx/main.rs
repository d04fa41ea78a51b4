//! Models in ONNX: what is imported computes what ONNX says, lean convolutions are found, and everything else is refused with a reason.
#![forbid(unsafe_code)]

#[path = "../common/data.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod data;

mod build;
mod files;
mod forms;
mod interpreter;
mod lean;
mod random;
mod refused;

use leanresnet::internals::onnx_proto::ModelProto;
use leanresnet::onnx::import;
use leanresnet::{Images, Model, Pool, Session};
use prost::Message;

use crate::build::Builder;
use crate::data::uniform;
use crate::interpreter::Array;

/// Images of a batch.
const IMAGES: usize = 3;

/// Imports a model and compares its outputs with those of the interpreter; the model.
fn check(builder: &Builder, what: &str) -> Model {
    let bytes = builder.bytes();
    let report = import(&bytes, "test.onnx").unwrap_or_else(|error| panic!("{what}: {error}"));
    let model = report.model;
    // What was made is a model of this crate like others.
    assert_eq!(Model::from_bytes(&model.to_bytes().unwrap()).unwrap(), model, "{what}");
    let [channels, height, width] = model.input();
    let images = uniform(7, IMAGES * channels * height * width);
    let mut dims = vec![IMAGES, channels, height, width];
    let rank = input_rank(builder);
    dims.truncate(rank);
    let x = Array { dims, values: images.iter().map(|value| f64::from(*value)).collect() };
    let exact = interpreter::run(&ModelProto::decode(&bytes[..]).unwrap(), x).values;
    let mut session = Session::builder(&model).pool(Pool::inline()).max_batch(2).build().unwrap();
    let logits = session.run(Images::nchw_f32(&images, [IMAGES, channels, height, width]).unwrap()).unwrap();
    assert_eq!(logits.as_slice().len(), exact.len(), "{what}");
    let largest = exact.iter().fold(1e-30, |largest: f64, value| largest.max(value.abs()));
    for (logit, exact) in logits.as_slice().iter().zip(&exact) {
        // Rounding to f32 at every layer, of sums that are not long.
        assert!((f64::from(*logit) - exact).abs() <= 1e-5 * largest, "{what}: {logit} instead of {exact}, largest {largest}");
    }
    model
}

fn input_rank(builder: &Builder) -> usize {
    let input = &builder.model.graph.as_ref().unwrap().input[0];
    input.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap().dim.len()
}

/// How many layers of a model are of a kind, by the beginning of what the summary calls them.
fn layers(model: &Model, kind: &str) -> usize {
    model.layers().iter().filter(|layer| layer.operation.starts_with(kind)).count()
}
