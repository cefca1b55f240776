//! A plan exactly as it is written: names, places and values, nothing resolved.
//!
//! Reading finds unknown keys and wrong types; what the names mean is decided later, in
//! [`compose`](crate::compose) and [`expand`](crate::expand).

mod read;

mod nodes;

mod reader;

pub(crate) use nodes::{read_nodes, setting_keys};
pub(crate) use read::read_axes;

use crate::source::Place;
use crate::value::{Key, Kind, Table, Value};

/// What a step's `use` begins with when it means a fragment.
pub(crate) const LIBRARY: &str = "library.";

/// A plan as written, or a file that a plan includes.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Its name: part of run names and of the folders of results.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Files that it includes, relative to its own.
    pub include: Vec<(String, Place)>,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Names of parameters that could not be read, which is a problem already.
    pub broken_params: Vec<String>,
    /// Variants in order.
    pub variants: Vec<Variant>,
    /// Axes and the rules of how they are combined.
    pub axes: AxesDecl,
    /// What there is of the machine, besides what is found.
    pub resources: Table,
    /// Where secrets come from, where that is not the variable of their name.
    pub secrets: Table,
    /// Fragments that it declares.
    pub fragments: Vec<Fragment>,
    /// Steps and services in order.
    pub nodes: Vec<NodeDecl>,
}

/// The axes of a plan.
#[derive(Debug, Clone, Default)]
pub struct AxesDecl {
    /// Axes in order; the first varies slowest.
    pub values: Vec<(Key, Value)>,
    /// Files whose columns are axes that vary together.
    pub from: Vec<Value>,
    /// Axes that vary together.
    pub zip: Vec<(Place, Vec<(String, Place)>)>,
    /// Combinations of axis values that are left out.
    pub exclude: Vec<(Place, Table)>,
    /// Combinations that are added.
    pub include: Vec<(Place, Table)>,
}

/// A parameter of a plan or of a fragment.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub key: Key,
    /// Its type.
    pub kind: ParamKind,
    /// The value when none is set; only a fragment's parameter may lack one.
    pub default: Option<Value>,
    /// Whether a fragment can do without it: what would be set to it is not set.
    pub optional: bool,
    /// The smallest number allowed.
    pub min: Option<f64>,
    /// The largest number allowed.
    pub max: Option<f64>,
    /// Its unit.
    pub unit: Option<String>,
    /// What it means.
    pub doc: Option<String>,
}

/// The type of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamKind {
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// `true` or `false`.
    Bool,
    /// Text.
    Text,
    /// A path or one output of a step; of fragments only.
    Artifact,
    /// A service; of fragments only.
    Service,
    /// All samples of a measurement; of fragments only.
    Samples,
    /// Values of one type.
    List(Box<ParamKind>),
}

impl ParamKind {
    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "int" => Self::Int,
            "float" => Self::Float,
            "bool" => Self::Bool,
            "string" => Self::Text,
            "artifact" => Self::Artifact,
            "service" => Self::Service,
            "samples" => Self::Samples,
            _ => Self::List(Box::new(Self::read(
                text.strip_prefix("list<")?.strip_suffix('>')?,
            )?)),
        })
    }

    /// Whether values of this type are written down, not brought by something that runs.
    pub fn is_plain(&self) -> bool {
        match self {
            Self::Artifact | Self::Service | Self::Samples => false,
            Self::List(inner) => inner.is_plain(),
            Self::Int | Self::Float | Self::Bool | Self::Text => true,
        }
    }

    /// Says what a value of this type is.
    pub fn phrase(&self) -> String {
        match self {
            Self::Int => "an int".to_owned(),
            Self::Float => "a float".to_owned(),
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Artifact => "a path, or a reference to an output of a step".to_owned(),
            Self::Service => "a reference to a service: `${services.NAME}`".to_owned(),
            Self::Samples => "a reference to samples: `${steps.NAME.all}`".to_owned(),
            Self::List(inner) => format!("a list of `{inner}`"),
        }
    }

    /// Whether `value`, in which no reference is left, is of this type.
    pub fn accepts(&self, value: &Value) -> bool {
        match (self, &value.kind) {
            (Self::Int, Kind::Int(_)) | (Self::Float, Kind::Int(_) | Kind::Float(_)) => true,
            (Self::Bool, Kind::Bool(_)) => true,
            (Self::Text | Self::Artifact, Kind::Text(_)) => true,
            (Self::List(inner), Kind::List(list)) => list.iter().all(|v| inner.accepts(v)),
            _ => false,
        }
    }
}

impl std::fmt::Display for ParamKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Bool => f.write_str("bool"),
            Self::Text => f.write_str("string"),
            Self::Artifact => f.write_str("artifact"),
            Self::Service => f.write_str("service"),
            Self::Samples => f.write_str("samples"),
            Self::List(inner) => write!(f, "list<{inner}>"),
        }
    }
}

/// Other defaults under a name.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Its name.
    pub key: Key,
    /// Parameters and their values.
    pub params: Table,
}

/// Steps and services that plans use under a name of their own, with parameters.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// Its name, after `library.`.
    pub key: Key,
    /// What it is for.
    pub doc: String,
    /// Its parameters; those without a default must be given.
    pub params: Vec<Param>,
    /// Its `axes`, `steps` and `services`, as written.
    pub body: Table,
}

/// Whether a declaration is a step or a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeSort {
    /// `[steps.NAME]`
    Step,
    /// `[services.NAME]`
    Service,
}

impl NodeSort {
    /// Names it in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Service => "service",
        }
    }

    /// Names the section of a plan that holds it.
    pub fn section(self) -> &'static str {
        match self {
            Self::Step => "steps",
            Self::Service => "services",
        }
    }
}

/// A step or a service as written.
#[derive(Debug, Clone)]
pub struct NodeDecl {
    /// Which.
    pub sort: NodeSort,
    /// Its name; what a fragment brings is called after the step that uses it: `serving.load`.
    pub key: Key,
    /// The kind of step or service; `None` if that could not be read, which is a problem already.
    pub uses: Option<(String, Place)>,
    /// Its options.
    pub with: Table,
    /// Where the options stand, or would.
    pub with_place: Place,
    /// Axes that it varies over, besides those it inherits.
    pub axes: Vec<(String, Place)>,
    /// Steps that come before it.
    pub after: Vec<(String, Place)>,
    /// Expressions that must all hold for an instance to be there.
    pub when: Vec<Value>,
    /// Files that are merged below `with.args`.
    pub overlays: Vec<Value>,
    /// Keys below `with` that are removed after merging.
    pub unset: Vec<(String, Place)>,
    /// What is said besides the options, such as `timeout`; which keys there are is checked.
    pub settings: Table,
}

impl NodeDecl {
    /// Names it in messages: ``step `load` ``.
    pub fn shown(&self) -> String {
        format!("{} `{}`", self.sort.word(), self.key.name)
    }

    /// Returns the name of the fragment that it uses, if it uses one.
    pub(crate) fn fragment(&self) -> Option<(&str, &Place)> {
        let (uses, place) = self.uses.as_ref()?;
        Some((uses.strip_prefix(LIBRARY)?, place))
    }
}
