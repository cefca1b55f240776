//! Python package indexes: which wheel or source a version of a project has, by the simple API in JSON (PEP 691).

use crate::client::{Ask, Client};
use crate::digest::Sha256;
use crate::error::FetchError;
use crate::names::safe_path;
use crate::source::{Pypi, shown};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

/// The form that is asked for.
const JSON: &str = "application/vnd.pypi.simple.v1+json";
/// How a wheel for every machine ends.
const ANY: &str = "-none-any.whl";
/// How many names an error tells.
const TOLD: usize = 8;

/// A wheel of an index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wheel {
    pub(crate) name: String,
    pub(crate) url: Url,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Sha256,
}

#[derive(Deserialize)]
struct Answer {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: Hashes,
    size: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Hashes {
    sha256: Option<Sha256>,
}

/// Finds the wheel that is meant.
///
/// # Errors
/// [`FetchError`]; [`FetchError::NoFile`] if the version has no such wheel, or several.
pub(crate) async fn look(client: &Client, index: &Url, wanted: &Pypi) -> Result<Wheel, FetchError> {
    let mut url = index.clone();
    let known = shown(index);
    url.path_segments_mut()
        .map_err(|()| FetchError::Request(format!("`{known}` can have nothing below it")))?
        .pop_if_empty()
        .extend([normal(&wanted.project).as_str(), ""]);
    let ask = Ask {
        accept: Some(JSON),
        ..Ask::default()
    };
    let answer = client.json(&url, ask).await?;
    choose(&url, answer, wanted)
}

fn choose(url: &Url, answer: Value, wanted: &Pypi) -> Result<Wheel, FetchError> {
    let wrong = |why: String| FetchError::Answer {
        url: shown(url),
        why,
    };
    let answer: Answer = serde_json::from_value(answer).map_err(|e| wrong(e.to_string()))?;
    let all: Vec<&File> = answer.files.iter().collect();
    let is_of_version = |file: &&File| version(&file.filename) == Some(&wanted.version);
    let wheels: Vec<&File> = answer.files.iter().filter(is_of_version).collect();
    let chosen = match (&wanted.wheel, wheels.as_slice()) {
        (Some(name), _) if is_source(name, wanted) => all.iter().find(|f| f.filename == *name),
        (Some(name), wheels) => wheels.iter().find(|w| w.filename == *name),
        (None, [one]) => Some(one),
        (None, several) => {
            let mut any = several.iter().filter(|w| w.filename.ends_with(ANY));
            any.next().filter(|_| any.next().is_none())
        }
    };
    let Some(file) = chosen else {
        let names = |all: &[&File]| all.iter().map(|f| f.filename.clone()).take(TOLD).collect();
        return Err(FetchError::NoFile {
            place: shown(url),
            wanted: wanted.to_string(),
            has: names(if wheels.is_empty() { &all } else { &wheels }),
        });
    };
    safe_path(&file.filename).map_err(&wrong)?;
    let sha256 = file.hashes.sha256;
    Ok(Wheel {
        name: file.filename.clone(),
        url: url.join(&file.url).map_err(|e| wrong(e.to_string()))?,
        size: file.size,
        sha256: sha256.ok_or_else(|| wrong(format!("`{}` has no SHA-256", file.filename)))?,
    })
}

/// The version in a wheel's name, `NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl` (PEP 427).
fn version(wheel: &str) -> Option<&str> {
    let mut parts = wheel.strip_suffix(".whl")?.split('-');
    parts.nth(1)
}

/// Whether a file is the source distribution of the version, `NAME-VERSION.tar.gz` (PEP 625).
fn is_source(file: &str, wanted: &Pypi) -> bool {
    let stem = file.strip_suffix(".tar.gz");
    let parts = stem.and_then(|stem| stem.rsplit_once('-'));
    parts.is_some_and(|(name, version)| {
        normal(name) == normal(&wanted.project) && version == wanted.version
    })
}

/// A project's name as addresses have it (PEP 503).
fn normal(project: &str) -> String {
    let lower = project.to_lowercase();
    let words = lower.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(wheel: Option<&str>, names: &[&str]) -> Result<Wheel, FetchError> {
        let file = |name: &&str| {
            json!({ "filename": name, "url": format!("../../packages/{name}"),
                "hashes": { "sha256": Sha256::of(b"") }, "size": 3 })
        };
        let files: Vec<Value> = names.iter().map(file).collect();
        let url = Url::parse("https://index.example/simple/a-b/").expect("an address");
        let wanted = Pypi {
            project: "A_b".into(),
            version: "1.0".into(),
            wheel: wheel.map(str::to_owned),
        };
        choose(&url, json!({ "files": files }), &wanted)
    }

    #[test]
    fn the_wheel_for_every_machine_is_meant() {
        let names = [
            "a_b-1.0.tar.gz",
            "a_b-1.0-cp311-cp311-linux.whl",
            "a_b-1.0-py3-none-any.whl",
            "a_b-2.0-py3-none-any.whl",
        ];
        let wheel = found(None, &names).expect("a wheel");
        assert_eq!(
            wheel.url.as_str(),
            "https://index.example/packages/a_b-1.0-py3-none-any.whl"
        );
        let named = found(Some(names[1]), &names).expect("a wheel");
        assert_eq!(named.name, names[1]);
        let error = found(None, &[names[0], names[3]]).expect_err("none");
        assert!(
            error.help().expect("help").contains("a_b-1.0.tar.gz"),
            "{error}"
        );
        assert!(found(None, &[names[1], "a_b-1.0-cp312-cp312-linux.whl"]).is_err());
        let source = found(Some(names[0]), &names).expect("its source");
        assert_eq!(source.name, names[0]);
        let other = ["a_b-2.0.tar.gz", "c-1.0.tar.gz"];
        assert!(other.iter().all(|name| found(Some(name), &other).is_err()));
        assert_eq!(normal("A._-b"), "a-b");
    }
}
