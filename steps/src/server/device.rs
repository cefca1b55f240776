//! The option `device_profile`: a profile inside the binary by its name, or a file.

use crate::kinds::DeviceProfile as DeviceProfileKind;
use embedded_server::DeviceProfile;
use engine::options::{OptionType, Parser, Walk};
use engine::schema::Schema;
use engine::step::{Resolved, StepError};
use engine::types::Artifact;
use engine::value::{Kind, Value};

/// Which device stands behind a server.
#[derive(Debug, Clone)]
pub(crate) enum DeviceChoice {
    /// One inside the binary.
    Shipped(&'static str),
    /// A file, or the output of another step.
    File(Artifact<DeviceProfileKind>),
}

impl DeviceChoice {
    /// What `benchwright server` is told.
    pub(super) fn word(&self, resolved: &Resolved) -> Result<String, StepError> {
        match self {
            DeviceChoice::Shipped(name) => Ok((*name).to_owned()),
            DeviceChoice::File(file) => Ok(resolved.path(file)?.display().to_string()),
        }
    }
}

impl OptionType for DeviceChoice {
    fn type_name() -> String {
        Artifact::<DeviceProfileKind>::type_name()
    }

    fn schema() -> Schema {
        Artifact::<DeviceProfileKind>::schema()
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        if let Kind::Text(name) = &value.kind {
            if let Some(shipped) = DeviceProfile::shipped().find(|shipped| shipped == name) {
                return Some(DeviceChoice::Shipped(shipped));
            }
            if parser.linker().find(name, &value.place).is_err() {
                let names: Vec<String> = DeviceProfile::shipped()
                    .map(|name| format!("`{name}`"))
                    .collect();
                return parser.wrong(
                    &value.place,
                    format!("there is no device profile and no file `{name}`"),
                    "not found",
                    &format!("device profiles are {}", names.join(", ")),
                );
            }
        }
        Artifact::parse(value, parser).map(DeviceChoice::File)
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        match self {
            DeviceChoice::Shipped(name) => walk.value(path, name),
            DeviceChoice::File(file) => file.walk(path, walk),
        }
    }
}
