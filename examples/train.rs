//! A training loop of one's own: `cargo run --release --example train --features train`.
//!
//! `Trainer::fit` does all of this, with files, checkpoints and an exact resume; a loop like this one is for what it does not do.
#![forbid(unsafe_code)]

use leanresnet::data::{Augmentation, BatchLoader, SoftLabel, Split, Synthetic, epoch_order, measure_preprocess};
use leanresnet::train::{Batch, TrainConfig, Trainer};
use leanresnet::{Network, Pool, Result};

fn main() -> Result<()> {
    const EPOCHS: u64 = 2;
    const BATCH: usize = 64;
    let pool = Pool::shared();
    let (images, test) = (Synthetic::new(1, Split::Train, 2560), Synthetic::new(1, Split::Test, 512));
    let preprocess = measure_preprocess(&images, &pool)?;
    let augmentation = Augmentation::default().with_crop(4).with_flip(true);

    let config = TrainConfig::default().with_epochs(EPOCHS).with_batch(BATCH);
    let seed = config.seed;
    let network = Network::builder().with_stage(16, 1).with_stage(32, 1).build()?;
    let mut trainer = Trainer::new(&network, config)?.with_preprocess(preprocess.clone()).with_training_images(2560);

    let mut loader = BatchLoader::new(&images, &preprocess, augmentation, seed)?.with_pool(pool);
    let mut pixels = vec![0.0; BATCH * 3 * 32 * 32];
    let mut labels = vec![SoftLabel::default(); BATCH];
    for epoch in 0..EPOCHS {
        for samples in epoch_order(seed, epoch, 2560).chunks_exact(BATCH) {
            loader.load(epoch, samples, &mut pixels, &mut labels)?;
            let report = trainer.step(&Batch { images: &pixels, labels: &labels })?;
            if report.position % 10 == 0 {
                println!("epoch {epoch}, step {}: loss {:.3}, gradient {:.2}", report.step, report.loss, report.gradient_norm);
            }
        }
        let evaluation = trainer.evaluate(&test)?;
        println!("epoch {epoch}: {:.1} % of the test images", 100.0 * evaluation.top1());
    }
    trainer.model()?.save(std::env::temp_dir().join("leanresnet-example.safetensors"))
}
