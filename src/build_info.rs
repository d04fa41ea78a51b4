//! How this copy of the crate was built.
#![forbid(unsafe_code)]

use crate::ffi;
use crate::isa::Isa;

/// The first line that the C compiler says about itself; none if it compiled no kernels.
pub fn c_compiler() -> Option<&'static str> {
    option_env!("LEANRESNET_C_COMPILER").filter(|text| !text.is_empty())
}

/// The instruction sets with C kernels in this build, whether this machine can run them or not.
pub fn compiled_isas() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| ffi::KERNELS.iter().any(|kernel| kernel.isa == *isa)).collect()
}

/// Why kernels are missing from this build; empty if none is.
pub fn kernel_notes() -> &'static str {
    env!("LEANRESNET_KERNEL_NOTES")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_a_compiler_and_missing_ones_a_reason() {
        assert_eq!(compiled_isas().is_empty(), c_compiler().is_none());
        if cfg!(all(feature = "c-kernels", any(target_arch = "x86_64", target_arch = "aarch64"))) {
            assert!(!compiled_isas().is_empty() || !kernel_notes().is_empty());
        }
    }
}
