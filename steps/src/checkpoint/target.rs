//! Where a load ends: in host memory, or in that of a GPU.

use super::failure;
use checkpoints::device::cuda::{self, Cuda};
use engine::options::{OptionType, Parser, Walk};
use engine::schema::{Schema, or_reference};
use engine::step::StepError;
use engine::value::{Kind, Value};

/// What a GPU is called before its number.
const CUDA: &str = "cuda:";

/// Where a load ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Host memory.
    Host,
    /// The GPU of this number, among those that the process may see.
    Cuda(u16),
}

impl Target {
    /// The word for it in plans and results.
    pub(super) fn word(self) -> String {
        match self {
            Target::Host => "host".to_owned(),
            Target::Cuda(number) => format!("{CUDA}{number}"),
        }
    }

    fn of(text: &str) -> Option<Self> {
        if text == "host" {
            return Some(Target::Host);
        }
        let number: u16 = text.strip_prefix(CUDA)?.parse().ok()?;
        // One spelling for each, so that one load has one key.
        Some(Target::Cuda(number)).filter(|target| target.word() == text)
    }

    /// Fails where no GPU can be used, before anything is loaded.
    pub(super) fn require(self) -> Result<(), StepError> {
        match (self, cuda::refusal()) {
            (Target::Cuda(_), Some(why)) => {
                let error = StepError::new(why);
                Err(error.help("run it where a GPU and its driver are, or write `to = \"host\"`"))
            }
            _ => Ok(()),
        }
    }

    /// Opens the GPU, if it is one.
    pub(super) fn open(self) -> Result<Option<Cuda>, StepError> {
        match self {
            Target::Host => Ok(None),
            Target::Cuda(number) => Cuda::open(number.into()).map(Some).map_err(failure),
        }
    }
}

impl OptionType for Target {
    fn type_name() -> String {
        "`host` or `cuda:N`".to_owned()
    }

    fn schema() -> Schema {
        let pattern = "^(host|cuda:(0|[1-9][0-9]*))$";
        or_reference(serde_json::json!({ "type": "string", "pattern": pattern }))
    }

    fn parse(value: &Value, parser: &mut Parser<'_>) -> Option<Self> {
        let Kind::Text(text) = &value.kind else {
            return parser.mismatch(value, "`host`, or a GPU such as `cuda:0`");
        };
        Self::of(text).or_else(|| {
            parser.wrong(
                &value.place,
                format!("`{text}` is no place for tensors"),
                "neither host memory nor a GPU",
                "write `host`, or `cuda:` with the number of a GPU, such as `cuda:0`",
            )
        })
    }

    fn walk(&self, path: &str, walk: &mut dyn Walk) {
        walk.value(path, &self.word());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_one_spelling_each() {
        assert_eq!(Target::of("host"), Some(Target::Host));
        assert_eq!(Target::of("cuda:0"), Some(Target::Cuda(0)));
        assert_eq!(Target::of("cuda:17"), Some(Target::Cuda(17)));
        for text in [
            "cuda",
            "cuda:",
            "cuda:00",
            "cuda:-1",
            "cuda:+1",
            "gpu:0",
            "Host",
            "cuda:99999",
        ] {
            assert_eq!(Target::of(text), None, "{text}");
        }
    }

    #[test]
    fn a_gpu_is_refused_with_its_mend_where_no_driver_is() {
        Target::Host.require().unwrap();
        let refused = Target::Cuda(0).require();
        match cuda::refusal() {
            None => refused.unwrap(),
            Some(_) => {
                let error = refused.unwrap_err();
                assert!(error.message.starts_with("no CUDA driver here"), "{error}");
                assert!(error.to_string().contains("`to = \"host\"`") || error.help.is_some());
            }
        }
    }
}
