//! Whether this process may use the processor's tile unit (AMX).

use std::sync::OnceLock;

/// True if the processor has tiles and multiplies bf16 in them, and the operating system lets this process use them. Asks once; from then on
/// all threads of the process may.
pub(super) fn are_permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| cfg!(leanresnet_tile_model) || (are_there() && is_granted()))
}

#[cfg(target_arch = "x86_64")]
fn are_there() -> bool {
    use super::processor::leaf;
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    leaf(0).eax >= 7 && leaf(7).edx & (BF16 | TILES) == BF16 | TILES
}

#[cfg(not(target_arch = "x86_64"))]
fn are_there() -> bool {
    false
}

/// Linux from 5.16 on gives a process the state of tiles only if it asks (`ARCH_REQ_XCOMP_PERM`), and refuses where a thread's alternate stack
/// for signals is too small for it. On other systems this crate does not use tiles.
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", feature = "bf16"))]
fn is_granted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: this call takes two numbers and no memory; a kernel that does not know it, or the state, returns an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", feature = "bf16")))]
fn is_granted() -> bool {
    false
}
