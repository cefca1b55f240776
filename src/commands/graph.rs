//! `benchwright graph`: a plan's graph as text or as a picture.

use super::Session;
use crate::args::{Graph, GraphFormat};
use crate::drawing::{self, Drawing};
use crate::exit::{self, Failure};
use crate::terminal;
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
    match &arguments.output {
        Some(file) => std::fs::write(file, text).map_err(|e| {
            Failure::new(format!("could not write `{}`: {e}", file.display()))
                .help("give a file in a folder that exists and is writable")
        })?,
        None => terminal::write(text.as_bytes()),
    }
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
