//! The key `stencil` of a block: one name, or a list of two for the two convolutions.
#![forbid(unsafe_code)]

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::stencil::Stencil;

/// Writes one name where both convolutions have the same stencil.
#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
pub(super) fn serialize<S: Serializer>(stencils: &Option<[Stencil; 2]>, serializer: S) -> Result<S::Ok, S::Error> {
    match stencils {
        Some([first, second]) if first == second => first.serialize(serializer),
        other => other.serialize(serializer),
    }
}

/// Reads one name or a list of two.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[Stencil; 2]>, D::Error> {
    deserializer.deserialize_any(NameOrPair).map(Some)
}

struct NameOrPair;

impl<'de> Visitor<'de> for NameOrPair {
    type Value = [Stencil; 2];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a stencil, or a list of two")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok([Stencil::deserialize(StrDeserializer::<E>::new(name))?; 2])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut next = |position: usize| list.next_element()?.ok_or_else(|| Error::invalid_length(position, &self));
        let stencils = [next(0)?, next(1)?];
        if list.next_element::<Stencil>()?.is_some() {
            return Err(Error::invalid_length(3, &self));
        }
        Ok(stencils)
    }
}
