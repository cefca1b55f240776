//! What an artifact is: a name for content, and the list of what it consists of.
//!
//! Knows nothing of where a store keeps it.

use super::Digest;
use serde::{Deserialize, Serialize};

/// The first line of each manifest; the number is the version of the format.
const HEADER: &str = "benchwright tree 1";

/// Names an artifact by its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRef {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Whether it is one file or a folder.
    pub kind: ArtifactKind,
}

/// Whether an artifact is one file or a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ArtifactKind {
    /// One file: its manifest has one entry.
    File {
        /// What the file is called, without folders.
        name: String,
    },
    /// A folder with everything in it.
    Folder,
}

/// One thing in an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies, relative to the artifact, with `/` between names.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What an entry of an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file.
    File {
        /// Whether it may be executed.
        executable: bool,
        /// How long it is, in bytes.
        size: u64,
        /// The BLAKE3 digest of what it holds.
        digest: Digest,
    },
    /// A symbolic link to another entry.
    Link {
        /// Where it points, relative to its own folder.
        target: String,
    },
    /// A folder with nothing in it; others follow from the paths within them.
    EmptyFolder,
}

/// Everything in an artifact, sorted by path. Its text is canonical, and the text's digest is the
/// artifact's: who has the digest can check the list, and with it every file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    entries: Vec<Entry>,
}

impl Manifest {
    /// Sorts `entries` by the bytes of their paths.
    pub(super) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        Self { entries }
    }

    /// Returns the entries by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the total size of the files, in bytes; content that occurs twice counts twice.
    pub fn size(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match entry.content {
            Content::File { size, .. } => size,
            Content::Link { .. } | Content::EmptyFolder => 0,
        });
        sizes.sum()
    }

    /// Writes the manifest as text: a header, then one line per entry with tabs between the fields.
    pub(super) fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for entry in &self.entries {
            let path = escape(&entry.path);
            let line = match &entry.content {
                Content::File {
                    executable,
                    size,
                    digest,
                } => {
                    format!(
                        "{}\t{size}\t{digest}\t{path}\n",
                        if *executable { "x" } else { "f" }
                    )
                }
                Content::Link { target } => format!("l\t{}\t{path}\n", escape(target)),
                Content::EmptyFolder => format!("d\t{path}\n"),
            };
            text.push_str(&line);
        }
        text
    }

    /// Reads the text of a manifest; `None` unless it is exactly what [`Self::encode`] writes.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let lines = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
        let entries = lines.lines().map(decode_line).collect::<Option<Vec<_>>>()?;
        let manifest = Self { entries };
        let safe = manifest.entries.iter().all(|entry| is_inside(&entry.path));
        (safe && manifest.encode() == text).then_some(manifest)
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.encode().as_bytes())
    }
}

fn decode_line(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split('\t').collect();
    let (path, content) = match fields[..] {
        [kind @ ("f" | "x"), size, digest, path] => {
            let (size, digest) = (size.parse().ok()?, digest.parse().ok()?);
            (
                path,
                Content::File {
                    executable: kind == "x",
                    size,
                    digest,
                },
            )
        }
        ["l", target, path] => (
            path,
            Content::Link {
                target: unescape(target)?,
            },
        ),
        ["d", path] => (path, Content::EmptyFolder),
        _ => return None,
    };
    Some(Entry {
        path: unescape(path)?,
        content,
    })
}

/// Whether `path` stays below where it starts: a damaged or forged list must not reach elsewhere.
fn is_inside(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
        .replace('\t', "\\t")
}

pub(super) fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            (any::<bool>(), any::<u64>(), any::<[u8; 32]>()).prop_map(
                |(executable, size, digest)| {
                    Content::File {
                        executable,
                        size,
                        digest: Digest::from_bytes(digest),
                    }
                }
            ),
            "[a\\\\\t\r\n ü/]{1,8}".prop_map(|target| Content::Link { target }),
            Just(Content::EmptyFolder),
        ]
    }

    proptest! {
        #[test]
        fn a_manifest_survives_its_text(
            entries in prop::collection::btree_map("[a-c\\\\\t\r\n ü]{1,6}", content(), 0..8),
        ) {
            let entries = entries.into_iter().map(|(path, content)| Entry { path, content }).collect();
            let manifest = Manifest::new(entries);
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Some(manifest));
        }
    }

    #[test]
    fn paths_that_lead_out_are_no_manifest() {
        for path in ["../x", "/x", "a/../../x", "a//b", ".", ""] {
            assert_eq!(
                Manifest::decode(&format!("{HEADER}\nd\t{path}\n")),
                None,
                "{path}"
            );
        }
        assert!(Manifest::decode(&format!("{HEADER}\nd\ta/b\n")).is_some());
        assert_eq!(Manifest::decode(&format!("{HEADER}\nd\tb\nd\ta")), None);
    }

    #[test]
    fn references_survive_json() {
        for kind in [
            ArtifactKind::File {
                name: "a.json".into(),
            },
            ArtifactKind::Folder,
        ] {
            let artifact = ArtifactRef {
                digest: Digest::of(b""),
                kind,
            };
            let json = serde_json::to_string(&artifact).unwrap();
            assert_eq!(
                serde_json::from_str::<ArtifactRef>(&json).unwrap(),
                artifact
            );
        }
    }
}
