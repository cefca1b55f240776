//! A table that is resolved once for all instances, but for what differs between them: the places
//! where an axis is named are found once, and filled for every instance.

use super::meaning::{Meaning, meaning};
use super::{Raw, Resolved, Scope, joined, locate, plain_text, resolve, split, string};
use crate::point::Point;
use crate::problem::Problems;
use crate::source::Sources;
use crate::value::{Kind, Piece, Table, Value};

/// A table with slots for what depends on axes.
pub struct Prepared {
    table: Table,
    slots: Vec<Slot>,
}

/// A string in which an axis is named.
struct Slot {
    /// Where it stands: positions in the table and in tables and lists within.
    path: Vec<usize>,
    /// As written.
    original: Value,
    /// Its parts; `None` if it must be read again for every instance.
    parts: Option<Vec<Part>>,
}

enum Part {
    /// The same for all instances.
    Known(Piece),
    /// The value of an axis.
    Axis(String),
}

impl Prepared {
    /// Resolves what names no axis; what is wrong with it goes to `problems`.
    pub fn new(table: &Table, scope: &Scope, sources: &Sources, problems: &mut Problems) -> Self {
        let mut preparation = Preparation {
            scope,
            sources,
            problems,
            slots: Vec::new(),
            path: Vec::new(),
        };
        Self {
            table: preparation.table(table),
            slots: preparation.slots,
        }
    }

    /// Whether an axis is named in it.
    pub fn varies(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Fills in the values of the axes that `scope` has, and returns the whole.
    pub fn fill(&mut self, scope: &Scope, sources: &Sources, problems: &mut Problems) -> &Table {
        for slot in &self.slots {
            if let Some(value) = at_mut(&mut self.table, &slot.path) {
                match slot.filled(scope.axes.as_ref()) {
                    Some(kind) => value.kind = kind,
                    None => *value = super::value(&slot.original, scope, sources, problems),
                }
            }
        }
        &self.table
    }
}

impl Slot {
    /// What it is at a point, if all of it is known.
    fn filled(&self, point: Option<&Point>) -> Option<Kind> {
        let (parts, point) = (self.parts.as_ref()?, point?);
        if let [Part::Axis(name)] = parts.as_slice() {
            return Some(point.get(name)?.kind.clone());
        }
        let piece = |part: &Part| match part {
            Part::Known(piece) => Some(piece.clone()),
            Part::Axis(name) => {
                let kind = point.get(name)?.kind.clone();
                Some(Piece::Text(plain_text(kind, &self.original.place)))
            }
        };
        let pieces: Option<Vec<Piece>> = parts.iter().map(piece).collect();
        Some(joined(pieces?))
    }
}

fn at_mut<'a>(table: &'a mut Table, path: &[usize]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    let mut value = &mut table.entries.get_mut(*first)?.1;
    for at in rest {
        value = match &mut value.kind {
            Kind::List(list) => list.get_mut(*at)?,
            Kind::Table(inner) => &mut inner.entries.get_mut(*at)?.1,
            _ => return None,
        };
    }
    Some(value)
}

struct Preparation<'a> {
    scope: &'a Scope,
    sources: &'a Sources,
    problems: &'a mut Problems,
    slots: Vec<Slot>,
    path: Vec<usize>,
}

