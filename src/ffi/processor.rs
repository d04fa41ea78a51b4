//! What the processor says about itself.

/// A leaf of CPUID, subleaf 0.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "newer versions of Rust call it without")]
pub(super) fn leaf(number: u32) -> std::arch::x86_64::CpuidResult {
    // SAFETY: every processor of this architecture has the instruction, which touches no memory.
    unsafe { std::arch::x86_64::__cpuid_count(number, 0) }
}

/// True on processors by Intel.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_intel() -> bool {
    let vendor = leaf(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// False on all other architectures.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn is_intel() -> bool {
    false
}
