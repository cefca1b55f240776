//! What the profilers of known servers are reached by while they serve: routes, bodies, where their traces lie.
//!
//! Read in the code of SGLang 0.5.23 and vLLM 0.32.0. What is done with traces is not known here.

use engine::service::Endpoint;
use engine::step::StepError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The fact that says how a server's profiler is reached, or why it is not.
pub(crate) const PROFILER: &str = "profiler";
/// Where it is opened.
pub(crate) const START: &str = "/start_profile";
/// Where it is closed.
pub(crate) const STOP: &str = "/stop_profile";

/// Whose profiler it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dialect {
    /// It is told where to write when it is opened.
    Sglang,
    /// It is launched with a folder to write to.
    Vllm,
}

/// What a kind has of a profiler.
#[derive(Debug, Clone, Copy)]
pub(super) enum Profiling {
    /// It can be opened while it serves.
    While(Dialect),
    /// It cannot be; what there is instead.
    Never(&'static str),
}

/// How the profiler of one launch is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    /// By requests.
    Open {
        dialect: Dialect,
        /// Where it writes, if that was said at its launch.
        folder: Option<PathBuf>,
        /// How many processes of this machine write a trace each.
        processes: u32,
    },
    /// Not at all: why, and the mend.
    Not { why: String, help: String },
}

/// What is asked of an open profiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    /// After how many forward steps it closes by itself; never if absent.
    pub(crate) steps: Option<u32>,
    /// Whether prefill and decode are profiled one by one.
    pub(crate) by_stage: bool,
}

impl Reach {
    /// What the fact of a server says.
    ///
    /// # Errors
    /// If it has no profiler that can be opened while it serves.
    pub(crate) fn of(endpoint: &Endpoint) -> Result<Self, StepError> {
        let told = endpoint.facts.get(PROFILER);
        let Some(told) = told.and_then(|told| serde_json::from_str(told).ok()) else {
            let message = "this server tells nothing of a profiler of its own";
            return Err(StepError::new(message).help("`profile.server` needs `server.sglang`, or `server.vllm` with `profiler = true`; `profile.phases` is for `server.embedded`"));
        };
        match told {
            Self::Not { why, help } => Err(StepError::new(why).help(help)),
            open => Ok(open),
        }
    }

    /// A kind that has none.
    pub(super) fn never(name: &str, instead: &str) -> Self {
        Self::Not {
            why: format!("{name} has no profiler that can be opened while it serves"),
            help: instead.to_owned(),
        }
    }

    /// As the fact of an endpoint.
    pub(super) fn fact(&self) -> Result<(String, String), StepError> {
        let told = serde_json::to_string(self)
            .map_err(|e| StepError::because("could not write down where its profiler is", e))?;
        Ok((PROFILER.to_owned(), told))
    }
}

impl Dialect {
    /// The body that opens it. Neither stacks nor shapes: they make a step several times as long.
    pub(crate) fn opening(self, opening: Opening, folder: &Path) -> Value {
        let Opening { steps, by_stage } = opening;
        match self {
            Self::Sglang => json!({
                "output_dir": folder,
                "num_steps": steps,
                "profile_by_stage": by_stage,
                "with_stack": false,
                "record_shapes": false,
            }),
            Self::Vllm => match steps {
                Some(steps) => json!({ "max_iterations": steps }),
                None => json!({}),
            },
        }
    }

    /// Whether it tells prefill and decode apart.
    pub(crate) fn knows_stages(self) -> bool {
        self == Self::Sglang
    }

    /// Whether it has to be told to close also after it has done so by itself: vLLM opens for nobody before that.
    pub(crate) fn is_closed_twice(self) -> bool {
        self == Self::Vllm
    }
}

/// The value of vLLM's `--profiler-config`: torch's profiler in the processes that compute alone, since that of
/// the front end follows no steps.
pub(super) fn vllm_config(folder: &Path) -> Value {
    json!({
        "profiler": "torch",
        "torch_profiler_dir": folder,
        "torch_profiler_with_stack": false,
        "ignore_frontend": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn endpoint(reach: Option<&Reach>) -> Endpoint {
        let fact = reach.map(|reach| reach.fact().expect("written"));
        Endpoint::new("http://127.0.0.1:1", BTreeMap::from_iter(fact))
    }

    #[test]
    fn a_fact_says_how_a_profiler_is_reached_or_why_not() {
        let open = Reach::Open {
            dialect: Dialect::Vllm,
            folder: Some(PathBuf::from("/a")),
            processes: 2,
        };
        assert_eq!(Reach::of(&endpoint(Some(&open))).expect("open"), open);
        let never = Reach::never("LMDeploy", "something else");
        let error = Reach::of(&endpoint(Some(&never))).expect_err("none");
        assert!(
            error.message.contains("LMDeploy has no profiler"),
            "{error}"
        );
        assert_eq!(error.help.as_deref(), Some("something else"));
        let error = Reach::of(&endpoint(None)).expect_err("none");
        assert!(error.help.expect("a mend").contains("profiler = true"));
    }

    #[test]
    fn bodies_are_those_of_each_server() {
        let steps = Opening {
            steps: Some(3),
            by_stage: true,
        };
        let open = Opening {
            steps: None,
            by_stage: false,
        };
        let folder = Path::new("/to");
        assert_eq!(
            Dialect::Sglang.opening(steps, folder),
            json!({ "output_dir": "/to", "num_steps": 3, "profile_by_stage": true, "with_stack": false, "record_shapes": false })
        );
        assert_eq!(
            Dialect::Sglang.opening(open, folder)["num_steps"],
            json!(null)
        );
        assert_eq!(
            Dialect::Vllm.opening(steps, folder),
            json!({ "max_iterations": 3 })
        );
        assert_eq!(Dialect::Vllm.opening(open, folder), json!({}));
    }
}