impl Preparation<'_> {
    fn table(&mut self, table: &Table) -> Table {
        let mut entries = Vec::with_capacity(table.entries.len());
        for (i, (key, value)) in table.entries.iter().enumerate() {
            entries.push((key.clone(), self.within(i, value)));
        }
        Table { entries }
    }

    fn within(&mut self, at: usize, value: &Value) -> Value {
        self.path.push(at);
        let value = self.value(value);
        self.path.pop();
        value
    }

    fn value(&mut self, original: &Value) -> Value {
        let kind = match &original.kind {
            Kind::Text(text) if text.contains("${") => return self.text(text, original),
            Kind::List(list) => {
                let items = list.iter().enumerate();
                Kind::List(items.map(|(i, v)| self.within(i, v)).collect())
            }
            Kind::Table(inner) => Kind::Table(self.table(inner)),
            other => other.clone(),
        };
        Value {
            kind,
            place: original.place.clone(),
        }
    }

    fn text(&mut self, text: &str, original: &Value) -> Value {
        let raw = split(text);
        let names_axis = raw.iter().any(|part| match part {
            Raw::Reference(expression) => self.axis(expression, true).is_some(),
            Raw::Text(_) | Raw::Unclosed => false,
        });
        if !names_axis {
            return string(
                text,
                &original.place,
                self.scope,
                self.sources,
                self.problems,
            );
        }
        self.slots.push(Slot {
            path: self.path.clone(),
            parts: self.parts(raw, original),
            original: original.clone(),
        });
        original.clone()
    }

    /// Resolves what names no axis; nothing if something is wrong or is more than a name.
    fn parts(&self, raw: Vec<Raw<'_>>, original: &Value) -> Option<Vec<Part>> {
        let mut from = 0;
        let mut part = |part: Raw<'_>| match part {
            Raw::Text(plain) => Some(Part::Known(Piece::Text(plain))),
            Raw::Unclosed => None,
            Raw::Reference(expression) => {
                let place = locate(self.sources, &original.place, expression, &mut from);
                if let Some(axis) = self.axis(expression, false) {
                    return Some(Part::Axis(axis.to_owned()));
                }
                if self.scope.is_broken(expression) {
                    return None;
                }
                Some(Part::Known(
                    match resolve(expression, &place, self.scope).ok()? {
                        Resolved::Now(kind) => Piece::Text(plain_text(kind, &original.place)),
                        Resolved::Late(late) => Piece::Late(late),
                    },
                ))
            }
        };
        raw.into_iter().map(&mut part).collect()
    }

    /// The axis that an expression names; if `anywhere`, also behind a `not` and where it chooses.
    fn axis<'e>(&self, expression: &'e str, anywhere: bool) -> Option<&'e str> {
        let trimmed = expression.trim();
        let path = match trimmed.strip_prefix("not ") {
            Some(inner) if anywhere => inner.trim(),
            _ => trimmed,
        };
        match meaning(path, &self.scope.names)? {
            Meaning::Axis(axis) => Some(axis),
            Meaning::Chosen(choice) if anywhere => Some(choice.axis),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Names, table};
    use super::*;
    use crate::point::Coordinate;
    use crate::source::Place;
    use crate::value::Key;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const PARTS: [&str; 16] = [
        "${axes.rate}",
        "${ axes.mode }",
        "${axes.quick}",
        "${not axes.quick}",
        "${not axes.rate}",
        "${axes.none}",
        "${params.layers}",
        "${params.torn}",
        "${params.none}",
        "${steps.make.file}",
        "${steps[axes.maker].file}",
        "${services[axes.none]}",
        "${what}",
        "$${axes.rate}",
        "plain",
        "${axes.rate",
    ];

    fn scope() -> Scope {
        let layers = Value {
            kind: Kind::Int(5),
            place: Place::new(Sources::default().add("p.toml", ""), 0..0),
        };
        Scope {
            params: Arc::new(BTreeMap::from([("layers".to_owned(), layers)])),
            broken: Arc::new(vec!["torn".to_owned()]),
            axes: None,
            names: Arc::new(Names {
                steps: ["make".to_owned()].into(),
                ..Names::default()
            }),
        }
    }

    fn point(rate: i64) -> Point {
        let values = [
            ("rate", Kind::Int(rate)),
            ("mode", Kind::Text("${fast}".into())),
            ("quick", Kind::Bool(rate > 2)),
            (
                "maker",
                Kind::Text(["make", "none"][usize::from(rate > 3)].into()),
            ),
        ];
        let coordinate = |(axis, kind): (&str, Kind)| Coordinate::new(axis.into(), kind, None, 0);
        values.map(coordinate).map(Arc::new).into_iter().collect()
    }

    proptest! {
        #[test]
        fn what_is_filled_in_is_what_is_resolved_anew(
            texts in prop::collection::vec(prop::collection::vec(0..PARTS.len(), 0..4), 1..4),
            rates in prop::collection::vec(0_i64..5, 1..4),
        ) {
            let texts = texts.iter().map(|parts| parts.iter().map(|i| PARTS[*i]).collect());
            let texts: Vec<String> = texts.collect();
            let mut sources = Sources::default();
            let id = sources.add("p.toml", texts.concat());
            let mut at = 0;
            let values: Vec<Value> = texts.into_iter().map(|text| {
                let place = Place::new(id, at..at + text.len());
                at += text.len();
                Value { kind: Kind::Text(text), place }
            }).collect();
            let entry = |name: &str, value: Value| {
                let place = Place::new(id, 0..0);
                (Key { name: name.to_owned(), place }, value)
            };
            let nested = |kind| Value { kind, place: Place::new(id, 0..0) };
            let list = nested(Kind::List(values.clone()));
            let inner = Table { entries: vec![entry("list", list)] };
            let whole = Table { entries: vec![
                entry("text", values[0].clone()),
                entry("inner", nested(Kind::Table(inner))),
            ] };

            let (mut found, mut anew) = (Problems::default(), Problems::default());
            let mut scope = scope();
            let mut prepared = Prepared::new(&whole, &scope, &sources, &mut found);
            for rate in rates {
                scope.axes = Some(point(rate));
                let filled = prepared.fill(&scope, &sources, &mut found).clone();
                prop_assert_eq!(filled, table(&whole, &scope, &sources, &mut anew));
            }
            prop_assert_eq!(found.into_sorted(), anew.into_sorted());
        }
    }
}
