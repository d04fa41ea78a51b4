//! Spatial weights are stored as full squares; outside of their stencil they must be 0.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::net::parameters::{ParameterRole, ParameterSpec};
use crate::stencil::Stencil;

/// Checks the spatial weights of `tensors`, which are pairs of what a tensor should be and its values.
///
/// # Errors
/// [`Error::Model`] with `source_name` for the first value other than 0 outside of its stencil; the message names the smallest stencil
/// that all spatial weights of the same size fit.
pub(crate) fn check_taps<'a>(
    source_name: &str,
    tensors: impl Iterator<Item = (&'a ParameterSpec, &'a [f32])> + Clone,
) -> Result<()> {
    let spatial = tensors.filter_map(|(spec, values)| match spec.role {
        ParameterRole::SpatialWeight { stencil } => Some((spec, stencil, values)),
        _ => None,
    });
    for (spec, stencil, values) in spatial.clone() {
        let mask = stencil.mask();
        let Some(outside) = (0..values.len()).find(|&index| values[index] != 0.0 && !mask[index % mask.len()]) else { continue };
        let mut used = vec![false; mask.len()];
        for (_, _, values) in spatial.filter(|(_, other, _)| other.side() == stencil.side()) {
            for (index, &value) in values.iter().enumerate() {
                used[index % mask.len()] |= value != 0.0;
            }
        }
        let side = stencil.side();
        let (row, column) = (outside % mask.len() / side, outside % side);
        return Err(Error::model(
            source_name,
            format!("{} outside of its stencil", spec.name),
            format!("zeros outside of {stencil} (the smallest stencil that fits the file is {})", smallest_stencil(&used)),
            format!("{:?} in row {row}, column {column} of channel {}", values[outside], outside / (mask.len() * spec.shape[1])),
        ));
    }
    Ok(())
}

/// The name of the stencil with the fewest taps that has all taps that are `used`.
fn smallest_stencil(used: &[bool]) -> &'static str {
    let fits = |mask: &[bool]| mask.len() == used.len() && used.iter().zip(mask).all(|(used, tap)| *tap || !used);
    let fitting = Stencil::ALL.iter().filter(|stencil| fits(&stencil.mask()));
    fitting.min_by_key(|stencil| stencil.taps().len()).map_or("none", |stencil| stencil.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_stencil_has_all_used_taps() {
        let used = |taps: &[usize]| (0..9).map(|index| taps.contains(&index)).collect::<Vec<bool>>();
        assert_eq!(smallest_stencil(&used(&[])), "row3");
        assert_eq!(smallest_stencil(&used(&[1, 7])), "col3");
        assert_eq!(smallest_stencil(&used(&[1, 3, 7])), "cross4");
        assert_eq!(smallest_stencil(&used(&[1, 4])), "col3");
        assert_eq!(smallest_stencil(&used(&[1, 3, 4])), "cross5");
        assert_eq!(smallest_stencil(&used(&[1, 2])), "box9");
        assert_eq!(smallest_stencil(&[true; 25]), "box25");
    }
}
