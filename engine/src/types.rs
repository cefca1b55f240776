//! The types that options can have: numbers with their limits, durations, paths, artifacts,
//! services, collections of samples, text with references, free-form tables.

use crate::graph::{Link, NodeId};
use crate::options::{OptionType, Parser, Walk};
use crate::value::{Kind, Piece, Value};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

/// Names a kind of artifact or service: outputs declare one, options accept one.
pub trait ArtifactKind: std::fmt::Debug + Clone + Send + Sync + 'static {
    /// The name in documentation and problems.
    const NAME: &'static str;
}

/// Accepts every kind.
#[derive(Debug, Clone)]
pub struct Any;

impl ArtifactKind for Any {
    const NAME: &'static str = "any";
}

fn accepts<K: ArtifactKind>(kind: &str) -> bool {
    K::NAME == Any::NAME || K::NAME == kind
}

/// A file or folder: another step's output, or a path that exists already.
#[derive(Debug, Clone)]
pub struct Artifact<K> {
    /// Where it comes from.
    pub origin: Origin,
    kind: PhantomData<K>,
}

/// Where an [`Artifact`] comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A path that exists already.
    Path(PathBuf),
    /// Another step's output.
    Link(Link),
}

impl<K: ArtifactKind> OptionType for Artifact<K> {
    fn type_name() -> String {
        format!("path or artifact<{}>", K::NAME)
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let origin = match &value.kind {
            Kind::Text(path) => match parser.linker().find(path) {
                Ok(found) => Origin::Path(found),
                Err(searched) => {
                    let places: Vec<String> = searched
                        .iter()
                        .map(|p| format!("`{}`", p.display()))
                        .collect();
                    let help = format!(
                        "looked for {}; a path is searched from the plan's folder upwards",
                        places.join(", ")
                    );
                    return parser.wrong(
                        &value.place,
                        format!("there is no file or folder `{path}`"),
                        "not found",
                        &help,
                    );
                }
            },
            Kind::Template(pieces) if pieces.len() == 1 => {
                let linked = parser.single_link(value)?;
                let Link::Output { .. } = linked.link else {
                    return parser.wrong(
                        &value.place,
                        format!("expected one artifact<{}>", K::NAME),
                        "this is something else",
                        "refer to one output: `${steps.NAME.OUTPUT}`",
                    );
                };
                if !accepts::<K>(linked.kind) {
                    let message = format!(
                        "expected artifact<{}>, found artifact<{}>",
                        K::NAME,
                        linked.kind
                    );
                    return parser.wrong(
                        &value.place,
                        message,
                        "wrong kind of artifact",
                        "`benchwright steps` lists what each step brings",
                    );
                }
                Origin::Link(linked.link)
            }
            _ => return parser.mismatch(value, &Self::type_name()),
        };
        Some(Self {
            origin,
            kind: PhantomData,
        })
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match &self.origin {
            Origin::Path(file) => walk.file(path, file),
            Origin::Link(link) => walk.link(path, link),
        }
    }
}

/// A service that a step leases while it runs.
#[derive(Debug, Clone)]
pub struct Lease<K> {
    /// The service's node.
    pub node: NodeId,
    kind: PhantomData<K>,
}

