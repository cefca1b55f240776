//! Options of steps and services: declared once, and from that declaration parsed, documented,
//! hashed and explained.
//!
//! [`options!`](crate::options!) declares a struct; each field's type implements [`OptionType`].
//! Reading collects every problem instead of stopping at the first. The types that options may
//! have are in [`types`](crate::types).

use crate::graph::Link;
use crate::problem::{Problem, Problems, did_you_mean};
use crate::schema::Schema;
use crate::source::Place;
use crate::value::{Kind, Table, Target, Value};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// What the documentation says of one option.
#[derive(Debug, Clone, serde::Serialize)]
pub struct OptionSpec {
    /// The key in `with`.
    pub name: &'static str,
    /// The type, as plans name it.
    pub type_name: String,
    /// What the type allows, as a JSON schema.
    #[serde(skip)]
    pub schema: Schema,
    /// The value when the plan gives none; `None` if the plan must give one.
    pub default: Option<String>,
    /// The unit of the value, if it has one.
    pub unit: Option<&'static str>,
    /// What it means.
    pub doc: String,
}

/// A struct of options that a plan's `with` table is read into.
pub trait Options: Sized {
    /// Describes every option, in the order of declaration.
    fn describe() -> Vec<OptionSpec>;
    /// Reads the options; problems go to the parser, and `None` means that there were some.
    fn parse(table: &Table, place: &Place, parser: &mut Parser<'_>) -> Option<Self>;
    /// Goes through every option with its effective value.
    fn walk(&self, walk: &mut dyn Walk);
}

/// A type that an option can have.
pub trait OptionType: Sized {
    /// Names the type, as plans do.
    fn type_name() -> String;
    /// Describes what a plan may write, references included, as a JSON schema.
    fn schema() -> Schema;
    /// Reads a value of the type.
    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self>;
    /// Reports the effective value under `path`.
    fn walk(&self, path: &str, walk: &mut dyn Walk);
    /// The value when the key is absent and no default was declared; `None` makes it required.
    fn absent() -> Option<Self> {
        None
    }
}

/// Listens to the walk over a node's inputs: the key hashes it, the explanation prints it,
/// the graph takes its edges from it.
pub trait Walk {
    /// A plain value.
    fn value(&mut self, path: &str, text: &str);
    /// Something that another node brings.
    fn link(&mut self, path: &str, link: &Link);
    /// A file or folder outside of the store.
    fn file(&mut self, path: &str, file: &Path);
}

/// Turns late references into links; the expansion of a plan brings the implementation.
pub trait Linker {
    /// Links `target`, which stands at `place`.
    ///
    /// # Errors
    /// What is wrong, or `None` if that was reported where the target is declared.
    fn link(&self, target: &Target, place: &Place) -> Result<Linked, Option<Problem>>;
    /// Finds the file that a plan means by `path`, which stands at `place`.
    ///
    /// # Errors
    /// The folders that were searched.
    fn find(&self, path: &str, place: &Place) -> Result<PathBuf, Vec<PathBuf>>;
}

/// A link with what is known of its other end before anything runs.
#[derive(Debug, Clone)]
pub struct Linked {
    /// The link.
    pub link: Link,
    /// What kind of artifact or service it is.
    pub kind: &'static str,
}

/// Reads options and collects problems.
pub struct Parser<'a> {
    /// Everything that was wrong so far.
    pub problems: &'a mut Problems,
    linker: &'a dyn Linker,
    owner: Cow<'a, str>,
}

impl<'a> Parser<'a> {
    /// Builds a parser for the options of `owner`, such as ``step `load` ``.
    pub fn new(
        owner: impl Into<Cow<'a, str>>,
        linker: &'a dyn Linker,
        problems: &'a mut Problems,
    ) -> Self {
        Self {
            problems,
            linker,
            owner: owner.into(),
        }
    }

    /// Returns what late references mean.
    pub fn linker(&self) -> &'a dyn Linker {
        self.linker
    }

    /// Reports a problem with `value`'s type and returns nothing.
    pub fn mismatch<T>(&mut self, value: &Value, expected: &str) -> Option<T> {
        // An empty template stands for a reference that was reported already.
        if !matches!(&value.kind, Kind::Template(pieces) if pieces.is_empty()) {
            let message = format!("expected {expected}, found {}", value.type_name());
            let label = format!("this is {}", value.type_name());
            let problem = Problem::at(&value.place, message, label);
            self.problems.push(problem.help(value.mend(expected)));
        }
        None
    }

    /// Reports a problem at `place` and returns nothing.
    pub fn wrong<T>(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        label: &str,
        help: &str,
    ) -> Option<T> {
        self.problems
            .push(Problem::at(place, message, label).help(help));
        None
    }

    /// Reports every key of `table` that is not in `known`.
    pub fn only(&mut self, table: &Table, known: &[&'static str]) {
        for (key, _) in &table.entries {
            if !known.contains(&key.name.as_str()) {
                let message = format!("{} has no option `{}`", self.owner, key.name);
                let help = did_you_mean(&key.name, known.iter().copied());
                self.problems
                    .push(Problem::at(&key.place, message, "unknown option").help(help));
            }
        }
    }

    /// Reads the option `name` of `table`, which stands at `place`.
    pub fn field<T: OptionType>(
        &mut self,
        table: &Table,
        place: &Place,
        name: &'static str,
        default: Option<fn() -> T>,
    ) -> Option<T> {
        if let Some(value) = table.get(name) {
            return T::parse(value, self);
        }
        let fallback = default.map(|make| make()).or_else(T::absent);
        if fallback.is_none() {
            let message = format!("{} needs option `{name}`", self.owner);
            let help = format!("add `{name} = …`: {}", T::type_name());
            self.problems
                .push(Problem::at(place, message, format!("`{name}` is missing")).help(help));
        }
        fallback
    }

    /// Links the only reference that `value` consists of; `None` if it is not one or is wrong.
    pub fn single_link(&mut self, value: &Value) -> Option<Linked> {
        let Kind::Template(pieces) = &value.kind else {
            return None;
        };
        let [crate::value::Piece::Late(late)] = pieces.as_slice() else {
            return None;
        };
        self.link(&late.target, &late.place)
    }

    /// Links a reference; reports what is wrong with it.
    pub fn link(&mut self, target: &Target, place: &Place) -> Option<Linked> {
        match self.linker.link(target, place) {
            Ok(linked) => Some(linked),
            Err(problem) => {
                problem.into_iter().for_each(|p| self.problems.push(p));
                None
            }
        }
    }
}

