//! A drawing as text for Mermaid, which Markdown viewers draw.

use super::Drawing;
use engine::graph::Edge;

/// Writes a drawing as a Mermaid flowchart.
pub(crate) fn mermaid(drawing: &Drawing) -> String {
    let mut text = String::from("flowchart LR\n");
    for (i, node) in drawing.boxes.iter().enumerate() {
        let label = format!(
            "{}<br/><small>{} ({})</small>",
            escape(&node.name),
            escape(&node.uses),
            node.kind
        );
        let (open, close) = if node.is_service() {
            ("([", "])")
        } else {
            ("[", "]")
        };
        text.push_str(&format!("  n{i}{open}\"{label}\"{close}\n"));
    }
    for arrow in &drawing.arrows {
        let line = match arrow.edge {
            Edge::Needs | Edge::Reads => "-->",
            Edge::Leases => "-. leases .->",
            Edge::After => "-. after .->",
        };
        text.push_str(&format!("  n{} {line} n{}\n", arrow.from, arrow.to));
    }
    text
}

/// Mermaid reads entities without the ampersand: `#quot;`.
fn escape(text: &str) -> String {
    text.replace('#', "#35;")
        .replace('&', "#amp;")
        .replace('"', "#quot;")
        .replace('<', "#lt;")
        .replace('>', "#gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_have_short_names_and_labels_cannot_break_out() {
        let text = mermaid(&crate::drawing::sample());
        assert!(text.starts_with("flowchart LR\n"));
        assert!(
            text.contains(
                "n3[\"load[mode=#quot;a#amp;b#quot;]<br/><small>load.test (measure)</small>\"]"
            ),
            "{text}"
        );
        assert!(text.contains("n1([\"server<br/>"), "{text}");
        assert!(text.contains("n1 -. leases .-> n3\n"), "{text}");
        assert!(text.contains("n0 --> n3\n"), "{text}");
    }
}
