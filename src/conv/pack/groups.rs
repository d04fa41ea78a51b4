//! Groups of channels, all of which a tap of a stencil reads.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Channels that a tap of a stencil can read: groups of this many channels have kernels.
pub const GROUP_SIZES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Checks that there are kernels for groups of this size, and that they fill the channels.
pub(crate) fn check_groups(group_size: usize, channels: usize) -> Result<()> {
    if !GROUP_SIZES.contains(&group_size) {
        return Err(Error::invalid("group size", "one of 1, 2, 4, 8, 16, 32", group_size));
    }
    if !channels.is_multiple_of(group_size) {
        return Err(Error::invalid("group size", format!("a divisor of {channels} channels"), group_size));
    }
    Ok(())
}

/// The channel of its group that output channel `channel` reads in turn `turn`. Up to 8 channels, all lanes of a vector read different
/// ones, which one exchange of lanes brings in place; beyond, all read the same one, a broadcast.
pub(crate) fn channel_of_turn(group_size: usize, channel: usize, turn: usize) -> usize {
    if group_size <= 8 { (channel % group_size) ^ turn } else { turn }
}
