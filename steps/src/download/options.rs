//! The types of options that say where something is, and what it must be.

use engine::options::{OptionType, Parser, Walk};
use engine::problem::did_you_mean;
use engine::schema::{Schema, or_reference};
use engine::source::Place;
use engine::types::{Text, TextPart};
use engine::value::{Kind, Value};
use fetch::catalogue::{self, Dataset};
use fetch::{RepoKind, Sha256, Source};
use serde_json::json;
use std::num::NonZeroU32;

/// Where a data set is: one of the short names, or a source as the crate `fetch` reads it.
#[derive(Debug, Clone)]
pub(super) enum DataSource {
    /// A short name.
    Named(&'static Dataset),
    /// A source, as it was written.
    Given { source: Source, texts: Vec<String> },
}

impl DataSource {
    /// Whether it is a repository whose revision the plan may choose.
    pub(super) fn is_repository(&self) -> bool {
        matches!(
            self,
            Self::Given {
                source: Source::Hub(_),
                ..
            }
        )
    }

    /// Whether the hub is asked for it.
    pub(super) fn is_of_the_hub(&self) -> bool {
        match self {
            Self::Named(dataset) => dataset.part.source.starts_with("hf:"),
            Self::Given { .. } => self.is_repository(),
        }
    }
}

impl OptionType for DataSource {
    fn type_name() -> String {
        "source or list<source>".to_owned()
    }

    fn schema() -> Schema {
        json!({ "type": ["string", "array"], "minLength": 1, "items": { "type": "string" } })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        if let Kind::Text(text) = &value.kind
            && !text.contains(':')
        {
            let found = catalogue::find(text).map(Self::Named);
            return found.or_else(|| unknown_name(text, value, parser));
        }
        let (texts, places) = texts(value, parser)?;
        let wrong = |text: &str| {
            let i = texts.iter().position(|known| known == text);
            i.map_or(&value.place, |i| &places[i])
        };
        let source = read(&texts, RepoKind::Dataset, wrong, parser)?;
        Some(Self::Given { source, texts })
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match self {
            Self::Named(dataset) => {
                let what = dataset.part.sha256.unwrap_or("any content");
                walk.value(path, &format!("{} {what}", dataset.part.source));
            }
            Self::Given {
                source: Source::File(file),
                ..
            } => walk.file(path, file),
            // What follows a `?` can be a signature, and this is written down.
            Self::Given {
                source: source @ Source::Web(_),
                ..
            } => walk.value(path, &source.fingerprint()),
            Self::Given { texts, .. } => walk.value(path, &texts.join(" ")),
        }
    }
}

fn unknown_name<T>(text: &str, value: &Value, parser: &mut Parser<'_>) -> Option<T> {
    let names = catalogue::all().iter().map(|dataset| dataset.name);
    let help = format!(
        "{} `benchwright steps dataset` lists them all; other sources begin with `hf:`, `https:`, `pypi:` or `file:`",
        did_you_mean(text, names)
    );
    let message = format!("no data set has the short name `{text}`");
    parser.wrong(&value.place, message, "unknown name", &help)
}

/// The texts of an option that is one or several, and where each stands.
fn texts(value: &Value, parser: &mut Parser<'_>) -> Option<(Vec<String>, Vec<Place>)> {
    let list = match &value.kind {
        Kind::List(list) => list.iter().collect(),
        _ => vec![value],
    };
    let one = |value: &Value| match &value.kind {
        Kind::Text(text) => Some((text.clone(), value.place.clone())),
        _ => None,
    };
    let all: Option<Vec<_>> = list.into_iter().map(one).collect();
    match all {
        Some(all) => Some(all.into_iter().unzip()),
        None => parser.mismatch(value, "a source, or a list of addresses of one file"),
    }
}

/// Reads a source; `place` tells where a text stands.
fn read<'p>(
    texts: &[String],
    kind: RepoKind,
    place: impl Fn(&str) -> &'p Place,
    parser: &mut Parser<'_>,
) -> Option<Source> {
    let source = match Source::mirrors(texts, kind) {
        Ok(source) => source,
        Err(error) => {
            let place = place(&error.text);
            return parser.wrong(place, error.to_string(), "not understood", error.help);
        }
    };
    let Source::File(path) = &source else {
        return Some(source);
    };
    let text = path.display().to_string();
    let place = place(&format!("file:{text}"));
    match parser.linker().find(&text, place) {
        Ok(found) => Some(Source::File(found)),
        Err(_) => parser.wrong(
            place,
            format!("there is no file or folder `{text}`"),
            "not found",
            "a path is searched from the plan's folder upwards",
        ),
    }
}

/// A repository of models.
#[derive(Debug, Clone)]
pub(super) struct ModelSource {
    pub(super) hub: fetch::Hub,
    text: String,
}

impl OptionType for ModelSource {
    fn type_name() -> String {
        "source".to_owned()
    }

