//! What is asked for, and of whom.

use crate::digest::Sha256;
use crate::error::FetchError;
use crate::names::Selection;
use crate::source::Source;
use reqwest::Url;

/// What is to be brought.
#[derive(Debug, Clone)]
pub struct Request {
    /// From where.
    pub source: Source,
    /// Which files of a repository.
    pub files: Selection,
    /// What it must be, if it is one file.
    pub sha256: Option<Sha256>,
}

impl Request {
    /// Everything of a source.
    pub fn of(source: Source) -> Self {
        Self {
            source,
            files: Selection::all(),
            sha256: None,
        }
    }
}

/// Whom to ask, and with how many connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections for each file.
    pub connections: u32,
    /// The most bytes that are asked for at once.
    pub piece: u64,
    /// The hub.
    pub hub: Url,
    /// The package index: what stands before a project's name.
    pub index: Url,
    /// The server of Git LFS for pointers from neither GitHub nor the hub.
    pub lfs: Option<Url>,
}

impl Options {
    /// The usual ones: the hub that `HF_ENDPOINT` names and the index that `PIP_INDEX_URL` or
    /// `UV_INDEX_URL` names, or the public ones.
    ///
    /// # Errors
    /// If a variable holds no address.
    pub fn usual(variable: impl Fn(&str) -> Option<String>) -> Result<Self, FetchError> {
        let find = |names: &[&str], default: &str| {
            let set = names
                .iter()
                .map(|name| (*name, variable(name).unwrap_or_default()));
            let set = set.into_iter().find(|(_, value)| !value.is_empty());
            let (name, text) = set.unwrap_or(("", default.to_owned()));
            Url::parse(&text)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https"))
                .ok_or_else(|| {
                    FetchError::Request(format!("the variable `{name}` holds no address"))
                })
        };
        Ok(Self {
            connections: 4,
            piece: 32 << 20,
            hub: find(&["HF_ENDPOINT"], "https://huggingface.co")?,
            index: find(
                &["PIP_INDEX_URL", "UV_INDEX_URL"],
                "https://pypi.org/simple",
            )?,
            lfs: None,
        })
    }
}

/// A digest is that of one file.
pub(crate) fn several(files: usize) -> FetchError {
    FetchError::Request(format!(
        "a `sha256` is that of one file, but the source has {files}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_other_hubs_and_indexes() {
        let none = Options::usual(|_| None).expect("the public ones");
        assert_eq!(none.hub.as_str(), "https://huggingface.co/");
        let set = |name: &str| (name == "HF_ENDPOINT").then(|| "http://127.0.0.1:1/hub".to_owned());
        assert_eq!(Options::usual(set).expect("an address").hub.path(), "/hub");
        let error = Options::usual(|_| Some("nowhere".to_owned())).expect_err("no address");
        assert_eq!(
            error.to_string(),
            "the variable `HF_ENDPOINT` holds no address"
        );
    }
}
