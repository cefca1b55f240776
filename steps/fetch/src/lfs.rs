//! Git LFS: files that only say where their content is, and the server that gives it.
//!
//! The forms are those of the specification, <https://github.com/git-lfs/git-lfs/tree/main/docs>.

use crate::client::{Ask, Bound, Client};
use crate::digest::Sha256;
use crate::error::FetchError;
use crate::source::shown;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The first line of every pointer.
const VERSION: &str = "version https://git-lfs.github.com/spec/v1";
/// No pointer is longer, bytes.
pub(crate) const LONGEST: u64 = 1024;
/// The form of questions and answers.
const JSON: &str = "application/vnd.git-lfs+json";

/// What a pointer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) oid: Sha256,
    pub(crate) size: u64,
}

impl Pointer {
    /// Reads a file that may be a pointer.
    pub(crate) fn at(path: &Path) -> Result<Option<Self>, FetchError> {
        let found = fs::metadata(path).map_err(FetchError::io("read", path))?;
        if !found.is_file() || found.len() >= LONGEST {
            return Ok(None);
        }
        let bytes = fs::read(path).map_err(FetchError::io("read", path))?;
        Ok(Self::read(&bytes))
    }

    /// Reads a pointer; everything else is none.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 >= LONGEST {
            return None;
        }
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        if lines.next()? != VERSION {
            return None;
        }
        let (mut oid, mut size) = (None, None);
        for line in lines {
            match line.split_once(' ')? {
                ("oid", value) => oid = value.strip_prefix("sha256:")?.parse().ok(),
                ("size", value) => size = value.parse().ok(),
                _ => {}
            }
        }
        Some(Self {
            oid: oid?,
            size: size?,
        })
    }
}

/// The server behind a file's address, where that is known: GitHub's and the hub's.
pub(crate) fn server(url: &Url, hub: &Url) -> Option<Url> {
    let parts: Vec<&str> = url.path_segments()?.collect();
    let repository = if url.origin() == hub.origin() {
        match parts.as_slice() {
            ["datasets", owner, name, ..] => format!("datasets/{owner}/{name}"),
            [owner, name, ..] => format!("{owner}/{name}"),
            _ => return None,
        }
    } else if matches!(
        url.host_str(),
        Some("github.com" | "raw.githubusercontent.com" | "media.githubusercontent.com")
    ) {
        match parts.as_slice() {
            ["media", owner, name, ..] | [owner, name, ..] => format!("{owner}/{name}"),
            _ => return None,
        }
    } else {
        return None;
    };
    let root = match url.origin() == hub.origin() {
        true => hub.clone(),
        false => Url::parse("https://github.com/").ok()?,
    };
    root.join(&format!("{repository}.git/info/lfs")).ok()
}

/// Where a content can be had.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) url: Url,
    pub(crate) bound: Vec<Bound>,
}

#[derive(Deserialize)]
struct Answer {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: Sha256,
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Actions {
    download: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u64,
    message: String,
}

/// Asks a server where the content of a pointer can be had.
///
/// # Errors
/// [`FetchError`].
pub(crate) async fn ask(
    client: &Client,
    server: &Url,
    pointer: Pointer,
) -> Result<Download, FetchError> {
    let mut url = server.clone();
    url.path_segments_mut()
        .map_err(|()| {
            FetchError::Request(format!("`{}` can have nothing below it", shown(server)))
        })?
        .pop_if_empty()
        .extend(["objects", "batch"]);
    let question = json!({
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{ "oid": pointer.oid, "size": pointer.size }],
        "hash_algo": "sha256",
    });
    let ask = Ask {
        accept: Some(JSON),
        post: Some(&question),
        ..Ask::default()
    };
    let answer = client.json(&url, ask).await?;
    read(&url, answer, pointer).map_err(|why| FetchError::Answer {
        url: shown(&url),
        why,
    })
}

