//! What this crate says of CUPTI, held to NVIDIA's own headers and libraries of many versions, as PyPI has
//! them. Nothing of them is part of this project.

#[path = "../child/mod.rs"]
mod child;

mod with_cupti_wheels;