/// A walk that keeps only the text of plain values: for defaults in the documentation.
#[derive(Default)]
pub struct TextWalk(Vec<String>);

impl Walk for TextWalk {
    fn value(&mut self, path: &str, text: &str) {
        let is_position = path.parse::<usize>().is_ok();
        self.0.push(if path.is_empty() || is_position {
            text.to_owned()
        } else {
            format!("{path} = {text}")
        });
    }
    fn link(&mut self, _: &str, _: &Link) {}
    fn file(&mut self, _: &str, file: &Path) {
        self.0.push(file.display().to_string());
    }
}

/// Writes a default as the documentation shows it.
pub fn default_text<T: OptionType>(default: Option<fn() -> T>) -> Option<String> {
    let value = default.map(|make| make()).or_else(T::absent)?;
    let mut walk = TextWalk::default();
    value.walk("", &mut walk);
    let text = walk.0.join(", ");
    let is_open_list = T::type_name().starts_with("list<") && !text.starts_with('[');
    Some(if is_open_list {
        format!("[{text}]")
    } else {
        text
    })
}

/// Declares a struct of options: a documented field, its type, its default if it has one
/// (`= value`), its unit if it has one (`, in "requests/s"`).
///
/// A field without a default must be given by the plan, unless its type is an `Option`.
#[macro_export]
macro_rules! options {
    (
        $(#[doc = $struct_doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty $(= $default:expr)? $(, in $unit:literal)? ; )*
        }
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $ty, )*
        }

        impl $crate::options::Options for $name {
            fn describe() -> Vec<$crate::options::OptionSpec> {
                vec![ $( $crate::options::OptionSpec {
                    name: stringify!($field),
                    type_name: <$ty as $crate::options::OptionType>::type_name(),
                    schema: <$ty as $crate::options::OptionType>::schema(),
                    default: $crate::options::default_text::<$ty>($crate::options!(@default $($default)?)),
                    unit: $crate::options!(@unit $($unit)?),
                    doc: concat!($($doc, "\n"),+).lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned(),
                } ),* ]
            }

            fn parse(
                table: &$crate::value::Table,
                place: &$crate::source::Place,
                parser: &mut $crate::options::Parser<'_>,
            ) -> Option<Self> {
                parser.only(table, &[$(stringify!($field)),*]);
                $( let $field = parser.field::<$ty>(
                    table, place, stringify!($field), $crate::options!(@default $($default)?)); )*
                Some(Self { $( $field: $field?, )* })
            }

            fn walk(&self, walk: &mut dyn $crate::options::Walk) {
                $( $crate::options::OptionType::walk(&self.$field, stringify!($field), walk); )*
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some(|| $default) };
    (@unit) => { None };
    (@unit $unit:literal) => { Some($unit) };
}

/// Declares an enum whose variants are written as strings in plans.
#[macro_export]
macro_rules! choices {
    (
        $(#[doc = $enum_doc:literal])*
        pub enum $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $text:literal ),+ $(,)? }
    ) => {
        $(#[doc = $enum_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $doc])+ $variant ),+ }

        impl $name {
            /// Returns the word that plans use.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $text ),+ }
            }
        }

        impl $crate::options::OptionType for $name {
            fn type_name() -> String {
                [$( concat!("`", $text, "`") ),+].join(" | ")
            }

            fn schema() -> $crate::schema::Schema {
                $crate::schema::choice(&[$( ($text, concat!($($doc, "\n"),+)) ),+])
            }

            fn parse(value: &$crate::value::Value, parser: &mut $crate::options::Parser<'_>) -> Option<Self> {
                let $crate::value::Kind::Text(text) = &value.kind else {
                    return parser.mismatch(value, &<Self as $crate::options::OptionType>::type_name());
                };
                match text.as_str() {
                    $( $text => Some(Self::$variant), )+
                    other => parser.wrong(
                        &value.place,
                        format!("`{other}` is none of the values that are possible here"),
                        "unknown value",
                        &$crate::problem::did_you_mean(other, [$($text),+]),
                    ),
                }
            }

            fn walk(&self, path: &str, walk: &mut dyn $crate::options::Walk) {
                walk.value(path, self.word());
            }
        }
    };
}
