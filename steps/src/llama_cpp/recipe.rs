//! What decides what a build becomes, and thereby its name.

use super::TOOLS;
use fetch::Sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What every build is defined by: the server alone, in one file that needs no library of its own.
const DEFINITIONS: [(&str, &str); 9] = [
    ("BUILD_SHARED_LIBS", "OFF"),
    ("CMAKE_BUILD_TYPE", "Release"),
    ("LLAMA_BUILD_COMMIT", ""),
    ("LLAMA_BUILD_EXAMPLES", "OFF"),
    ("LLAMA_BUILD_NUMBER", ""),
    ("LLAMA_BUILD_TESTS", "OFF"),
    ("LLAMA_BUILD_UI", "OFF"),
    ("LLAMA_USE_PREBUILT_UI", "OFF"),
    // It would look for the machine's own library, and the server is reached on this machine alone.
    ("LLAMA_OPENSSL", "OFF"),
];

/// Everything that a build depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recipe {
    /// The version of the package.
    pub(super) version: String,
    /// The digest of the source.
    source: Sha256,
    /// What CMake is told.
    pub(super) definitions: BTreeMap<String, String>,
    /// What the compilers say of themselves.
    compilers: Vec<String>,
    /// CMake and Ninja with their versions.
    tools: Vec<String>,
    /// The platform, and what its processor can do.
    machine: String,
}

impl Recipe {
    pub(super) fn new(
        version: &str,
        source: Sha256,
        further: BTreeMap<String, String>,
        compilers: Vec<String>,
    ) -> Self {
        let own = DEFINITIONS.iter();
        let own = own.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut recipe = Self {
            version: version.to_owned(),
            source,
            definitions: own.chain(further).collect(),
            compilers,
            tools: TOOLS.map(str::to_owned).to_vec(),
            machine: machine(),
        };
        // The server tells both as its version: there is no repository that it could take them from.
        let (number, commit) = (recipe.number().to_owned(), recipe.commit());
        let mut set = |name: &str, value: String| recipe.definitions.insert(name.to_owned(), value);
        set("LLAMA_BUILD_NUMBER", number);
        set("LLAMA_BUILD_COMMIT", commit);
        recipe
    }

    /// llama.cpp's own number of the release.
    fn number(&self) -> &str {
        self.version.split('.').next().unwrap_or_default()
    }

    /// Stands for a commit, which a package does not tell: the beginning of the source's digest.
    fn commit(&self) -> String {
        self.source.to_string().chars().take(8).collect()
    }

    /// What the server tells as its version.
    pub(super) fn build(&self) -> String {
        format!("b{}-{}", self.number(), self.commit())
    }

    /// The digest of all of it.
    pub(super) fn id(&self) -> String {
        // A map of texts and lists of them is always written.
        let text = serde_json::to_string(self).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// The beginning of that, to be shown.
    pub(super) fn short_id(&self) -> String {
        self.id().chars().take(12).collect()
    }
}

/// Whether a definition is one of every build.
pub(super) fn is_own(name: &str) -> bool {
    DEFINITIONS.iter().any(|(own, _)| *own == name)
}

/// The platform, and a digest of what its processor can do: a build is for the processor it is compiled on.
pub(crate) fn machine() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let about = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        ["model name", "flags", "Features", "CPU part"].contains(&name)
    };
    let first: Vec<&str> = told
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .lines()
        .collect();
    let lines: Vec<&str> = first.into_iter().filter(about).collect();
    let processor = blake3::hash(lines.join("\n").as_bytes()).to_hex();
    let short = processor.get(..12).unwrap_or_default();
    [std::env::consts::OS, std::env::consts::ARCH, short].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(source: &[u8], further: &[(&str, &str)]) -> Recipe {
        let further = further.iter();
        let further = further.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let compilers = vec!["g++ 12.2.0".to_owned()];
        Recipe::new(
            "11434.0.0",
            Sha256::of(source),
            further.collect(),
            compilers,
        )
    }

    #[test]
    fn another_source_or_another_definition_is_another_build() {
        let one = recipe(b"a", &[]);
        assert_eq!(one.id(), recipe(b"a", &[]).id());
        assert_ne!(one.id(), recipe(b"b", &[]).id());
        assert_ne!(one.id(), recipe(b"a", &[("GGML_CUDA", "ON")]).id());
    }

    #[test]
    fn a_build_is_told_by_its_release_and_its_source() {
        let recipe = recipe(b"", &[]);
        assert_eq!(recipe.build(), "b11434-e3b0c442");
        assert_eq!(recipe.definitions["LLAMA_BUILD_NUMBER"], "11434");
        assert_eq!(recipe.definitions["LLAMA_BUILD_COMMIT"], "e3b0c442");
        assert!(is_own("LLAMA_OPENSSL") && !is_own("GGML_CUDA"));
    }

    #[test]
    fn the_processor_is_part_of_the_machine() {
        let machine = machine();
        assert_eq!(machine.split('-').count(), 3, "{machine}");
    }
}
