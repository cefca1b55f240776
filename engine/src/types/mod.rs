//! The types that options can have.

mod references;

mod plain;

mod durations;

mod collections;

mod arguments;
mod pattern;

pub use arguments::{Argument, Arguments};
pub use collections::{Json, Nested};
pub use durations::{duration_text, parse_duration};
pub use pattern::Pattern;
pub use plain::{Positive, number_text};
pub use references::{Any, Artifact, ArtifactKind, Lease, NUMBER, Origin, Samples, Text, TextPart};
