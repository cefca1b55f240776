//! Whose certificates a server may have: those that lead to Mozilla's roots, or to the ones of a
//! file.
//!
//! Read before a run, so that a bad file is no failed request. How TLS is spoken the client knows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

/// Where the chain of a server's certificate has to lead.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// To one of Mozilla's roots.
    #[default]
    Mozilla,
    /// To one of these, and to none of Mozilla's.
    Own(Arc<RootCertStore>),
}

/// Why a file says nothing of whom to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("could not read the certificates of `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no PEM, or a certificate in it is none.
    #[error(
        "certificate {number} of `{}` cannot be understood: {problem}; help: write each certificate as PEM, from `-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----`", path.display()
    )]
    Garbled {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// It holds none.
    #[error(
        "`{}` has no certificate; help: name the file of the CA that signed the server's certificate, as PEM", path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Trust {
    /// Trusts the certificates of a PEM file, and no others.
    ///
    /// # Errors
    ///
    /// [`TrustError`] if it cannot be read, holds none, or holds one that is none.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let bytes = std::fs::read(path).map_err(|source| TrustError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut roots = RootCertStore::empty();
        for (found, number) in CertificateDer::pem_slice_iter(&bytes).zip(1..) {
            let garbled = |problem| TrustError::Garbled {
                path: path.to_owned(),
                number,
                problem,
            };
            let certificate = found.map_err(|error| garbled(in_words(error)))?;
            let added = roots.add(certificate);
            added.map_err(|error| garbled(error.to_string()))?;
        }
        match roots.is_empty() {
            true => Err(TrustError::Empty {
                path: path.to_owned(),
            }),
            false => Ok(Self::Own(Arc::new(roots))),
        }
    }

    /// How a client speaks TLS that trusts these.
    ///
    /// # Errors
    ///
    /// Why the library of TLS offers no such client, in a few words.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let roots = match self {
            Self::Mozilla => Arc::new(RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            }),
            Self::Own(roots) => roots.clone(),
        };
        // Named, because the default is ambiguous once another crate brings a second provider.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

fn in_words(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "its first line is broken".to_owned(),
        pem::Error::Base64Decode(_) => "it is no base64".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        let error = Trust::read(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        error
    }

    #[test]
    fn a_file_that_names_nobody_says_why() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for text in ["", "\n# nothing yet\n", key] {
            assert!(refusal(text.as_bytes()).contains("has no certificate"));
        }
        let begin = "-----BEGIN CERTIFICATE-----\n";
        let end = "-----END CERTIFICATE-----\n";
        for (text, why) in [
            (format!("{begin}AAAA\n"), "it has no end"),
            (format!("{begin}!!!!\n{end}"), "it is no base64"),
            (format!("{begin}AAAA\n{end}"), "certificate 1 of"),
        ] {
            let error = refusal(text.as_bytes());
            assert!(error.contains(why) && error.contains("help: "), "{error}");
        }
        assert!(refusal(&[0x30, 0x82, 0xff, 0]).contains("has no certificate"));
        let missing = Trust::read(Path::new("/nowhere/ca.pem")).unwrap_err();
        assert!(missing.to_string().contains("`/nowhere/ca.pem`"));
    }
}