impl<K: ArtifactKind> OptionType for Lease<K> {
    fn type_name() -> String {
        format!("service<{}>", K::NAME)
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        if !matches!(&value.kind, Kind::Template(p) if p.len() == 1) {
            return parser.mismatch(
                value,
                &format!("a {} such as `${{services.NAME}}`", Self::type_name()),
            );
        }
        let linked = parser.single_link(value)?;
        match linked.link {
            Link::Service { node } if accepts::<K>(linked.kind) => Some(Self {
                node,
                kind: PhantomData,
            }),
            _ => {
                let message = format!("expected {}, found {}", Self::type_name(), linked.kind);
                parser.wrong(
                    &value.place,
                    message,
                    "not such a service",
                    "refer to a service: `${services.NAME}`",
                )
            }
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.link(path, &Link::Service { node: self.node });
    }
}

/// All samples of a measurement: `${steps.NAME.all}`.
#[derive(Debug, Clone)]
pub struct Samples<K> {
    /// The measurement's instances.
    pub nodes: Vec<NodeId>,
    kind: PhantomData<K>,
}

impl<K: ArtifactKind> OptionType for Samples<K> {
    fn type_name() -> String {
        format!("samples<{}>", K::NAME)
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        if !matches!(&value.kind, Kind::Template(p) if p.len() == 1) {
            return parser.mismatch(
                value,
                &format!("{} such as `${{steps.NAME.all}}`", Self::type_name()),
            );
        }
        let linked = parser.single_link(value)?;
        match linked.link {
            Link::All { nodes } if accepts::<K>(linked.kind) => Some(Self {
                nodes,
                kind: PhantomData,
            }),
            _ => {
                let message = format!("expected {}, found {}", Self::type_name(), linked.kind);
                parser.wrong(
                    &value.place,
                    message,
                    "not such samples",
                    "refer to all samples of a measurement: `${steps.NAME.all}`",
                )
            }
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.link(
            path,
            &Link::All {
                nodes: self.nodes.clone(),
            },
        );
    }
}

/// Text that may hold references, put together when the step runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// Its parts in order.
    pub parts: Vec<TextPart>,
}

/// A part of a [`Text`].
#[derive(Debug, Clone, PartialEq)]
pub enum TextPart {
    /// As written.
    Plain(String),
    /// Known when the step runs.
    Link(Link),
}

impl OptionType for Text {
    fn type_name() -> String {
        "text".to_owned()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let pieces = match &value.kind {
            Kind::Text(text) => {
                return Some(Self {
                    parts: vec![TextPart::Plain(text.clone())],
                });
            }
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {
                return Some(Self {
                    parts: vec![TextPart::Plain(value.to_line())],
                });
            }
            Kind::Template(pieces) => pieces,
            _ => return parser.mismatch(value, "text"),
        };
        let parts: Vec<Option<TextPart>> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(t) => Some(TextPart::Plain(t.clone())),
                Piece::Late(late) => parser
                    .link(&late.target, &late.place)
                    .map(|l| TextPart::Link(l.link)),
            })
            .collect();
        Some(Self {
            parts: parts.into_iter().collect::<Option<Vec<_>>>()?,
        })
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        for (i, part) in self.parts.iter().enumerate() {
            let path = if self.parts.len() == 1 {
                path.to_owned()
            } else {
                format!("{path}.{i}")
            };
            match part {
                TextPart::Plain(text) => walk.value(&path, text),
                TextPart::Link(link) => walk.link(&path, link),
            }
        }
    }
}

/// A number greater than zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Positive(pub f64);

impl OptionType for Positive {
    fn type_name() -> String {
        "float > 0".to_owned()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let number = f64::parse(value, parser)?;
        if number > 0.0 && number.is_finite() {
            return Some(Self(number));
        }
        parser.wrong(
            &value.place,
            format!("expected a number greater than 0, found {number}"),
            "out of range",
            "write a number above 0",
        )
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        self.0.walk(path, walk);
    }
}

/// A free-form table of plain values, such as overrides of a configuration file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Json(pub serde_json::Map<String, serde_json::Value>);

impl OptionType for Json {
    fn type_name() -> String {
        "table".to_owned()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match to_json(value, parser)? {
            serde_json::Value::Object(map) => Some(Self(map)),
            _ => parser.mismatch(value, "a table"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        if self.0.is_empty() {
            return walk.value(path, "{}");
        }
        for (key, value) in &self.0 {
            walk.value(&join(path, key), &value.to_string());
        }
    }
}

fn to_json(value: &Value, parser: &mut Parser<'_>) -> Option<serde_json::Value> {
    Some(match &value.kind {
        Kind::Text(t) => t.clone().into(),
        Kind::Int(i) => (*i).into(),
        Kind::Float(f) => (*f).into(),
        Kind::Bool(b) => (*b).into(),
        Kind::List(list) => list
            .iter()
            .map(|v| to_json(v, parser))
            .collect::<Option<Vec<_>>>()?
            .into(),
        Kind::Table(table) => {
            let mut map = serde_json::Map::new();
            for (key, value) in &table.entries {
                map.insert(key.name.clone(), to_json(value, parser)?);
            }
            map.into()
        }
        Kind::Template(_) => return parser.mismatch(value, "a plain value"),
    })
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Writes a number so that equal values have equal text: `4.0` and `4` are both `4`.
pub fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{number:.0}")
    } else {
        format!("{number:?}")
    }
}

impl OptionType for bool {
    fn type_name() -> String {
        "bool".to_owned()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match value.kind {
            Kind::Bool(b) => Some(b),
            _ => parser.mismatch(value, "`true` or `false`"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, if *self { "true" } else { "false" });
    }
}

impl OptionType for f64 {
    fn type_name() -> String {
        "float".to_owned()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match value.kind {
            Kind::Float(f) => Some(f),
            #[expect(
                clippy::cast_precision_loss,
                reason = "numbers in plans are far below 2^53"
            )]
            Kind::Int(i) => Some(i as f64),
            _ => parser.mismatch(value, "a number"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &number_text(*self));
    }
}

macro_rules! integer_option {
    ($($ty:ty, $name:literal, $expected:literal;)+) => { $(
        impl OptionType for $ty {
            fn type_name() -> String {
                $name.to_owned()
            }

            fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
                let Kind::Int(i) = value.kind else { return parser.mismatch(value, $expected) };
                match <$ty>::try_from(i) {
                    Ok(n) => Some(n),
                    Err(_) => parser.wrong(&value.place, format!(concat!("expected ", $expected, ", found {}"), i),
                        "out of range", concat!("write ", $expected)),
                }
            }

            fn walk(&self, path: &str, walk: &mut dyn Walk) {
                walk.value(path, &self.to_string());
            }
        }
    )+ };
}

