//! Measures one inference engine written in Rust on an ONNX file, once:
//! `peers tract|rten MODEL.onnx INPUT.npy OUTPUT.npy THREADS SECONDS` prints the milliseconds per image as JSON.
//!
//! rten reads its number of threads from `RTEN_NUM_THREADS`, which the caller sets.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Instant;

use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor as RtenTensor};
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::*;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One run of a network; gives its outputs.
type Run = Box<dyn FnMut() -> Outcome<Vec<f32>>>;

/// Images: their extents and values, NCHW.
struct Images {
    shape: [usize; 4],
    values: Vec<f32>,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, model, input, output, threads, seconds] = arguments.as_slice() else {
        return Err("expected tract|rten MODEL.onnx INPUT.npy OUTPUT.npy THREADS SECONDS".into());
    };
    let images = read_npy(input)?;
    let batch = images.shape[0];
    let mut run = match engine.as_str() {
        "tract" => tract(model, images, threads.parse()?)?,
        "rten" => rten(model, images)?,
        other => return Err(format!("unknown engine {other}: expected tract or rten").into()),
    };
    write_npy(output, batch, &run()?)?;
    println!("{{\"ms_per_image\": {}}}", 1e3 * seconds_per_run(&mut run, seconds.parse()?)? / batch as f64);
    Ok(())
}

fn tract(path: &str, images: Images, threads: usize) -> Outcome<Run> {
    if threads > 1 {
        set_default_executor(Executor::multithread(threads));
    }
    let fact = InferenceFact::dt_shape(f32::datum_type(), images.shape);
    let model = tract_onnx::onnx().model_for_path(path)?.with_input_fact(0, fact)?.into_optimized()?.into_runnable()?;
    let input: TValue = Tensor::from_shape(&images.shape, &images.values)?.into();
    Ok(Box::new(move || {
        let outputs = model.run(tvec!(input.clone()))?;
        Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
    }))
}

fn rten(path: &str, images: Images) -> Outcome<Run> {
    let mut options = rten::ModelOptions::with_all_ops();
    options.enable_optimization(true).prepack_weights(true);
    let model = options.load_file(path)?;
    let input = NdTensor::from_data(images.shape, images.values);
    Ok(Box::new(move || {
        let output: RtenTensor<f32> = model.run_one(input.view().into(), None)?.try_into()?;
        Ok(output.to_vec())
    }))
}

/// The mean over as many runs as fill `seconds`, as `quiet.seconds_per_repeat` takes it.
fn seconds_per_run(run: &mut Run, seconds: f64) -> Outcome<f64> {
    let start = Instant::now();
    let mut done = 0;
    while done == 0 || start.elapsed().as_secs_f64() < 0.3 * seconds {
        run()?;
        done += 1;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(done);
    let repetitions = (seconds / each).max(1.0) as u32;
    let start = Instant::now();
    for _ in 0..repetitions {
        std::hint::black_box(run()?);
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(repetitions))
}

/// Reads an array file of version 1: 32-bit floats, row-major, four dimensions.
fn read_npy(path: &str) -> Outcome<Images> {
    let bytes = std::fs::read(path).map_err(|error| format!("read {path}: {error}"))?;
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = bytes[10..].split_at(length);
    let header = std::str::from_utf8(header)?;
    let extents = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).ok_or("no shape")?.0;
    let shape: Vec<usize> = extents.split(',').map(|extent| extent.trim().parse()).collect::<Result<_, _>>()?;
    let values = data.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect();
    Ok(Images { shape: shape.try_into().map_err(|_| "expected four dimensions")?, values })
}

fn write_npy(path: &str, rows: usize, values: &[f32]) -> Outcome<()> {
    let columns = values.len() / rows;
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // The data begin at a multiple of 64 bytes, after a new line.
    let header = format!("{header:117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len())?.to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).map_err(|error| format!("write {path}: {error}").into())
}
