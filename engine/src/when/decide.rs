//! The value of an expression for one instance.

use super::{Comparison, Is, Node, What};
use crate::interpolate::{self, Scope};
use crate::problem::Problem;
use crate::source::Place;

impl Node {
    /// Collects what the expression refers to.
    pub(super) fn references<'a>(&'a self, found: &mut Vec<(&'a str, &'a Place)>) {
        match &self.what {
            What::Literal(_) => {}
            What::Reference(name) => {
                let name = name.trim();
                found.push((
                    name.strip_prefix("not ").unwrap_or(name).trim(),
                    &self.place,
                ));
            }
            What::List(items) => items.iter().for_each(|i| i.references(found)),
            What::Not(inner) => inner.references(found),
            What::Both(a, b) | What::Either(a, b) | What::Compare(_, a, b) | What::In(a, b) => {
                a.references(found);
                b.references(found);
            }
        }
    }

    /// Decides a condition. Both sides are always decided, so that a mistake in either is found.
    pub(super) fn truth(&self, scope: &Scope) -> Result<bool, Option<Problem>> {
        match self.value(scope)? {
            Is::Bool(b) => Ok(b),
            other => {
                let message = format!("expected a condition, found {}", other.type_name());
                let label = format!("this is {}", other.type_name());
                let problem = Problem::at(&self.place, message, label);
                Err(Some(problem.help("compare it: `${axes.NAME} == 4`")))
            }
        }
    }

    fn value(&self, scope: &Scope) -> Result<Is, Option<Problem>> {
        Ok(match &self.what {
            What::Literal(value) => value.clone(),
            What::Reference(name) => {
                let kind = interpolate::early(name, &self.place, scope)?;
                Is::of(kind).ok_or(None)?
            }
            What::List(items) => {
                let items = items.iter().map(|i| i.value(scope));
                Is::List(items.collect::<Result<_, _>>()?)
            }
            What::Not(inner) => Is::Bool(!inner.truth(scope)?),
            What::Both(a, b) => {
                let (a, b) = (a.truth(scope)?, b.truth(scope)?);
                Is::Bool(a && b)
            }
            What::Either(a, b) => {
                let (a, b) = (a.truth(scope)?, b.truth(scope)?);
                Is::Bool(a || b)
            }
            What::Compare(comparison, a, b) => {
                let (a, b) = (a.value(scope)?, b.value(scope)?);
                Is::Bool(self.compare(*comparison, &a, &b)?)
            }
            What::In(a, b) => Is::Bool(self.is_in(&a.value(scope)?, &b.value(scope)?)?),
        })
    }

    fn compare(&self, comparison: Comparison, a: &Is, b: &Is) -> Result<bool, Option<Problem>> {
        if std::mem::discriminant(a) != std::mem::discriminant(b) {
            return Err(Some(self.unlike(a, b)));
        }
        let order = match (a, b) {
            (Is::Number(a), Is::Number(b)) => a.partial_cmp(b),
            (Is::Text(a), Is::Text(b)) => Some(a.cmp(b)),
            _ => None,
        };
        Ok(match (comparison, order) {
            (Comparison::Equal, _) => a == b,
            (Comparison::Unequal, _) => a != b,
            (Comparison::Less, Some(order)) => order.is_lt(),
            (Comparison::AtMost, Some(order)) => order.is_le(),
            (Comparison::More, Some(order)) => order.is_gt(),
            (Comparison::AtLeast, Some(order)) => order.is_ge(),
            (_, None) => {
                let message = format!("{} has no order", a.type_name());
                let problem = Problem::at(&self.place, message, "cannot be compared so");
                return Err(Some(problem.help("compare with `==` or `!=`")));
            }
        })
    }

    fn is_in(&self, a: &Is, b: &Is) -> Result<bool, Option<Problem>> {
        let Is::List(items) = b else {
            let message = format!("`in` needs a list, found {}", b.type_name());
            let problem = Problem::at(&self.place, message, "not a list");
            return Err(Some(problem.help("write `in [1, 2, 4]`")));
        };
        let other = |item: &&Is| std::mem::discriminant(*item) != std::mem::discriminant(a);
        if let Some(item) = items.iter().find(other) {
            return Err(Some(self.unlike(a, item)));
        }
        Ok(items.contains(a))
    }

    fn unlike(&self, a: &Is, b: &Is) -> Problem {
        let message = format!("{} is compared with {}", a.type_name(), b.type_name());
        Problem::at(&self.place, message, "never equal")
            .help("compare values of one type; text is written in quotes: `'fast'`")
    }
}
