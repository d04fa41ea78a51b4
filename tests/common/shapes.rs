//! Image sizes and channel counts on both sides of every boundary of a kernel: vectors, panels, tiles.
#![forbid(unsafe_code)]

/// What a kernel computes at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// Numbers in one vector.
    pub(crate) lanes: usize,
    /// Output pixels (MR).
    pub(crate) pixels: usize,
    /// Output channels (NR).
    pub(crate) channels: usize,
}

/// Channel counts around the vector and around one and two panels.
pub(crate) fn channel_counts(tile: Tile) -> Vec<usize> {
    let Tile { lanes, channels, .. } = tile;
    sorted(vec![
        1,
        lanes.saturating_sub(1),
        lanes,
        lanes + 1,
        channels.saturating_sub(1),
        channels,
        channels + 1,
        2 * channels + 3,
    ])
}

/// `(height, width)`: a single pixel, single rows and columns around one and two tiles, and small images whose rows or whose
/// whole size end just before, at and just after a tile.
pub(crate) fn image_sizes(tile: Tile) -> Vec<(usize, usize)> {
    let around = |size: usize| [size.saturating_sub(1), size, size + 1];
    let mut sizes = vec![(1, 1), (2, 2), (3, 3), (5, 7)];
    for length in around(tile.pixels).into_iter().chain(around(2 * tile.pixels)) {
        sizes.extend([(1, length), (length, 1)]);
    }
    for width in around(tile.pixels) {
        sizes.extend([(2, width), (3, width)]);
    }
    for length in around(tile.pixels.div_ceil(2)) {
        sizes.extend([(length, 2), (length, 4)]);
    }
    sizes.retain(|&(height, width)| height > 0 && width > 0);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// `(height, width, channels)`: every image size with every channel count.
pub(crate) fn shapes(tile: Tile) -> Vec<(usize, usize, usize)> {
    let counts = channel_counts(tile);
    image_sizes(tile).into_iter().flat_map(|(height, width)| counts.iter().map(move |&c| (height, width, c))).collect()
}

fn sorted(mut values: Vec<usize>) -> Vec<usize> {
    values.retain(|&value| value > 0);
    values.sort_unstable();
    values.dedup();
    values
}
