//! The licences of everything that is compiled into the project on this platform: each must be
//! permissive, or be listed with the reason why it may stay.

use std::time::Instant;

use serde_json::Value;

use super::{found, spdx};
use crate::problem::Problem;
use crate::process;
use crate::workspace::Workspace;

/// Licences that ask for no more than notice.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates under other licences: name, licence, and why that is no harm here.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "epaint_default_fonts",
        "(MIT OR Apache-2.0) AND OFL-1.1 AND Ubuntu-font-1.0",
        "fonts, which may be embedded in any program and any document",
    ),
    (
        "webpki-roots",
        "CDLA-Permissive-2.0",
        "a list of certificates: data, which may be passed on with its licence",
    ),
];

/// A dependency and what its manifest says of its licence.
#[derive(Debug, Clone)]
struct Dependency {
    name: String,
    version: String,
    licence: Option<String>,
}

pub(super) fn check(workspace: &Workspace, deadline: Instant) -> Result<(), Problem> {
    let host = host(deadline)?;
    // Only this platform's: others' crates need not even be downloaded.
    let metadata = workspace.metadata(&["--filter-platform", &host], deadline)?;
    found(
        &complaints(&dependencies(&metadata), EXCEPTIONS),
        "choose another dependency, or list it in EXCEPTIONS with its reason",
    )
}

fn complaints(dependencies: &[Dependency], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut all: Vec<String> = dependencies
        .iter()
        .filter(|dependency| !is_excepted(dependency, exceptions))
        .filter_map(complaint)
        .collect();
    for (name, licence, _) in exceptions {
        let used = |dependency: &Dependency| {
            is_excepted(dependency, &[(name, licence, "")]) && complaint(dependency).is_some()
        };
        if !dependencies.iter().any(used) {
            all.push(format!(
                "EXCEPTIONS lists {name} under `{licence}` for nothing"
            ));
        }
    }
    all
}

fn is_excepted(dependency: &Dependency, exceptions: &[(&str, &str, &str)]) -> bool {
    let licence = dependency.licence.as_deref();
    exceptions
        .iter()
        .any(|(name, expected, _)| dependency.name == *name && licence == Some(expected))
}

fn complaint(dependency: &Dependency) -> Option<String> {
    let Dependency { name, version, .. } = dependency;
    let Some(licence) = &dependency.licence else {
        return Some(format!("{name} {version} names no licence"));
    };
    match spdx::is_permitted(licence, &|one| PERMISSIVE.contains(&one)) {
        Ok(true) => None,
        Ok(false) => Some(format!("{name} {version} is under `{licence}`")),
        Err(problem) => Some(format!("{name} {version}: {problem}")),
    }
}

/// Every package of `cargo metadata` that is not the workspace's own.
fn dependencies(metadata: &Value) -> Vec<Dependency> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array();
    packages
        .into_iter()
        .flatten()
        .filter(|package| !package["source"].is_null())
        .map(|package| Dependency {
            name: text(&package["name"]).unwrap_or_default(),
            version: text(&package["version"]).unwrap_or_default(),
            licence: text(&package["license"]),
        })
        .collect()
}

/// The platform that rustc builds for by default.
fn host(deadline: Instant) -> Result<String, Problem> {
    let mut rustc = std::process::Command::new("rustc");
    rustc.arg("-vV");
    let text = process::output(&mut rustc, deadline)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| Problem::new("`rustc -vV` names no host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependency(name: &str, licence: Option<&str>) -> Dependency {
        Dependency {
            name: name.into(),
            version: "1.0.0".into(),
            licence: licence.map(str::to_owned),
        }
    }

    #[test]
    fn each_complaint_names_crate_and_licence() {
        let all = [
            dependency("fine", Some("MIT OR GPL-3.0-only")),
            dependency("strict", Some("GPL-3.0-only")),
            dependency("silent", None),
            dependency("font", Some("OFL-1.1")),
        ];
        assert_eq!(
            complaints(&all, &[("font", "OFL-1.1", "a font")]),
            [
                "strict 1.0.0 is under `GPL-3.0-only`",
                "silent 1.0.0 names no licence"
            ]
        );
    }

    #[test]
    fn exceptions_hold_for_one_licence_and_only_while_needed() {
        let moved = [dependency("font", Some("GPL-3.0-only"))];
        let exceptions = [("font", "OFL-1.1", "a font")];
        assert_eq!(complaints(&moved, &exceptions).len(), 2);
        let freed = [dependency("font", Some("MIT"))];
        assert_eq!(
            complaints(&freed, &exceptions),
            ["EXCEPTIONS lists font under `OFL-1.1` for nothing"]
        );
    }
}
