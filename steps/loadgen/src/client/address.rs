//! Where a server listens, parsed once.

use std::{fmt, str::FromStr};

use http::Uri;

/// The base URL of a server: scheme, host, port and an optional path in front of `/v1`.
///
/// Parsed from text such as `http://127.0.0.1:8000`; a path that already ends in `/v1` is
/// taken to be the API root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Starts with `/` unless empty, never ends with one, and has no `/v1`.
    prefix: String,
}

/// A text that is no base URL of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no server address: {problem}; help: write it like `http://127.0.0.1:8000`")]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = |problem| AddressError {
            text: text.to_owned(),
            problem,
        };
        let uri: Uri = text.parse().map_err(|_| bad("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(bad("its scheme is neither http nor https")),
            None => return Err(bad("it has no scheme")),
        };
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(bad("it carries credentials, which belong into the API key"));
        }
        if uri.query().is_some() {
            return Err(bad("it has a query"));
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| bad("it has no host"))?;
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            prefix: path.strip_suffix("/v1").unwrap_or(path).to_owned(),
        })
    }
}

impl Address {
    /// Host and port as a `Host` header and an error message show them.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// The request target of an API path such as `v1/completions`.
    pub(crate) fn path(&self, api: &str) -> String {
        format!("{}/{api}", self.prefix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_with_and_without_path() {
        for (text, shown, path) in [
            (
                "http://127.0.0.1:8000",
                "http://127.0.0.1:8000",
                "/v1/completions",
            ),
            ("http://h", "http://h:80", "/v1/completions"),
            (
                "https://h/api/v1/",
                "https://h:443/api",
                "/api/v1/completions",
            ),
            ("http://[::1]:9", "http://[::1]:9", "/v1/completions"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.path("v1/completions"), path);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("localhost:8000", "no URL"),
            ("localhost", "no scheme"),
            ("ftp://h", "neither http nor https"),
            ("http://user:pw@h", "credentials"),
            ("http://h/?a=b", "query"),
            ("http://a b", "no URL"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(
                error.contains(problem) || text.starts_with("localhost"),
                "{text}: {error}"
            );
        }
    }
}
