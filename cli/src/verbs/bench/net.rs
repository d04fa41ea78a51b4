//! `leanresnet bench net`: inference of a whole network.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;

use leanresnet::{Images, Model, Precision, Session};

use super::cell::{Cell, Setting, Subject, settings};
use super::layers::LayerClock;
use super::options::NetOptions;
use crate::context::Context;
use crate::failure::Failure;
use crate::stopwatch::Work;

/// All combinations.
pub fn cells(context: &Context<'_>, options: &NetOptions) -> Result<Vec<Cell>, Failure> {
    let NetOptions { network: options, layers } = options;
    let model = match options.network.graph_model()? {
        Some(model) => model,
        None => Model::random(&options.network.network()?, 1),
    };
    let mut cells = Vec::new();
    for setting in settings(context, &options.measure, &[1, 64], Precision::ALL)? {
        let subject = setting.subject("net");
        let Setting { batch, pool, isa, dtype } = setting;
        let session = Session::builder(&model).pool(pool).max_batch(batch).isa(isa).precision(dtype).timing(*layers).build()?;
        let kernel = main_kernel(&model, &session);
        let subject = Subject { preset: Some(options.network.label()), dtype: session.precision().name(), ..subject };
        let session = Rc::new(RefCell::new(session));
        let layers = layers.then(|| LayerClock::new(session.clone()));
        cells.push(Cell { subject, kernel, isa, work: work(&model, session, batch), layers });
    }
    Ok(cells)
}

fn work(model: &Model, session: Rc<RefCell<Session>>, batch: usize) -> Work<'static> {
    let [channels, height, width] = model.input();
    let values: Vec<f32> = (0..batch * channels * height * width).map(|index| (index % 17) as f32 / 8.0 - 1.0).collect();
    let run = move || {
        session.borrow_mut().run(Images::nhwc_f32(&values, [batch, channels, height, width])?)?;
        Ok(())
    };
    let macs: u64 = model.layers().iter().map(|layer| layer.macs).sum();
    Work { images: batch, flops: 2 * macs * batch as u64, run: Box::new(run) }
}

/// The kernel that does most of the multiply-adds.
fn main_kernel(model: &Model, session: &Session) -> Option<String> {
    let layers = model.layers();
    let macs = |name: &str| -> u64 { layers.iter().filter(|layer| layer.name == name).map(|layer| layer.macs).sum() };
    let kernels = session.kernels();
    let total = |kernel: &str| -> u64 { kernels.iter().filter(|(_, other)| *other == kernel).map(|(name, _)| macs(name)).sum() };
    kernels.iter().map(|(_, kernel)| *kernel).max_by_key(|kernel| total(kernel)).map(str::to_owned)
}
