//! Says what a model sees in a batch of images: `cargo run --release --example infer [MODEL.safetensors]`.
#![forbid(unsafe_code)]

use leanresnet::{Images, Model, Network, Result, Session};

fn main() -> Result<()> {
    let model = match std::env::args_os().nth(1) {
        Some(path) => Model::load(path)?,
        None => Model::random(&Network::preset("small")?, 1),
    };
    let [channels, height, width] = model.input();
    // Four images of one grey each. Bytes, channels last, are what decoders of image files give.
    let (count, image) = (4, channels * height * width);
    let pixels: Vec<u8> = (0..count * image).map(|at| (at / image * 80) as u8).collect();

    let mut session = Session::builder(&model).max_batch(count).build()?;
    let logits = session.run(Images::nhwc_u8(&pixels, [count, channels, height, width])?)?;
    for index in 0..logits.images() {
        let row = logits.row(index);
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        let name = model.class_names().get(best).map_or("", String::as_str);
        println!("image {index}: class {best} {name} (logit {:.3})", row[best]);
    }
    Ok(())
}