integer_option! {
    u16, "int", "an integer from 0 to 65535";
    u32, "int", "an integer from 0 to 4294967295";
    u64, "int", "an integer from 0 upwards";
    i64, "int", "an integer";
}

macro_rules! non_zero_option {
    ($($ty:ty, $plain:ty;)+) => { $(
        impl OptionType for $ty {
            fn type_name() -> String {
                "int >= 1".to_owned()
            }

            fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
                let Kind::Int(i) = value.kind else { return parser.mismatch(value, "an integer from 1 upwards") };
                match <$plain>::try_from(i).ok().and_then(<$ty>::new) {
                    Some(n) => Some(n),
                    None => parser.wrong(&value.place, format!("expected an integer from 1 upwards, found {i}"),
                        "out of range", "write a number from 1 upwards"),
                }
            }

            fn walk(&self, path: &str, walk: &mut dyn Walk) {
                walk.value(path, &self.to_string());
            }
        }
    )+ };
}

non_zero_option! {
    NonZeroU32, u32;
    NonZeroU64, u64;
}

impl OptionType for String {
    fn type_name() -> String {
        "string".to_owned()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        match &value.kind {
            Kind::Text(t) => Some(t.clone()),
            _ => parser.mismatch(value, "a string"),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, self);
    }
}

impl OptionType for Duration {
    fn type_name() -> String {
        "duration".to_owned()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Text(text) = &value.kind else {
            return parser.mismatch(value, "a duration such as \"10s\"");
        };
        match parse_duration(text) {
            Some(d) => Some(d),
            None => parser.wrong(
                &value.place,
                format!("`{text}` is not a duration"),
                "not understood",
                "write a number and a unit: `500ms`, `10s`, `20m`, `2h`, `7d`",
            ),
        }
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &duration_text(*self));
    }
}

/// Reads `500ms`, `10s`, `1.5m`, `2h`, `7d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..split].trim().parse().ok()?;
    let seconds = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// Writes a duration as plans do.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        _ if !ms.is_multiple_of(1000) => format!("{ms}ms"),
        _ if ms.is_multiple_of(86_400_000) && ms > 0 => format!("{}d", ms / 86_400_000),
        _ if ms.is_multiple_of(3_600_000) && ms > 0 => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) && ms > 0 => format!("{}m", ms / 60_000),
        _ => format!("{}s", ms / 1000),
    }
}

impl<T: OptionType> OptionType for Vec<T> {
    fn type_name() -> String {
        format!("list<{}>", T::type_name())
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::List(list) = &value.kind else {
            return parser.mismatch(value, &Self::type_name());
        };
        let read: Vec<Option<T>> = list.iter().map(|v| T::parse(v, parser)).collect();
        read.into_iter().collect()
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        if self.is_empty() {
            walk.value(path, "[]");
        }
        for (i, item) in self.iter().enumerate() {
            item.walk(&join(path, &i.to_string()), walk);
        }
    }
}

impl<T: OptionType> OptionType for BTreeMap<String, T> {
    fn type_name() -> String {
        format!("table<{}>", T::type_name())
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Table(table) = &value.kind else {
            return parser.mismatch(value, &Self::type_name());
        };
        let read: Vec<Option<(String, T)>> = table
            .entries
            .iter()
            .map(|(k, v)| T::parse(v, parser).map(|v| (k.name.clone(), v)))
            .collect();
        read.into_iter().collect()
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        if self.is_empty() {
            walk.value(path, "{}");
        }
        for (key, item) in self {
            item.walk(&join(path, key), walk);
        }
    }
}

impl<T: OptionType> OptionType for Option<T> {
    fn type_name() -> String {
        T::type_name()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        T::parse(value, parser).map(Some)
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match self {
            Some(item) => item.walk(path, walk),
            None => walk.value(path, "none"),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for text in ["500ms", "10s", "20m", "2h", "7d", "90s"] {
            let read = parse_duration(text).expect(text);
            assert_eq!(parse_duration(&duration_text(read)), Some(read));
        }
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration("ten s"), None);
        assert_eq!(parse_duration("-1s"), None);
    }

    #[test]
    fn equal_numbers_have_equal_text() {
        assert_eq!(number_text(4.0), "4");
        assert_eq!(number_text(0.5), "0.5");
    }
}
