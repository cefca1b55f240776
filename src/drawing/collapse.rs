//! Many instances as one box: a drawing with a box for each declaration and how its instances do.

use super::{Arrow, Drawing, NodeBox, State};
use std::collections::{BTreeMap, BTreeSet};

impl Drawing {
    /// Draws the instances of each declaration as one box.
    pub(crate) fn collapsed(&self) -> Self {
        let mut place: BTreeMap<&str, usize> = BTreeMap::new();
        let mut groups: Vec<Vec<&NodeBox>> = Vec::new();
        for node in &self.boxes {
            let at = *place.entry(&node.decl).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[at].push(node);
        }
        let of_box = |at: usize| place.get(self.boxes[at].decl.as_str()).copied();
        let arrows = self.arrows.iter().filter_map(|arrow| {
            let (from, to) = (of_box(arrow.from)?, of_box(arrow.to)?);
            Some((to, from, arrow.edge as u8, arrow.edge))
        });
        let mut seen = BTreeSet::new();
        let mut arrows: Vec<Arrow> = arrows
            .filter(|(to, from, kind, _)| seen.insert((*to, *from, *kind)))
            .map(|(to, from, _, edge)| Arrow { from, to, edge })
            .collect();
        arrows.sort_by_key(|a| (a.to, a.from));
        Self {
            title: self.title.clone(),
            boxes: groups.iter().map(|group| collapse(group)).collect(),
            arrows,
        }
    }
}

fn collapse(group: &[&NodeBox]) -> NodeBox {
    let mut all = group[0].clone();
    if group.len() > 1 {
        all.name = format!("{} × {}", all.decl, group.len());
        all.note = counts(group);
        all.state = group.iter().filter_map(|node| node.state).min();
    }
    all
}

/// Counts instances by state, such as `4 will run, 8 reused`.
fn counts(group: &[&NodeBox]) -> String {
    let mut counted: BTreeMap<State, (usize, &str)> = BTreeMap::new();
    for node in group {
        if let Some(state) = node.state {
            counted.entry(state).or_insert((0, state.word())).0 += 1;
        }
    }
    match counted.values().next() {
        // All alike: the count stands in the name.
        Some((_, word)) if counted.len() == 1 => (*word).to_owned(),
        _ => {
            let words = counted.values().map(|(n, word)| format!("{n} {word}"));
            words.collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::graph::Edge;

    fn instance(decl: &str, axis: usize, state: State) -> NodeBox {
        NodeBox {
            name: format!("{decl}[n={axis}]"),
            decl: decl.to_owned(),
            uses: "x.y".to_owned(),
            kind: "pure",
            state: Some(state),
            note: state.word().to_owned(),
        }
    }

    #[test]
    fn instances_become_one_box_and_their_arrows_one_arrow() {
        let mut boxes = vec![instance("a", 0, State::Reused)];
        boxes.extend((0..3).map(|n| instance("b", n, State::Reused)));
        boxes[2].state = Some(State::WillRun);
        let arrows = (1..4).map(|to| Arrow {
            from: 0,
            to,
            edge: Edge::Needs,
        });
        let drawing = Drawing {
            title: "p".into(),
            boxes,
            arrows: arrows.collect(),
        };
        let small = drawing.collapsed();
        let names: Vec<&str> = small.boxes.iter().map(|b| b.name.as_str()).collect();
        assert_eq!(names, ["a[n=0]", "b × 3"]);
        assert_eq!(small.boxes[1].note, "1 will run, 2 reused");
        assert_eq!(small.boxes[1].state, Some(State::WillRun));
        assert_eq!(small.arrows.len(), 1);
    }

    #[test]
    fn instances_that_are_all_alike_are_named_once() {
        let boxes: Vec<NodeBox> = (0..2).map(|n| instance("b", n, State::Done)).collect();
        let drawing = Drawing {
            boxes,
            ..Drawing::default()
        };
        assert_eq!(drawing.collapsed().boxes[0].note, "done");
    }
}
