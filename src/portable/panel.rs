//! A panel's 32 lanes as four vectors.
#![forbid(unsafe_code)]

use crate::conv::pack::PANEL;
use wide::f32x8;

/// One value per lane of a panel.
pub(super) type Panel = [f32x8; PANEL / 8];

/// Up to a panel of values; lanes beyond are zero.
pub(super) fn load(values: &[f32]) -> Panel {
    let mut lanes = [0.0; PANEL];
    lanes[..values.len()].copy_from_slice(values);
    std::array::from_fn(|vector| f32x8::from(<[f32; 8]>::try_from(&lanes[8 * vector..8 * vector + 8]).unwrap_or([0.0; 8])))
}

/// Writes the first `to.len()` lanes.
pub(super) fn store(panel: &Panel, to: &mut [f32]) {
    for (vector, to) in panel.iter().zip(to.chunks_mut(8)) {
        to.copy_from_slice(&vector.to_array()[..to.len()]);
    }
}
