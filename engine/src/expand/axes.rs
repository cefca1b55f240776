//! The axes of a plan: their values, what is excluded, and every combination that is left.

use crate::interpolate::{self, Scope};
use crate::plan::Plan;
use crate::problem::{Problem, Problems, did_you_mean};
use crate::source::{Place, Sources};
use crate::step::AxisValue;
use crate::value::{Kind, Table, Value};

/// Axes with their values in the plan's order, and rules for what is left out.
#[derive(Default)]
pub(super) struct Axes {
    values: Vec<(String, Vec<Value>)>,
    exclude: Vec<Table>,
}

impl Axes {
    /// Reads the axes of a plan; what is wrong with them goes to `problems`.
    pub(super) fn read(
        plan: &Plan,
        scope: &Scope,
        sources: &Sources,
        problems: &mut Problems,
    ) -> Self {
        let mut reader = Reader {
            plan,
            scope,
            sources,
            problems,
            axes: Self::default(),
        };
        reader.read_values();
        reader.read_exclude();
        reader.axes
    }

    /// Returns the names in the plan's order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|(name, _)| name.as_str())
    }

    /// Every combination of the axes' values that is not excluded.
    pub(super) fn product(&self, axes: &[String]) -> Vec<Vec<(String, Value)>> {
        let mut all: Vec<Vec<(String, Value)>> = vec![Vec::new()];
        for name in axes {
            let values = self
                .values
                .iter()
                .find(|(n, _)| n == name)
                .map_or(&[][..], |(_, v)| v);
            all = all
                .into_iter()
                .flat_map(|head| {
                    values.iter().map(move |v| {
                        let mut next = head.clone();
                        next.push((name.clone(), v.clone()));
                        next
                    })
                })
                .collect();
        }
        all.retain(|combination| !self.exclude.iter().any(|rule| excluded(rule, combination)));
        all
    }
}

struct Reader<'a> {
    plan: &'a Plan,
    scope: &'a Scope,
    sources: &'a Sources,
    problems: &'a mut Problems,
    axes: Axes,
}

impl Reader<'_> {
    fn read_values(&mut self) {
        for (key, value) in &self.plan.axes {
            let value = interpolate::value(value, self.scope, self.sources, self.problems);
            match value.kind {
                Kind::List(list) if !list.is_empty() => {
                    self.check_axis_values(&key.name, &list);
                    self.axes.values.push((key.name.clone(), list));
                }
                _ => {
                    let message =
                        format!("axis `{}` needs a list with at least one value", key.name);
                    self.problems.push(
                        Problem::at(&value.place, message, "not such a list")
                            .help("write `[1, 2, 4]` or `\"${params.NAME}\"`"),
                    );
                    self.axes.values.push((key.name.clone(), Vec::new()));
                }
            }
        }
    }

    fn read_exclude(&mut self) {
        for (place, table) in &self.plan.exclude {
            let rule = interpolate::table(table, self.scope, self.sources, self.problems);
            self.check_exclude(place, &rule);
            // Without any instance nothing else could be found wrong.
            if !rule.entries.is_empty() {
                self.axes.exclude.push(rule);
            }
        }
    }

    /// A rule that names nothing would exclude everything, and one that names what is not there
    /// nothing.
    fn check_exclude(&mut self, place: &Place, rule: &Table) {
        if rule.entries.is_empty() {
            let problem = Problem::at(place, "this excludes every combination", "no axis");
            self.problems
                .push(problem.help("name axes and values: `{ axis = value }`"));
        }
        for (key, value) in &rule.entries {
            let Some((name, values)) = self.axes.values.iter().find(|(name, _)| *name == key.name)
            else {
                let help =
                    did_you_mean(&key.name, self.axes.values.iter().map(|(n, _)| n.as_str()));
                let message = format!("there is no axis `{}`", key.name);
                let problem = Problem::at(&key.place, message, "unknown axis");
                self.problems.push(problem.help(help));
                continue;
            };
            // Another value may be one of another variant; another type never matches.
            let kind = |v: &Value| axis_value(v).map(|v| std::mem::discriminant(&v));
            if !values.iter().any(|v| kind(v) == kind(value)) {
                let message = format!("axis `{name}` has no value {}", value.to_line());
                let known: Vec<String> = values.iter().map(Value::to_line).collect();
                let problem = Problem::at(&value.place, message, "excludes nothing");
                self.problems
                    .push(problem.help(format!("known: {}", known.join(", "))));
            }
        }
    }

    fn check_axis_values(&mut self, name: &str, list: &[Value]) {
        let mut seen: Vec<AxisValue> = Vec::new();
        for value in list {
            match axis_value(value) {
                None => {
                    let message = format!(
                        "axis `{name}` takes numbers, booleans and strings, found {}",
                        value.type_name()
                    );
                    self.problems
                        .push(Problem::at(&value.place, message, "not a plain value"));
                }
                Some(v) if seen.contains(&v) => {
                    let message = format!("axis `{name}` has the value {v} twice");
                    self.problems.push(Problem::at(&value.place, message, "the same again").help("numbers compare by value: `4` and `4.0` are one value; ask for more samples instead"));
                }
                Some(v) => seen.push(v),
            }
        }
    }
}

/// Whether two instances have the same values on the axes that both have.
pub(super) fn agree(a: &[(String, Value)], b: &[(String, Value)]) -> bool {
    a.iter().all(|(name, value)| {
        b.iter()
            .find(|(n, _)| n == name)
            .is_none_or(|(_, other)| axis_value(value) == axis_value(other))
    })
}

fn excluded(rule: &Table, combination: &[(String, Value)]) -> bool {
    rule.entries.iter().all(|(key, value)| {
        combination
            .iter()
            .any(|(name, v)| *name == key.name && axis_value(v) == axis_value(value))
    })
}

/// Returns what a value is as a value of an axis, if it can be one.
pub(super) fn axis_value(value: &Value) -> Option<AxisValue> {
    Some(match &value.kind {
        Kind::Bool(b) => AxisValue::Bool(*b),
        #[expect(clippy::cast_precision_loss, reason = "axis values are far below 2^53")]
        Kind::Int(i) => AxisValue::Number(*i as f64),
        // A NaN equals nothing, not even itself.
        Kind::Float(f) if f.is_nan() => return None,
        Kind::Float(f) => AxisValue::Number(*f),
        Kind::Text(t) => AxisValue::Text(t.clone()),
        _ => return None,
    })
}
