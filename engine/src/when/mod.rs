//! The expression in `when`: comparisons of parameters, axes and literals, joined by `and`, `or`
//! and `not`. Typed, without functions and without surprises: what does not compare is a problem.

mod decide;

mod parse;

mod tokens;

use crate::interpolate::{self, Scope};
use crate::problem::Problem;
use crate::source::{Place, Sources};
use crate::types::number_text;
use crate::value::{Kind, Value};
use parse::Parser;
use tokens::Located;

/// What may be written, for mends.
const FORMS: &str = "write comparisons such as `${axes.NAME} == 4`, joined by `and`, `or` and `not`: `==`, `!=`, `<`, `<=`, `>`, `>=`, `in [1, 2]`";

/// An expression as parsed.
#[derive(Debug, Clone)]
pub struct When {
    text: String,
    root: Node,
}

#[derive(Debug, Clone)]
struct Node {
    what: What,
    place: Place,
}

#[derive(Debug, Clone)]
enum What {
    Literal(Is),
    Reference(String),
    List(Vec<Node>),
    Not(Box<Node>),
    Both(Box<Node>, Box<Node>),
    Either(Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// A value of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Is {
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Is>),
}

impl Is {
    fn type_name(&self) -> &'static str {
        match self {
            Is::Bool(_) => "a boolean",
            Is::Number(_) => "a number",
            Is::Text(_) => "a string",
            Is::List(_) => "a list",
        }
    }

    fn of(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::Bool(b) => Is::Bool(b),
            #[expect(
                clippy::cast_precision_loss,
                reason = "numbers in plans are far below 2^53"
            )]
            Kind::Int(i) => Is::Number(i as f64),
            Kind::Float(f) => Is::Number(f),
            Kind::Text(t) => Is::Text(t),
            Kind::List(list) => Is::List(
                list.into_iter()
                    .map(|v| Is::of(v.kind))
                    .collect::<Option<_>>()?,
            ),
            Kind::Table(_) | Kind::Template(_) => return None,
        })
    }
}

impl std::fmt::Display for Is {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Is::Bool(b) => write!(f, "{b}"),
            Is::Number(n) => f.write_str(&number_text(*n)),
            Is::Text(t) => f.write_str(t),
            Is::List(list) => {
                let items: Vec<String> = list.iter().map(Is::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// What an expression comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The instance is there.
    Yes,
    /// It is not, for the reason that is given.
    No(String),
}

impl When {
    /// Parses the text `value` as an expression.
    ///
    /// # Errors
    /// The first thing that is not understood.
    pub fn parse(value: &Value, sources: &Sources) -> Result<Self, Problem> {
        let text = match &value.kind {
            Kind::Text(text) => text.as_str(),
            _ => "",
        };
        let source = Located::new(text, &value.place, sources);
        let tokens = tokens::read(text, &source)?;
        let root = Parser::new(&tokens, source.at(text.len()..text.len())).whole()?;
        Ok(Self {
            text: text.to_owned(),
            root,
        })
    }

    /// Decides the expression for one instance.
    ///
    /// # Errors
    /// What is wrong with it; nothing if that was reported where it is declared.
    pub fn decide(&self, scope: &Scope) -> Result<Holds, Option<Problem>> {
        if self.root.truth(scope)? {
            return Ok(Holds::Yes);
        }
        let mut names = Vec::new();
        self.root.references(&mut names);
        let mut values: Vec<String> = Vec::new();
        for (name, place) in names {
            let short = name.split('.').next_back().unwrap_or(name);
            let value = Is::of(interpolate::early(name, place, scope)?);
            values.extend(value.map(|v| format!("{short}={v}")));
        }
        values.sort();
        values.dedup();
        let given = match values.as_slice() {
            [] => String::new(),
            values => format!(" for {}", values.join(",")),
        };
        Ok(Holds::No(format!("when: {} is false{given}", self.text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::Coordinate;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn decided(text: &str) -> Result<Holds, String> {
        let mut sources = Sources::default();
        let id = sources.add("p.toml", format!("when = \"{text}\""));
        let value = |kind| Value {
            kind,
            place: Place::new(id, 7..9 + text.len()),
        };
        let axes = [("rate", Kind::Float(4.0)), ("radix", Kind::Bool(true))];
        let axes = axes.map(|(axis, kind)| Coordinate::new(axis.into(), kind, None, 0));
        let params = BTreeMap::from([
            ("mode".to_owned(), value(Kind::Text("fast".into()))),
            (
                "keep".to_owned(),
                value(Kind::List(vec![value(Kind::Int(4))])),
            ),
        ]);
        let scope = Scope {
            axes: Some(axes.into_iter().map(Arc::new).collect()),
            params: Arc::new(params),
            ..Scope::default()
        };
        let when = When::parse(&value(Kind::Text(text.to_owned())), &sources);
        let when = when.map_err(|p| p.message)?;
        when.decide(&scope)
            .map_err(|p| p.map_or_else(|| "reported".to_owned(), |p| p.message))
    }

    #[test]
    fn conditions_are_decided_by_value() {
        for text in [
            "${axes.rate} == 4",
            "4 >= ${axes.rate} and not (${axes.rate} < 1)",
            "${axes.radix}",
            "${axes.rate} in [1, 4,] or false",
            "${axes.rate} in ${params.keep}",
            "${params.mode} == 'fast' and ${params.mode} != 'slow'",
            "not ${not axes.radix}",
            "false and false or true",
        ] {
            assert_eq!(decided(text), Ok(Holds::Yes), "{text}");
        }
    }

    #[test]
    fn what_does_not_hold_says_for_which_values() {
        assert_eq!(
            decided("${axes.rate} == 16 and ${axes.radix}"),
            Ok(Holds::No(
                "when: ${axes.rate} == 16 and ${axes.radix} is false for radix=true,rate=4".into()
            ))
        );
    }

    #[test]
    fn what_is_not_understood_or_does_not_compare_is_a_problem() {
        for (text, message) in [
            ("", "expected a value"),
            ("${axes.rate} ==", "expected a value"),
            ("${axes.rate} = 4", "`=` is not a part of an expression"),
            ("${axes.rate} == 4 5", "expected the end, or `and` or `or`"),
            ("(true", "expected `)`"),
            ("[1 2]", "expected `,` or `]`"),
            ("${axes.rate}", "expected a condition, found a number"),
            ("${axes.rate} == 'a'", "a number is compared with a string"),
            ("${axes.radix} < true", "a boolean has no order"),
            ("4 in 4", "`in` needs a list, found a number"),
            ("4 in ['a']", "a number is compared with a string"),
            ("${axes.rat} == 4", "there is no axis `rat` here"),
            (
                "${axes.rate} == fast",
                "`fast` is not a part of an expression",
            ),
            ("true or 4", "expected a condition, found a number"),
            (
                "${secret.X} == 'a'",
                "`secret.X` is known only when the plan runs",
            ),
        ] {
            assert_eq!(decided(text), Err(message.to_owned()), "{text}");
        }
        assert!(decided(&"(".repeat(1000)).is_err());
        assert!(decided(&"not ".repeat(1000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in "[ -~ä]{0,40}") {
            let _ = decided(&text);
        }
    }
}
