//! The Hugging Face hub: what a repository holds at a revision, and where its files are.

use crate::client::{Ask, Client};
use crate::digest::Sha256;
use crate::error::FetchError;
use crate::names::safe_path;
use crate::source::{Hub, RepoKind, shown};
use reqwest::Url;
use serde::Deserialize;

/// The branch that is meant where none is named.
const BRANCH: &str = "main";

/// A repository at one commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) commit: String,
    pub(crate) files: Vec<RepositoryFile>,
    pub(crate) licence: Option<String>,
}

/// One file of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RepositoryFile {
    pub(crate) path: String,
    /// Bytes, if the hub says.
    pub(crate) size: Option<u64>,
    /// Its digest, which the hub knows of large files.
    pub(crate) sha256: Option<Sha256>,
}

/// What the hub answers; of much more this is what is needed.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: Option<Sha256>,
    size: Option<u64>,
}

/// Asks what a repository holds at its revision.
///
/// # Errors
/// [`FetchError`]; also if the hub names files that would lead out of a folder.
pub(crate) async fn look(
    client: &Client,
    endpoint: &Url,
    hub: &Hub,
) -> Result<Repository, FetchError> {
    let revision = hub.revision.as_deref().unwrap_or(BRANCH);
    let mut url = below(endpoint, &["api", hub.kind.word()])?;
    extend(&mut url, hub.repository.split('/'))?;
    // One segment: a revision such as `refs/pr/1` has its slashes encoded.
    extend(&mut url, ["revision", revision])?;
    url.set_query(Some("blobs=true"));
    let answer = client.json(&url, Ask::default()).await?;
    let found = read(answer).and_then(|found| as_asked(found, revision));
    found.map_err(|why| FetchError::Answer {
        url: shown(&url),
        why,
    })
}

/// Makes sure that a commit that was asked for is the one that is told of.
fn as_asked(found: Repository, revision: &str) -> Result<Repository, String> {
    match is_commit(revision) && !found.commit.eq_ignore_ascii_case(revision) {
        true => Err(format!(
            "it is of the commit `{}`, and `{revision}` was asked for",
            found.commit
        )),
        false => Ok(found),
    }
}

fn read(answer: serde_json::Value) -> Result<Repository, String> {
    let answer: Answer = serde_json::from_value(answer).map_err(|e| e.to_string())?;
    if !is_commit(&answer.sha) {
        return Err(format!("`{}` is no commit", answer.sha.escape_debug()));
    }
    let file = |sibling: Sibling| {
        safe_path(&sibling.rfilename)?;
        let (size, sha256) = match sibling.lfs {
            Some(large) => (large.size.or(sibling.size), large.sha256),
            None => (sibling.size, None),
        };
        Ok(RepositoryFile {
            path: sibling.rfilename,
            size,
            sha256,
        })
    };
    let licence = answer
        .tags
        .iter()
        .find_map(|tag| tag.strip_prefix("license:"));
    Ok(Repository {
        licence: licence.map(str::to_owned),
        files: answer
            .siblings
            .into_iter()
            .map(file)
            .collect::<Result<_, String>>()?,
        commit: answer.sha,
    })
}

/// Where a file of a repository is.
///
/// # Errors
/// If the endpoint cannot have anything below it.
pub(crate) fn address(
    endpoint: &Url,
    hub: &Hub,
    commit: &str,
    path: &str,
) -> Result<Url, FetchError> {
    let mut url = match hub.kind {
        RepoKind::Dataset => below(endpoint, &["datasets"])?,
        RepoKind::Model => below(endpoint, &[])?,
    };
    extend(&mut url, hub.repository.split('/'))?;
    extend(&mut url, ["resolve", commit])?;
    extend(&mut url, path.split('/'))?;
    Ok(url)
}

/// Whether a revision is a whole commit, which never moves.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

fn below(endpoint: &Url, segments: &[&str]) -> Result<Url, FetchError> {
    let mut url = endpoint.clone();
    extend(&mut url, segments.iter().copied())?;
    Ok(url)
}

fn extend<'a>(
    url: &mut Url,
    segments: impl IntoIterator<Item = &'a str>,
) -> Result<(), FetchError> {
    let shown = shown(url);
    let mut path = url
        .path_segments_mut()
        .map_err(|()| FetchError::Request(format!("`{shown}` can have nothing below it")))?;
    path.pop_if_empty().extend(segments);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;
    use serde_json::json;

    fn hub(text: &str) -> Hub {
        match Source::parse(text, RepoKind::Dataset) {
            Ok(Source::Hub(hub)) => hub,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_follow_the_hubs_habits() {
        let endpoint = Url::parse("https://hub.example/mirror/").expect("an address");
        let commit = "a".repeat(40);
        let of = |text: &str, path: &str| {
            address(&endpoint, &hub(text), &commit, path)
                .expect("an address")
                .to_string()
        };
        assert_eq!(
            of("hf:o/n", "data/x y.json"),
            format!("https://hub.example/mirror/datasets/o/n/resolve/{commit}/data/x%20y.json")
        );
        assert_eq!(
            of("hf:models/o/n", "config.json"),
            format!("https://hub.example/mirror/o/n/resolve/{commit}/config.json")
        );
    }

    #[test]
    fn a_repository_is_read_off_the_hubs_answer() {
        let digest = Sha256::of(b"weights");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let answer = json!({
            "sha": commit, "private": false,
            "tags": ["region:us", "license:apache-2.0"],
            "siblings": [
                { "rfilename": "config.json", "size": 5, "blobId": "x" },
                { "rfilename": "a/b.bin", "size": 7, "lfs": { "sha256": digest, "size": 7 } },
            ],
        });
        let found = read(answer.clone()).expect("a repository");
        assert_eq!(
            (found.commit.as_str(), found.licence.as_deref()),
            (commit, Some("apache-2.0"))
        );
        assert_eq!(found.files[1].sha256, Some(digest));
        assert_eq!(found.files[0].size, Some(5));
        let other = "f".repeat(40);
        let found = || read(answer.clone()).expect("a repository");
        assert!(as_asked(found(), "main").is_ok());
        assert!(as_asked(found(), &commit.to_uppercase()).is_ok());
        let error = as_asked(found(), &other).expect_err("another commit");
        assert!(error.contains(commit) && error.contains(&other), "{error}");
        let mut wrong = answer.clone();
        wrong["siblings"][0]["rfilename"] = json!("../../etc/passwd");
        assert!(read(wrong).expect_err("unsafe").contains("leads out"));
        let mut wrong = answer;
        wrong["sha"] = json!("main");
        assert!(read(wrong).is_err());
    }
}
