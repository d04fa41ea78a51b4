//! The networks that have a name. A released preset never changes; a retuned one gets another name.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::net::table::{BlockTable, NetworkTable, StageTable, StemTable};
use crate::stencil::Stencil;

/// The names that [`table`] knows.
pub(crate) const NAMES: &[&str] = &["small", "base", "imagenet", "cifar10-s", "cifar10-m", "cifar10-fast"];

/// The `[network]` table of a preset.
///
/// # Errors
/// [`Error::Invalid`] for an unknown name; the message lists the known ones.
pub(crate) fn table(name: &str) -> Result<NetworkTable> {
    match name {
        "small" => Ok(NetworkTable { stages: stages(&[(32, 3), (64, 3), (128, 3)]), ..NetworkTable::default() }),
        "base" => Ok(NetworkTable { stages: stages(&[(64, 5), (128, 5), (256, 5)]), ..NetworkTable::default() }),
        "imagenet" => Ok(NetworkTable {
            input: Some([3, 224, 224]),
            classes: Some(1000),
            stem: StemTable { kernel: Some(7), stride: Some(4), ..StemTable::default() },
            stages: stages(&[(64, 3), (128, 4), (256, 6), (512, 3)]),
            ..NetworkTable::default()
        }),
        "cifar10-s" => {
            Ok(NetworkTable { stages: stages(&[(48, 4), (96, 3), (192, 2)]), block: accurate_block(), ..NetworkTable::default() })
        }
        "cifar10-m" => Ok(NetworkTable {
            stages: stages(&[(64, 6), (128, 5), (256, 4)]),
            block: accurate_block(),
            ..NetworkTable::default()
        }),
        "cifar10-fast" => Ok(NetworkTable {
            stages: stages(&[(32, 1), (64, 2), (128, 2), (256, 1)]),
            block: accurate_block(),
            ..NetworkTable::default()
        }),
        _ => Err(Error::invalid("preset", format!("one of {}", NAMES.join(", ")), format!("`{name}`"))),
    }
}

/// The block of the presets that are tuned for accuracy: whole 3x3 stencils, norms around both convolutions, ReLU after the sum.
fn accurate_block() -> BlockTable {
    BlockTable { stencils: Some([Stencil::Box9; 2]), norms: Some(2), relu_after_sum: Some(true), ..BlockTable::default() }
}

/// Stages from their (width, blocks).
#[expect(clippy::unnecessary_wraps, reason = "the type of the table's key")]
fn stages(sizes: &[(usize, usize)]) -> Option<Vec<StageTable>> {
    Some(sizes.iter().map(|&(width, blocks)| StageTable { width, blocks, block: BlockTable::default() }).collect())
}