    fn schema() -> Schema {
        json!({ "type": "string", "minLength": 1 })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Text(text) = &value.kind else {
            return parser.mismatch(value, "a repository such as `hf:OWNER/NAME`");
        };
        match read(
            std::slice::from_ref(text),
            RepoKind::Model,
            |_| &value.place,
            parser,
        )? {
            Source::Hub(hub) if hub.file.is_none() => Some(Self {
                hub,
                text: text.clone(),
            }),
            _ => parser.wrong(
                &value.place,
                format!("`{text}` is no repository of the hub"),
                "not a model's repository",
                "write `hf:OWNER/NAME`; `dataset.fetch` brings single files and other sources",
            ),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &self.text);
    }
}

/// The digest that something must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(pub(crate) Sha256);

impl OptionType for Digest {
    fn type_name() -> String {
        "string".to_owned()
    }

    fn schema() -> Schema {
        or_reference(json!({ "type": "string", "pattern": "^(sha256:)?[0-9a-fA-F]{64}$" }))
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Text(text) = &value.kind else {
            return parser.mismatch(value, "a SHA-256 in hexadecimal digits");
        };
        match text.parse() {
            Ok(digest) => Some(Self(digest)),
            Err(error) => parser.wrong(
                &value.place,
                format!("{error}"),
                "no digest",
                "write what `sha256sum FILE` prints",
            ),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &self.0.to_string());
    }
}

/// How many connections bring a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connections(pub(super) NonZeroU32);

/// How many there are if nothing is said.
pub(super) const USUAL: NonZeroU32 = NonZeroU32::new(4).expect("not zero");
/// Servers refuse those who come with many.
const MOST: u32 = 64;

impl OptionType for Connections {
    fn type_name() -> String {
        format!("int 1..{MOST}")
    }

    fn schema() -> Schema {
        or_reference(json!({ "type": "integer", "minimum": 1, "maximum": MOST }))
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let n = NonZeroU32::parse(value, parser)?;
        match n.get() <= MOST {
            true => Some(Self(n)),
            false => parser.wrong(
                &value.place,
                format!("{n} connections to one server are too many"),
                "too many",
                &format!("write {MOST} at most"),
            ),
        }
    }

    /// By how many connections something comes changes nothing in it: a key always has the usual number.
    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &USUAL.to_string());
    }

    fn absent() -> Option<Self> {
        Some(Self(USUAL))
    }
}

/// Refuses a token that stands in the plan itself, from where it would go into keys, locks and reports.
pub(super) fn check_token(
    token: Option<&Text>,
    table: &engine::value::Table,
    place: &Place,
    parser: &mut Parser<'_>,
) {
    let is_secret =
        |part: &TextPart| matches!(part, TextPart::Link(engine::graph::Link::Secret { .. }));
    if token.is_none_or(|text| text.parts.iter().all(is_secret)) {
        return;
    }
    let at = table.get("token").map_or(place, |value| &value.place);
    parser.wrong::<()>(
        at,
        "a token in a plan is no secret",
        "this would be written down",
        "write `token = \"${secret.HF_TOKEN}\"`, and set HF_TOKEN in the environment",
    );
}

/// Refuses a revision that cannot be one.
pub(super) fn check_revision(
    revision: Option<&str>,
    table: &engine::value::Table,
    place: &Place,
    parser: &mut Parser<'_>,
) {
    let anywhere = fetch::Hub {
        kind: RepoKind::Dataset,
        repository: String::new(),
        revision: None,
        file: None,
    };
    if let Some(Err(error)) = revision.map(|revision| anywhere.at(revision)) {
        let at = table.get("revision").map_or(place, |value| &value.place);
        parser.wrong::<()>(at, error.why, "no revision", error.help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::graph::Link;
    use std::path::Path;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Walk for Seen {
        fn value(&mut self, path: &str, text: &str) {
            self.0.push(format!("{path}={text}"));
        }
        fn link(&mut self, _: &str, _: &Link) {}
        fn file(&mut self, path: &str, file: &Path) {
            self.0.push(format!("{path}: {}", file.display()));
        }
    }

    fn walked(value: &impl OptionType) -> Vec<String> {
        let mut seen = Seen::default();
        value.walk("x", &mut seen);
        seen.0
    }

    #[test]
    fn a_key_holds_what_is_brought_and_not_by_how_many_connections() {
        let many = NonZeroU32::new(9).expect("not zero");
        assert_eq!(walked(&Connections(many)), walked(&Connections(USUAL)));
        let named = DataSource::Named(catalogue::find("sharegpt").expect("a name"));
        let [line] = walked(&named).try_into().expect("one value");
        assert!(line.contains("@192ab2185289") && line.contains("35f0e213ce091ed9"));
        let given = |text: &str| DataSource::Given {
            source: Source::parse(text, RepoKind::Dataset).expect("a source"),
            texts: vec![text.to_owned()],
        };
        // Addresses that differ in what is told nowhere are others all the same.
        assert_ne!(
            walked(&given("https://h/a?x=1")),
            walked(&given("https://h/a?x=2"))
        );
        let signed = walked(&given("https://h/a?Signature=secret"));
        assert!(
            signed[0].starts_with("x=https://h/a?sha256:") && !signed[0].contains("secret"),
            "{signed:?}"
        );
        assert_eq!(walked(&given("file:/a/b")), ["x: /a/b"]);
    }
}
