//! What a server says of a file before it is brought: how long it is, whether parts of it can be had, and
//! how to tell that it is still the same.

use crate::client::{Ask, Bound, Client};
use crate::error::FetchError;
use crate::patience::{Failure, Patience};
use crate::source::shown;
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::{Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What tells one content of an address from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Validator {
    /// A strong entity tag, with its quotes.
    Etag(String),
    /// The date of its last change, as the server writes it.
    Modified(String),
}

impl Validator {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Etag(text) | Self::Modified(text) => text,
        }
    }

    /// The best that an answer brings. Weak tags may stand for different bytes.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let strong = text(headers, header::ETAG).filter(|tag| tag.starts_with('"'));
        let tag = strong.map(|tag| Self::Etag(tag.to_owned()));
        tag.or_else(|| text(headers, header::LAST_MODIFIED).map(|t| Self::Modified(t.to_owned())))
    }
}

/// How much there is, and how it can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// So many bytes, any part of them.
    Parts(u64),
    /// So many bytes, from the beginning only.
    Whole(u64),
    /// Nobody knows, but its end is marked.
    Framed,
    /// Nobody knows, and a cut looks like its end.
    Unframed,
}

impl Extent {
    pub(crate) fn size(self) -> Option<u64> {
        match self {
            Self::Parts(size) | Self::Whole(size) => Some(size),
            Self::Framed | Self::Unframed => None,
        }
    }
}

/// What a server says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) extent: Extent,
    pub(crate) validator: Option<Validator>,
}

impl Remote {
    /// Asks a server for one byte of a file, as often as it takes, and reads off what it says.
    ///
    /// # Errors
    /// [`FetchError::Refused`], [`FetchError::GivenUp`], [`FetchError::Answer`].
    pub(crate) async fn ask(
        client: &Client,
        url: &Url,
        bound: &[Bound],
    ) -> Result<Self, FetchError> {
        let mut patience = Patience::new(&client.limits);
        let ask = Ask {
            range: Some(&(0..1)),
            bound,
            ..Ask::default()
        };
        loop {
            let answer = client.ask(url, ask).await;
            match answer.and_then(|response| Self::read(url, &response)) {
                Ok(remote) => return Ok(remote),
                Err(Failure::Never(error)) => return Err(error),
                Err(Failure::Again { why, after }) => {
                    patience.rest(&shown(url), why, after).await?
                }
                Err(Failure::Changed) => {
                    patience
                        .rest(&shown(url), "it changed".into(), None)
                        .await?
                }
            }
        }
    }

    fn read(url: &Url, response: &Response) -> Result<Self, Failure> {
        let headers = response.headers();
        check_coding(url, headers)?;
        let part = text(headers, header::CONTENT_RANGE).map(parse_range);
        let extent = match (response.status(), part) {
            (
                StatusCode::PARTIAL_CONTENT,
                Some(Some(Part {
                    size: Some(size), ..
                })),
            ) => Extent::Parts(size),
            // Nothing has no first byte.
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(Some(Part { size: Some(0), .. }))) => {
                Extent::Whole(0)
            }
            (StatusCode::OK, _) => whole(headers),
            (status, _) => {
                return Err(Failure::again(format!(
                    "{status} without the size of the whole"
                )));
            }
        };
        Ok(Self {
            extent,
            validator: Validator::of(headers),
        })
    }
}

fn whole(headers: &HeaderMap) -> Extent {
    let length = text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let chunked = text(headers, header::TRANSFER_ENCODING).is_some_and(|t| t.contains("chunked"));
    match length {
        Some(length) => Extent::Whole(length),
        None if chunked => Extent::Framed,
        None => Extent::Unframed,
    }
}

/// Refuses what was compressed on the way: nobody asked for it, and its bytes are not the file's.
pub(crate) fn check_coding(url: &Url, headers: &HeaderMap) -> Result<(), Failure> {
    match text(headers, header::CONTENT_ENCODING) {
        None | Some("identity" | "") => Ok(()),
        Some(coding) => Err(Failure::Never(FetchError::Answer {
            url: shown(url),
            why: format!("it came with the coding `{coding}`, which nobody asked for"),
        })),
    }
}

pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// What a `Content-Range` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which bytes; `None` if none could be had.
    pub(crate) bytes: Option<Range<u64>>,
    /// Of how many; `None` if the server does not know.
    pub(crate) size: Option<u64>,
}

/// Reads `bytes 0-99/1000`, `bytes 0-99/*` or `bytes */1000`.
pub(crate) fn parse_range(text: &str) -> Option<Part> {
    let (range, size) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
    let size = match size {
        "*" => None,
        size => Some(size.parse::<u64>().ok()?),
    };
    let bytes = match range {
        "*" => None,
        range => {
            let (first, last) = range.split_once('-')?;
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            let end = last.checked_add(1)?;
            (first < end && size.is_none_or(|size| end <= size)).then_some(())?;
            Some(first..end)
        }
    };
    Some(Part { bytes, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_or_not_at_all() {
        let part = |bytes, size| Some(Part { bytes, size });
        for (text, expected) in [
            ("bytes 0-99/1000", part(Some(0..100), Some(1000))),
            ("bytes 5-5/*", part(Some(5..6), None)),
            ("bytes */0", part(None, Some(0))),
            ("bytes 0-1000/1000", None),
            ("bytes 9-5/1000", None),
            ("bytes 0-18446744073709551615/*", None),
            ("items 0-1/2", None),
            ("bytes 0-1", None),
        ] {
            assert_eq!(parse_range(text), expected, "{text}");
        }
    }

    #[test]
    fn weak_tags_tell_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, "W/\"a\"".parse().expect("a value"));
        assert_eq!(Validator::of(&headers), None);
        headers.insert(header::LAST_MODIFIED, "then".parse().expect("a value"));
        assert_eq!(
            Validator::of(&headers),
            Some(Validator::Modified("then".into()))
        );
        headers.insert(header::ETAG, "\"a\"".parse().expect("a value"));
        assert_eq!(
            Validator::of(&headers),
            Some(Validator::Etag("\"a\"".into()))
        );
    }
}
