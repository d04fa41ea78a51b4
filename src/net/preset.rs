//! The networks that have a name. A released preset never changes; a retuned one gets another name.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::net::table::{BlockTable, NetworkTable, StageTable, StemTable};

/// The names that [`table`] knows.
pub(crate) const NAMES: &[&str] = &["small", "base", "imagenet"];

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
        _ => Err(Error::invalid("preset", format!("one of {}", NAMES.join(", ")), format!("`{name}`"))),
    }
}

/// Stages from their (width, blocks).
#[expect(clippy::unnecessary_wraps, reason = "the type of the table's key")]
fn stages(sizes: &[(usize, usize)]) -> Option<Vec<StageTable>> {
    Some(sizes.iter().map(|&(width, blocks)| StageTable { width, blocks, block: BlockTable::default() }).collect())
}
