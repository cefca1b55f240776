//! A drawing as text for Graphviz.

use super::Drawing;
use engine::graph::Edge;

/// Writes a drawing in the DOT language.
pub(crate) fn dot(drawing: &Drawing) -> String {
    let mut text = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n",
        quote(&drawing.title)
    );
    for node in &drawing.boxes {
        let shape = if node.is_service() {
            ", style=rounded"
        } else {
            ""
        };
        let label = format!("{}\n{} ({})", node.name, node.uses, node.kind);
        text.push_str(&format!(
            "  {} [label={}{shape}];\n",
            quote(&node.name),
            quote(&label)
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
