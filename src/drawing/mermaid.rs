//! A drawing as text for Mermaid, which Markdown viewers draw.

use super::Drawing;
use super::legend::states;
use engine::graph::Edge;

/// Writes a drawing as a Mermaid flowchart.
pub(crate) fn mermaid(drawing: &Drawing) -> String {
    let mut text = String::from("flowchart LR\n");
    for (i, node) in drawing.boxes.iter().enumerate() {
        let mut label = format!(
            "{}<br/><small>{} ({})</small>",
            escape(&node.name),
            escape(&node.uses),
            node.kind
        );
        if !node.note.is_empty() {
            label.push_str(&format!("<br/><small>{}</small>", escape(&node.note)));
        }
        let class = node
            .state
            .map_or_else(String::new, |state| format!(":::{}", state.class()));
        let (open, close) = if node.is_service() {
            ("([", "])")
        } else {
            ("[", "]")
        };
        text.push_str(&format!("  n{i}{open}\"{label}\"{close}{class}\n"));
    }
    for arrow in &drawing.arrows {
        let line = match arrow.edge {
            Edge::Needs | Edge::Reads => "-->",
            Edge::Leases => "-. leases .->",
            Edge::After => "-. after .->",
        };
        text.push_str(&format!("  n{} {line} n{}\n", arrow.from, arrow.to));
    }
    for state in states(drawing) {
        let colors = state.colors();
        let dashes = if state.is_dashed() {
            ",stroke-dasharray:4"
        } else {
            ""
        };
        text.push_str(&format!(
            "  classDef {} fill:{},stroke:{},color:#1f2328{dashes}\n",
            state.class(),
            colors.fill,
            colors.line
        ));
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
    use crate::drawing::State;

    #[test]
    fn a_state_is_a_class_that_is_defined() {
        let text = mermaid(&crate::drawing::sample().marked(|name| match name {
            "model" => Some((State::Reused, "reused".to_owned())),
            _ => None,
        }));
        assert!(
            text.contains("<small>reused</small>\"]:::reused\n"),
            "{text}"
        );
        let wanted = "  classDef reused fill:#dafbe1,stroke:#1a7f37,color:#1f2328\n";
        assert!(text.ends_with(wanted), "{text}");
    }

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
