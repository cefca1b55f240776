//! `benchwright graph`: a plan's graph as text or as a picture.

use super::{Session, write_out};
use crate::args::{Graph, GraphFormat};
use crate::drawing::{self, Drawing};
use crate::exit::{self, Failure};
use std::path::Path;

/// Draws a plan.
pub(super) fn graph(arguments: &Graph, session: &Session) -> Result<u8, Failure> {
    let loaded = arguments.plan.load(&(session.library)());
    let expanded = match loaded.or_draw(&session.terminal) {
        Ok(expanded) => expanded,
        Err(code) => return Ok(code),
    };
    let drawing = Drawing::of(&expanded.name, &expanded.graph);
    let text = match format(arguments) {
        GraphFormat::Dot => drawing::dot(&drawing),
        GraphFormat::Mermaid => drawing::mermaid(&drawing),
        GraphFormat::Svg => drawing::svg(&drawing),
    };
    write_out(arguments.output.as_deref(), text.as_bytes())?;
    Ok(exit::DONE)
}

fn format(arguments: &Graph) -> GraphFormat {
    let extension = arguments
        .output
        .as_deref()
        .and_then(Path::extension)
        .and_then(|e| e.to_str());
    arguments.format.unwrap_or(match extension {
        Some("svg") => GraphFormat::Svg,
        Some("md" | "mmd" | "mermaid") => GraphFormat::Mermaid,
        _ => GraphFormat::Dot,
    })
}
