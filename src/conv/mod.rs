//! Convolutions: packed weights, descriptions, plans.

pub mod pack;
