//! What CUPTI answers, by name. The names are ours to keep: from 13.3 on the library names no code in a
//! process without a driver, which is when one most wants to know.

use std::fmt;

/// An answer of CUPTI, `CUptiResult`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// It was done.
    pub const SUCCESS: Self = Self(0);
    /// Something that was passed is unknown to the version.
    pub const INVALID_PARAMETER: Self = Self(1);
    /// There are no more records in a buffer.
    pub const MAX_LIMIT_REACHED: Self = Self(12);
    /// Calls of the first and the second family were mixed in one process.
    pub const NOT_COMPATIBLE: Self = Self(14);
    /// There is no driver, or one older than CUPTI.
    pub const NOT_INITIALIZED: Self = Self(15);
    /// The kind is unknown or retired.
    pub const INVALID_KIND: Self = Self(21);
    /// Another tool holds the only subscription.
    pub const MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED: Self = Self(39);
    /// CUPTI does not say; without a driver 13.x answers so to most calls.
    pub const UNKNOWN: Self = Self(999);

    const NAMES: [&'static str; 48] = [
        "SUCCESS",
        "INVALID_PARAMETER",
        "INVALID_DEVICE",
        "INVALID_CONTEXT",
        "INVALID_EVENT_DOMAIN_ID",
        "INVALID_EVENT_ID",
        "INVALID_EVENT_NAME",
        "INVALID_OPERATION",
        "OUT_OF_MEMORY",
        "HARDWARE",
        "PARAMETER_SIZE_NOT_SUFFICIENT",
        "API_NOT_IMPLEMENTED",
        "MAX_LIMIT_REACHED",
        "NOT_READY",
        "NOT_COMPATIBLE",
        "NOT_INITIALIZED",
        "INVALID_METRIC_ID",
        "INVALID_METRIC_NAME",
        "QUEUE_EMPTY",
        "INVALID_HANDLE",
        "INVALID_STREAM",
        "INVALID_KIND",
        "INVALID_EVENT_VALUE",
        "DISABLED",
        "INVALID_MODULE",
        "INVALID_METRIC_VALUE",
        "HARDWARE_BUSY",
        "NOT_SUPPORTED",
        "UM_PROFILING_NOT_SUPPORTED",
        "UM_PROFILING_NOT_SUPPORTED_ON_DEVICE",
        "UM_PROFILING_NOT_SUPPORTED_ON_NON_P2P_DEVICES",
        "UM_PROFILING_NOT_SUPPORTED_WITH_MPS",
        "CDP_TRACING_NOT_SUPPORTED",
        "VIRTUALIZED_DEVICE_NOT_SUPPORTED",
        "CUDA_COMPILER_NOT_COMPATIBLE",
        "INSUFFICIENT_PRIVILEGES",
        "OLD_PROFILER_API_INITIALIZED",
        "OPENACC_UNDEFINED_ROUTINE",
        "LEGACY_PROFILER_NOT_SUPPORTED",
        "MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED",
        "VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES",
        "CONFIDENTIAL_COMPUTING_NOT_SUPPORTED",
        "CMP_DEVICE_NOT_SUPPORTED",
        "MIG_DEVICE_NOT_SUPPORTED",
        "SLI_DEVICE_NOT_SUPPORTED",
        "WSL_DEVICE_NOT_SUPPORTED",
        "INVALID_CHIP_NAME",
        "HES_TRACE_NOT_SUPPORTED_ON_MPS",
    ];

    /// Its name without CUPTI's prefix, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::UNKNOWN => Some("UNKNOWN"),
            Self(code) => Self::NAMES.get(usize::try_from(code).ok()?).copied(),
        }
    }

    /// What it means for who wants to profile, where that is not its name.
    #[must_use]
    pub fn help(self) -> Option<&'static str> {
        match self {
            Self::NOT_COMPATIBLE => Some(
                "another tool in the process uses CUPTI's second family of calls; profile without it",
            ),
            Self::NOT_INITIALIZED => Some(
                "no driver, or one older than CUPTI: use the CUPTI of the driver's CUDA or older",
            ),
            Self::MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED => Some(
                "another tool holds CUPTI in this process, as torch.profiler does after its first use; \
                 restart the server without it",
            ),
            Self(35) => Some("the driver keeps performance counters to administrators"),
            Self::UNKNOWN => {
                Some("in a process without a driver CUPTI 13 answers so to every call")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{} (no known code)", self.0),
        }
    }
}

/// A call that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{call}` answered {code}{}", .code.help().map(|help| format!(": {help}")).unwrap_or_default())]
pub struct CuptiError {
    /// CUPTI's name of the call.
    pub call: &'static str,
    /// What it answered.
    pub code: Code,
}

impl CuptiError {
    /// Takes an answer for what it is.
    pub(crate) fn check(call: &'static str, code: u32) -> Result<(), Self> {
        match Code(code) {
            Code::SUCCESS => Ok(()),
            code => Err(Self { call, code }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_and_what_they_ask_for_is_told() {
        assert_eq!(Code(47).name(), Some("HES_TRACE_NOT_SUPPORTED_ON_MPS"));
        assert_eq!(Code(12).name(), Some("MAX_LIMIT_REACHED"));
        assert_eq!(Code(48).to_string(), "48 (no known code)");
        let taken = CuptiError::check("cuptiSubscribe", 39)
            .unwrap_err()
            .to_string();
        assert!(taken.starts_with(
            "`cuptiSubscribe` answered 39 (MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED): another tool"
        ));
        assert_eq!(CuptiError::check("cuptiEnable", 0), Ok(()));
    }
}
