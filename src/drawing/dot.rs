//! A drawing as text for Graphviz.

use super::{Drawing, NodeBox};
use engine::graph::Edge;

/// Writes a drawing in the DOT language.
pub(crate) fn dot(drawing: &Drawing) -> String {
    let mut text = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n",
        quote(&drawing.title)
    );
    for node in &drawing.boxes {
        let mut label = format!("{}\n{} ({})", node.name, node.uses, node.kind);
        if !node.note.is_empty() {
            label.push_str(&format!("\n{}", node.note));
        }
        text.push_str(&format!(
            "  {} [label={}{}];\n",
            quote(&node.name),
            quote(&label),
            look(node)
        ));
    }
    for arrow in &drawing.arrows {
        let style = match arrow.edge {
            Edge::Needs | Edge::Reads => "",
            Edge::Leases => " [style=dashed, label=\"leases\"]",
            Edge::After => " [style=dotted, label=\"after\"]",
        };
        let (from, to) = (
            &drawing.boxes[arrow.from].name,
            &drawing.boxes[arrow.to].name,
        );
        text.push_str(&format!("  {} -> {}{style};\n", quote(from), quote(to)));
    }
    text.push_str("}\n");
    text
}

/// The shape and the colours of a box.
fn look(node: &NodeBox) -> String {
    let mut style = Vec::new();
    if node.is_service() {
        style.push("rounded");
    }
    let Some(state) = node.state else {
        return match style.is_empty() {
            true => String::new(),
            false => ", style=rounded".to_owned(),
        };
    };
    style.push("filled");
    if state.is_dashed() {
        style.push("dashed");
    }
    let colors = state.colors();
    format!(
        ", style=\"{}\", fillcolor=\"{}\", color=\"{}\"",
        style.join(","),
        colors.fill,
        colors.line
    )
}

fn quote(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::State;

    #[test]
    fn states_are_words_and_colours() {
        let text = dot(&crate::drawing::sample().marked(|name| match name {
            "warm" => Some((State::MayRun, "may run".to_owned())),
            _ => None,
        }));
        let wanted = r##""warm" [label="warm\nload.warm (effect)\nmay run", style="filled,dashed", fillcolor="#fffdf0", color="#bf8700"];"##;
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn names_are_quoted_and_edges_are_told_apart() {
        let text = dot(&crate::drawing::sample());
        assert!(text.starts_with("digraph \"a <plan>\" {\n"), "{text}");
        assert!(
            text.contains(
                r#""load[mode=\"a&b\"]" [label="load[mode=\"a&b\"]\nload.test (measure)"];"#
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "\"server\" [label=\"server\\nserver.embedded (service)\", style=rounded];"
            ),
            "{text}"
        );
        assert!(text.contains("\"model\" -> \"server\";"), "{text}");
        assert!(
            text.contains("\"server\" -> \"warm\" [style=dashed, label=\"leases\"];"),
            "{text}"
        );
        assert_eq!(text.matches(" -> ").count(), 5);
    }
}
