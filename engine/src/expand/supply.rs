//! What there is of the machine: what is found, and what `[resources]` says.

use crate::environment::found_pools;
use crate::interpolate::{self, Scope};
use crate::policy::{Pool, Supply};
use crate::problem::{Problem, Problems};
use crate::source::Sources;
use crate::value::{Key, Kind, Table, Value};

/// The key of a demand that is no pool.
pub(super) const MACHINE: &str = "machine";

/// Reads `[resources]`; what is wrong with it goes to `problems`.
pub(super) fn read(
    declared: &Table,
    scope: &Scope,
    sources: &Sources,
    problems: &mut Problems,
) -> Supply {
    let mut supply = found_pools();
    for (key, value) in &declared.entries {
        let value = interpolate::value(value, scope, sources, problems);
        match pool(key, &value) {
            Ok(pool) => {
                supply.insert(key.name.clone(), pool);
            }
            Err(problem) => {
                // Demands for it would be wrong for the same reason.
                supply.insert(key.name.clone(), Pool::Count(u32::MAX));
                if !matches!(&value.kind, Kind::Template(p) if p.is_empty()) {
                    problems.push(problem);
                }
            }
        }
    }
    supply
}

fn pool(key: &Key, value: &Value) -> Result<Pool, Problem> {
    if key.name == MACHINE {
        let message = "`machine` cannot be the name of a pool";
        let problem = Problem::at(&key.place, message, "has a meaning of its own");
        return Err(problem.help("a step takes the whole machine by `machine = \"exclusive\"`"));
    }
    match &value.kind {
        Kind::Int(n) => u32::try_from(*n)
            .map(Pool::Count)
            .map_err(|_| wrong(key, value, "there cannot be so many")),
        Kind::List(list) => devices(key, list),
        Kind::Table(table) => range(key, value, table),
        _ => Err(wrong(key, value, "not understood")),
    }
}

fn wrong(key: &Key, value: &Value, label: &str) -> Problem {
    let message = format!(
        "pool `{}` is a number, a list of names or a range, found {}",
        key.name,
        value.to_line()
    );
    Problem::at(&value.place, message, label)
        .help("write `4`, `[\"0\", \"1\"]` or `{ first = 30000, last = 30099 }`")
}

fn devices(key: &Key, list: &[Value]) -> Result<Pool, Problem> {
    let mut names: Vec<String> = Vec::new();
    for value in list {
        let name = match &value.kind {
            Kind::Text(name) => name.clone(),
            Kind::Int(number) => number.to_string(),
            _ => return Err(wrong(key, value, "not a name")),
        };
        if names.contains(&name) {
            let message = format!("pool `{}` has `{name}` twice", key.name);
            return Err(
                Problem::at(&value.place, message, "the same again").help("name every device once")
            );
        }
        names.push(name);
    }
    Ok(Pool::Devices(names))
}

fn range(key: &Key, value: &Value, table: &Table) -> Result<Pool, Problem> {
    let number = |name: &str| match table.get(name)?.kind {
        Kind::Int(n) => u32::try_from(n).ok(),
        _ => None,
    };
    match (number("first"), number("last")) {
        (Some(first), Some(last)) if first <= last && table.entries.len() == 2 => {
            Ok(Pool::Range { first, last })
        }
        _ => Err(wrong(key, value, "not a range")),
    }
}
