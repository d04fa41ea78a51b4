//! Which convolutions are the two parts of a lean convolution.
#![forbid(unsafe_code)]

use crate::conv::pack::GROUP_SIZES;
use crate::net::taps::smallest_stencil;
use crate::onnx::import::draft::{Convolution, Window};
use crate::stencil::Stencil;

/// The stencil part of a lean convolution.
pub(super) struct Spatial {
    pub(super) stencil: Stencil,
    pub(super) group_size: usize,
    /// `[channels, channels of a group, side, side]`.
    pub(super) weight: Vec<f32>,
}

/// Whether it is a 1x1 convolution of all channels to as many.
pub(super) fn is_pointwise(convolution: &Convolution, channels: usize) -> bool {
    convolution.window == Window::PIXEL && convolution.groups == 1 && convolution.outputs() == channels
}

/// The stencil that a convolution in small groups is: as many outputs as inputs, as many pixels out as in, and no tap but zeros further
/// than two pixels away. A single group of several channels is a dense convolution, which has kernels of its own.
pub(super) fn stencil_of(convolution: &Convolution, channels: usize) -> Option<Spatial> {
    let Convolution { window: Window { kernel, stride, padding, dilation }, groups, .. } = *convolution;
    let group_size = channels / groups;
    let keeps_size = (0..2).all(|axis| padding[axis] + padding[axis + 2] == (kernel[axis] - 1) * dilation);
    if (groups == 1 && channels > 1)
        || convolution.outputs() != channels
        || stride != 1
        || !keeps_size
        || !GROUP_SIZES.contains(&group_size)
    {
        return None;
    }
    let offset = |tap: usize, axis: usize| (tap * dilation) as isize - padding[axis] as isize;
    let taps = kernel[0] * kernel[1];
    let places: Vec<[isize; 2]> = (0..taps).map(|tap| [offset(tap / kernel[1], 0), offset(tap % kernel[1], 1)]).collect();
    let mut is_used = vec![false; taps];
    for values in convolution.weight.chunks_exact(taps) {
        is_used.iter_mut().zip(values).for_each(|(used, value)| *used |= *value != 0.0);
    }
    let used = (0..taps).filter(|&tap| is_used[tap]);
    let radius = used.flat_map(|tap| places[tap]).map(isize::unsigned_abs).max().unwrap_or(0).max(1);
    if radius > 2 {
        return None;
    }
    let side = 2 * radius + 1;
    let index = |[row, column]: [isize; 2]| ((row + radius as isize) as usize) * side + (column + radius as isize) as usize;
    let mut mask = vec![false; side * side];
    let mut weight = vec![0.0; channels * group_size * side * side];
    for tap in (0..taps).filter(|&tap| is_used[tap]) {
        mask[index(places[tap])] = true;
        for (square, values) in weight.chunks_exact_mut(side * side).zip(convolution.weight.chunks_exact(taps)) {
            square[index(places[tap])] = values[tap];
        }
    }
    Some(Spatial { stencil: smallest_stencil(&mask)?, group_size, weight: convolution.map.weights(&weight) })
}

/// The name of what two parts belong to: what their names have in common up to a separator, or the first one.
pub(super) fn common_name(first: &str, second: &str) -> String {
    let common = first.char_indices().zip(second.chars()).take_while(|((_, a), b)| a == b).last();
    let length = common.map_or(0, |((at, character), _)| at + character.len_utf8());
    match first[..length].rfind(['.', '/']) {
        Some(end) if end > 0 => first[..end].to_owned(),
        _ => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::channel_map::ChannelMap;
    use std::rc::Rc;

    fn depthwise(kernel: [usize; 2], padding: [usize; 4], dilation: usize, taps: &[f32]) -> Convolution {
        let window = Window { kernel, stride: 1, padding, dilation };
        Convolution { window, groups: 3, weight: Rc::new(taps.repeat(3)), map: ChannelMap::identity(3) }
    }

    #[test]
    fn the_smallest_stencil_of_the_taps() {
        let stencil = |convolution: &Convolution| stencil_of(convolution, 3).map(|spatial| spatial.stencil);
        let square = |taps: &[f32]| stencil(&depthwise([3, 3], [1; 4], 1, taps));
        assert_eq!(square(&[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]), Some(Stencil::Cross4));
        assert_eq!(square(&[0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]), Some(Stencil::Cross5));
        assert_eq!(square(&[1.0; 9]), Some(Stencil::Box9));
        assert_eq!(square(&[0.0; 9]), Some(Stencil::Row3));
        assert_eq!(stencil(&depthwise([1, 3], [0, 1, 0, 1], 1, &[1.0; 3])), Some(Stencil::Row3));
        assert_eq!(stencil(&depthwise([3, 1], [1, 0, 1, 0], 1, &[1.0; 3])), Some(Stencil::Col3));
        assert_eq!(stencil(&depthwise([5, 5], [2; 4], 1, &[1.0; 25])), Some(Stencil::Box25));
        assert_eq!(stencil(&depthwise([3, 3], [2; 4], 2, &[1.0; 9])), Some(Stencil::Box25));
        assert_eq!(stencil(&depthwise([3, 3], [3; 4], 3, &[1.0; 9])), None);
        // Only the tap in the middle of a wide kernel.
        let mut wide = [0.0; 49];
        wide[24] = 1.0;
        assert_eq!(stencil(&depthwise([7, 7], [3; 4], 1, &wide)), Some(Stencil::Row3));
        // Padding on one side: the pixel itself and the one to the left.
        let spatial = stencil_of(&depthwise([1, 2], [0, 1, 0, 0], 1, &[5.0, 6.0]), 3).unwrap();
        assert_eq!((spatial.stencil, &spatial.weight[..9]), (Stencil::Row3, &[0.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0][..]));
        // Another size of the output.
        assert_eq!(stencil(&depthwise([3, 3], [0; 4], 1, &[1.0; 9])), None);
    }

    #[test]
    fn parts_are_named_after_what_they_belong_to() {
        assert_eq!(common_name("stages.0.1.conv1.spatial", "stages.0.1.conv1.pointwise"), "stages.0.1.conv1");
        assert_eq!(common_name("/conv1/spatial/Conv", "/conv1/pointwise/Conv"), "/conv1");
        assert_eq!(common_name("Conv_1", "Conv_2"), "Conv_1");
        assert_eq!(common_name("a.é", "a.è"), "a");
    }
}
