//! Spatial weights are stored as full squares; outside of their stencil they must be 0, and those of shifts hold a single 1 per channel.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::net::parameters::{ParameterRole, ParameterSpec};
use crate::stencil::Stencil;

/// Checks the spatial weights of `tensors`, which are pairs of what a tensor should be and its values.
///
/// # Errors
/// [`Error::Model`] with `source_name` for the first value other than 0 outside of its stencil; the message names the smallest stencil
/// that all spatial weights of the same size fit. The same for a channel of a shift that does not hold a single 1 and zeros.
pub(crate) fn check_taps<'a>(
    source_name: &str,
    tensors: impl Iterator<Item = (&'a ParameterSpec, &'a [f32])> + Clone,
) -> Result<()> {
    for (spec, values) in tensors.clone().filter(|(spec, _)| spec.role == ParameterRole::ShiftWeight) {
        check_shift(source_name, &spec.name, values)?;
    }
    let spatial = tensors.filter_map(|(spec, values)| Some((spec, spec.role.stencil()?, values)));
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
            format!(
                "zeros outside of {stencil} (the smallest stencil that fits the file is {})",
                smallest_stencil(&used).map_or("none", Stencil::name)
            ),
            format!("{:?} in row {row}, column {column} of channel {}", values[outside], outside / (mask.len() * spec.shape[1])),
        ));
    }
    Ok(())
}

/// Checks that every square of 3x3 holds a single 1 and zeros.
fn check_shift(source_name: &str, name: &str, values: &[f32]) -> Result<()> {
    let is_shift = |square: &[f32]| {
        square.iter().filter(|value| **value == 1.0).count() == 1 && square.iter().filter(|value| **value != 0.0).count() == 1
    };
    match values.chunks_exact(9).position(|square| !is_shift(square)) {
        None => Ok(()),
        Some(channel) => Err(Error::model(
            source_name,
            format!("{name} is no shift"),
            "a single 1 and zeros in every channel",
            format!("{:?} in channel {channel}", &values[9 * channel..9 * channel + 9]),
        )),
    }
}

/// The stencil with the fewest taps that has all taps that are `used`, the values of a square row by row.
pub(crate) fn smallest_stencil(used: &[bool]) -> Option<Stencil> {
    let fits = |mask: &[bool]| mask.len() == used.len() && used.iter().zip(mask).all(|(used, tap)| *tap || !used);
    let fitting = Stencil::ALL.iter().filter(|stencil| fits(&stencil.mask()));
    fitting.min_by_key(|stencil| stencil.taps().len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_stencil_has_all_used_taps() {
        let used = |taps: &[usize]| (0..9).map(|index| taps.contains(&index)).collect::<Vec<bool>>();
        assert_eq!(smallest_stencil(&used(&[])), Some(Stencil::Row3));
        assert_eq!(smallest_stencil(&used(&[1, 7])), Some(Stencil::Col3));
        assert_eq!(smallest_stencil(&used(&[1, 3, 7])), Some(Stencil::Cross4));
        assert_eq!(smallest_stencil(&used(&[1, 4])), Some(Stencil::Col3));
        assert_eq!(smallest_stencil(&used(&[1, 3, 4])), Some(Stencil::Cross5));
        assert_eq!(smallest_stencil(&used(&[1, 2])), Some(Stencil::Box9));
        assert_eq!(smallest_stencil(&[true; 25]), Some(Stencil::Box25));
    }
}
