//! Options that refer to what other nodes bring: artifacts, services, samples, text with references.

use crate::graph::{Link, NodeId};
use crate::options::{OptionType, Parser, Walk};
use crate::schema::{Schema, reference_to};
use crate::value::{Kind, Piece, Value};
use serde_json::json;
use std::marker::PhantomData;
use std::path::PathBuf;

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

impl<K> Artifact<K> {
    /// Builds one that lies at a path already.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            origin: Origin::Path(path.into()),
            kind: PhantomData,
        }
    }
}

impl<K: ArtifactKind> OptionType for Artifact<K> {
    fn type_name() -> String {
        format!("path or artifact<{}>", K::NAME)
    }

    fn schema() -> Schema {
        json!({ "type": "string", "minLength": 1 })
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let origin = match &value.kind {
            Kind::Text(path) => match parser.linker().find(path, &value.place) {
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

    fn schema() -> Schema {
        reference_to("services")
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

    fn schema() -> Schema {
        reference_to("steps")
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
    /// A number that another step computes: the content of its output, not its path.
    Number(Link),
}

/// The kind of outputs that stand in texts as what they hold: one number, as text.
pub const NUMBER: &str = "number";

impl OptionType for Text {
    fn type_name() -> String {
        "text".to_owned()
    }

    fn schema() -> Schema {
        json!({ "type": ["string", "integer", "number", "boolean"] })
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
                Piece::Late(late) => {
                    let linked = parser.link(&late.target, &late.place)?;
                    if let Link::Service { .. } | Link::All { .. } = linked.link {
                        let message = format!("`{}` cannot be written as text", late.target);
                        let help = "name one output, or a fact of a service such as `url`";
                        return parser.wrong(&late.place, message, "not a text", help);
                    }
                    Some(match linked.kind {
                        NUMBER => TextPart::Number(linked.link),
                        _ => TextPart::Link(linked.link),
                    })
                }
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
                TextPart::Link(link) | TextPart::Number(link) => walk.link(&path, link),
            }
        }
    }
}
