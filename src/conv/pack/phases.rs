//! The parts that a strided convolution's transpose falls into: one per residue of the input index modulo the stride.
#![forbid(unsafe_code)]

/// For one phase (input index modulo stride) of a convolution with padding (side - 1) / 2: the kernel indices that reach it, in the
/// order in which the transpose reads the gradient from low to high index.
///
/// Input i = stride * q + phase is reached from output o by tap t where i = stride * o + t - padding; so t = phase + padding modulo
/// stride, and o = q + (phase + padding - t) / stride: a larger t reads a smaller o.
pub fn phase_taps(side: usize, stride: usize, phase: usize) -> Vec<usize> {
    let padding = (side - 1) / 2;
    (0..side).rev().filter(|tap| tap % stride == (phase + padding) % stride).collect()
}

/// First gradient index that phase `phase` reads for q = 0; the other taps follow without gaps.
pub fn phase_first(side: usize, stride: usize, phase: usize) -> isize {
    let padding = (side - 1) / 2;
    let taps = phase_taps(side, stride, phase);
    taps.first().map_or(0, |&tap| ((phase + padding) as isize - tap as isize) / stride as isize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_cover_every_tap_once() {
        for side in [1, 3, 7] {
            for stride in [1, 2, 4] {
                let mut taps: Vec<usize> = (0..stride).flat_map(|phase| phase_taps(side, stride, phase)).collect();
                taps.sort_unstable();
                assert_eq!(taps, (0..side).collect::<Vec<_>>(), "side {side} stride {stride}");
            }
        }
    }
}