fn read(url: &Url, answer: Value, pointer: Pointer) -> Result<Download, String> {
    let answer: Answer = serde_json::from_value(answer).map_err(|e| e.to_string())?;
    let object = answer.objects.into_iter().find(|o| o.oid == pointer.oid);
    let object = object.ok_or("it does not tell of what was asked for")?;
    if let Some(Refusal { code, message }) = object.error {
        return Err(format!("it says {code}, `{}`", message.escape_debug()));
    }
    let action = object
        .actions
        .and_then(|a| a.download)
        .ok_or("it says not where it is")?;
    let to = url.join(&action.href).map_err(|e| e.to_string())?;
    if to.scheme() != "https" && url.scheme() != "http" {
        return Err("it sends to where nothing is encrypted".to_owned());
    }
    let bind = |(name, value): (&String, &String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some(Bound::new(&to, name, HeaderValue::from_str(value).ok()?))
    };
    let bound = action.header.iter().map(bind).collect::<Option<Vec<_>>>();
    Ok(Download {
        bound: bound.ok_or("it wants headers that cannot be sent")?,
        url: to,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pointers_are_pointers() {
        let oid = Sha256::of(b"content");
        let text = format!("{VERSION}\noid sha256:{oid}\nsize 7\n");
        assert_eq!(
            Pointer::read(text.as_bytes()),
            Some(Pointer { oid, size: 7 })
        );
        for other in [
            text.replace("spec/v1", "spec/v2"),
            text.replace("size 7", "size many"),
            text.replace(&oid.to_string(), "00"),
            format!("\n{text}"),
            "a,b\n1,2\n".to_owned(),
            text.clone() + &"x y\n".repeat(1000),
        ] {
            assert_eq!(Pointer::read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn servers_are_found_by_the_address_of_the_file() {
        let hub = Url::parse("https://huggingface.co").expect("an address");
        let of = |text: &str| {
            let found = server(&Url::parse(text).expect("an address"), &hub);
            found.map(|url| url.to_string())
        };
        let github = Some("https://github.com/o/n.git/info/lfs".to_owned());
        assert_eq!(
            of("https://raw.githubusercontent.com/o/n/main/data/a.csv"),
            github
        );
        assert_eq!(of("https://github.com/o/n/raw/main/data/a.csv"), github);
        assert_eq!(
            of("https://huggingface.co/datasets/o/n/raw/main/a"),
            Some("https://huggingface.co/datasets/o/n.git/info/lfs".into())
        );
        assert_eq!(
            of("https://huggingface.co/o/n/raw/main/a"),
            Some("https://huggingface.co/o/n.git/info/lfs".into())
        );
        assert_eq!(of("https://example.org/o/n/a"), None);
    }

    #[test]
    fn answers_are_read_or_say_what_is_wrong() {
        let url =
            Url::parse("https://git.example/o/n.git/info/lfs/objects/batch").expect("an address");
        let pointer = Pointer {
            oid: Sha256::of(b"a"),
            size: 1,
        };
        let answer = |object: Value| read(&url, json!({ "objects": [object] }), pointer);
        let found = answer(
            json!({ "oid": pointer.oid, "size": 1, "actions": { "download": {
            "href": "https://store.example/x?sig=1", "header": { "X-Key": "secret" } } } }),
        );
        let found = found.expect("a place");
        assert_eq!(
            (found.url.host_str(), found.bound.len()),
            (Some("store.example"), 1)
        );
        let error =
            answer(json!({ "oid": pointer.oid, "error": { "code": 404, "message": "gone" } }));
        assert_eq!(error.expect_err("gone"), "it says 404, `gone`");
        assert!(answer(json!({ "oid": Sha256::of(b"b"), "size": 1 })).is_err());
        let plain = answer(
            json!({ "oid": pointer.oid, "actions": { "download": { "href": "http://h/x" } } }),
        );
        assert!(plain.expect_err("not encrypted").contains("encrypted"));
    }
}
