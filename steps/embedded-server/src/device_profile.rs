//! Device profiles: what a simulated device has, and how long a step takes on it, as TOML files.
//!
//! Some ship inside the binary; they rest on data sheets and assumptions, and say so. Others are
//! files, such as those that are fitted to measured steps. Knows no batch and no model: what time
//! follows for a step is [`crate::executor::sim`]'s.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::read_bounded;
use crate::options::{ExecutorKind, ServerOptions};
use crate::server::ServeError;

/// The longest profile that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Profiles inside the binary, by name.
const SHIPPED: [(&str, &str); 5] = [
    ("l4", include_str!("../devices/l4.toml")),
    ("a100-40g", include_str!("../devices/a100-40g.toml")),
    ("h100", include_str!("../devices/h100.toml")),
    ("h200", include_str!("../devices/h200.toml")),
    ("tiny-cpu", include_str!("../devices/tiny-cpu.toml")),
];

/// What a device has, and how long a step takes on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "File", into = "File")]
pub struct DeviceProfile {
    /// Its name in records and reports.
    pub name: String,
    /// Whether it rests on data sheets and assumptions instead of measurements.
    pub illustrative: bool,
    /// Where its numbers come from, in words.
    pub source: String,
    /// Its memory, bytes; `None`: not known.
    pub memory_bytes: Option<u64>,
    /// Bytes per second between device and host, each way; `None`: not known.
    pub link_bytes_per_s: Option<f64>,
    /// Bytes of a weight, a key or a value on it.
    pub dtype_bytes: u64,
    /// How long steps take.
    pub times: DeviceTimes,
}

/// How long steps take on a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DeviceTimes {
    /// By what it computes and reads per second; needs the figures of a model.
    Roofline(Roofline),
    /// By what was measured of one model on it.
    Fitted(Fitted),
}

/// What a device computes and reads per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roofline {
    /// Floating-point operations per second at most, of the type that models have.
    pub flops_per_s: f64,
    /// Bytes that its memory delivers per second at most.
    pub bytes_per_s: f64,
    /// Share of the operations that a step reaches, above 0 and up to 1.
    #[serde(default = "whole")]
    pub flops_efficiency: f64,
    /// Share of the bytes that a step reaches, above 0 and up to 1.
    #[serde(default = "whole")]
    pub bytes_efficiency: f64,
    /// What a step takes besides, microseconds.
    pub overhead_us: f64,
}

/// Step times that were fitted to measured ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Steps that compute prompts.
    pub prefill: PrefillTimes,
    /// Steps that compute one token per sequence.
    pub decode: DecodeTimes,
}

/// The time of a prefill step: `base + token · n + pair · Σ n_i (p_i + n_i / 2)`, where `n_i` tokens
/// are computed behind `p_i`, all of a sequence, and `n` is the sum of `n_i`. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillTimes {
    /// Of a step.
    pub base_us: f64,
    /// Of a token that is computed.
    pub token_us: f64,
    /// Of a token that another one attends to.
    pub pair_us: f64,
    /// How well that fits what was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

/// The time of a decode step: `base + sequence · batch + context · Σ context tokens`. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeTimes {
    /// Of a step.
    pub base_us: f64,
    /// Of a sequence that runs.
    pub sequence_us: f64,
    /// Of a token that is attended to.
    pub context_token_us: f64,
    /// How well that fits what was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

/// How well a fit agrees with what it was fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Times that it was fitted to.
    pub n_observations: u64,
    /// Median of |fitted − measured| / measured.
    pub median_error: f64,
    /// 90th percentile of the same.
    pub p90_error: f64,
    /// The most tokens of a step (prefill), or sequences of one (decode), that were measured.
    pub largest: f64,
}

impl PrefillTimes {
    /// Microseconds of a step of so many tokens with so many pairs of tokens that attend.
    #[must_use]
    pub fn us(&self, n_tokens: f64, n_pairs: f64) -> f64 {
        self.base_us + self.token_us * n_tokens + self.pair_us * n_pairs
    }
}

impl DecodeTimes {
    /// Microseconds of a step of so many sequences with so many tokens attended to, all together.
    #[must_use]
    pub fn us(&self, n_sequences: f64, context_tokens: f64) -> f64 {
        self.base_us + self.sequence_us * n_sequences + self.context_token_us * context_tokens
    }
}

fn whole() -> f64 {
    1.0
}

impl DeviceProfile {
    /// The names of the profiles inside the binary.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// The profile of that name inside the binary, or else in that file.
    ///
    /// # Errors
    /// [`DeviceProfileError`]: there is neither, or the file says nothing that can be used.
    pub fn find(wanted: &str) -> Result<Self, DeviceProfileError> {
        if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == wanted) {
            return Self::parse(text, Path::new(name));
        }
        let path = Path::new(wanted);
        if !path.is_file() {
            return Err(DeviceProfileError::Unknown {
                wanted: wanted.to_owned(),
            });
        }
        let unreadable = |problem: &dyn std::fmt::Display| DeviceProfileError::Unusable {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let text = read_bounded(path, MAX_FILE_BYTES).map_err(|e| unreadable(&e))?;
        let text = String::from_utf8(text).map_err(|e| unreadable(&e))?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, DeviceProfileError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or(text);
                format!("line {}: ", before.matches('\n').count() + 1)
            });
            DeviceProfileError::Unusable {
                path: path.to_owned(),
                problem: format!("{}{}", line.unwrap_or_default(), error.message()),
            }
        })
    }

    /// The profile as a file: what [`DeviceProfile::find`] reads.
    ///
    /// # Errors
    /// [`DeviceProfileError::Unusable`] when it says what no file can.
    pub fn to_toml(&self) -> Result<String, DeviceProfileError> {
        toml::to_string(self).map_err(|error| DeviceProfileError::Unusable {
            path: PathBuf::from(&self.name),
            problem: error.to_string(),
        })
    }

    /// What it is in records and reports, such as `device l4, illustrative`.
    #[must_use]
    pub fn label(&self) -> String {
        let kind = match (&self.times, self.illustrative) {
            (_, true) => ", illustrative",
            (DeviceTimes::Fitted(_), false) => ", fitted",
            (DeviceTimes::Roofline(_), false) => "",
        };
        format!("device {}{kind}", self.name)
    }
}

impl ServerOptions {
    /// Takes from its device profile, if it has one, what was not given: memory, the rates at which
    /// prefixes and weights come and go, and that `sim` takes steps. Does nothing the second time.
    ///
    /// # Errors
    /// [`ServeError::Option`] when there is no such profile.
    pub fn with_device(mut self) -> Result<Self, ServeError> {
        let Some(profile) = self.device()? else {
            return Ok(self);
        };
        self.sim_steps |= self.executor == ExecutorKind::Sim;
        self.device_memory_bytes = self.device_memory_bytes.or(profile.memory_bytes);
        self.hicache_bandwidth = self.hicache_bandwidth.or(profile.link_bytes_per_s);
        self.swap_bandwidth = self.swap_bandwidth.or(profile.link_bytes_per_s);
        Ok(self)
    }

    /// Its device profile, if it names one.
    ///
    /// # Errors
    /// [`ServeError::Option`] when there is no such profile.
    pub fn device(&self) -> Result<Option<DeviceProfile>, ServeError> {
        let found = self.device_profile.as_deref().map(DeviceProfile::find);
        found.transpose().map_err(|error| ServeError::Option {
            name: "device_profile",
            problem: error.to_string(),
        })
    }

    /// What has to stand beside every number of this server if something of it is not computed, such as
    /// `sim, device l4, illustrative`, or that images are placeholders; `None` if all is.
    #[must_use]
    pub fn simulated(&self) -> Option<String> {
        let images = self
            .image_tokens
            .map(|n| format!("images stand for {n} tokens each, no image was looked at"));
        let parts: Vec<String> = self.simulated_steps().into_iter().chain(images).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn simulated_steps(&self) -> Option<String> {
        if self.executor != ExecutorKind::Sim {
            return None;
        }
        let how = match (self.device(), self.sim_steps) {
            (Ok(Some(profile)), _) => profile.label(),
            (Ok(None) | Err(_), true) => "stated step times".to_owned(),
            (Ok(None) | Err(_), false) => "stated pace".to_owned(),
        };
        Some(format!("sim, {how}"))
    }
}

/// A device profile that there is not, or that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceProfileError {
    /// No profile and no file has that name.
    #[error(
        "there is no device profile and no file `{wanted}`; profiles are {}",
        DeviceProfile::shipped().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// What was asked for.
        wanted: String,
    },
    /// A file that cannot be read or understood.
    #[error("the device profile `{}` cannot be used: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A profile as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    illustrative: bool,
    source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_bytes_per_s: Option<f64>,
    dtype_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roofline: Option<Roofline>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fitted: Option<Fitted>,
}

impl From<DeviceProfile> for File {
    fn from(profile: DeviceProfile) -> Self {
        let (roofline, fitted) = match profile.times {
            DeviceTimes::Roofline(roofline) => (Some(roofline), None),
            DeviceTimes::Fitted(fitted) => (None, Some(fitted)),
        };
        File {
            name: profile.name,
            illustrative: profile.illustrative,
            source: profile.source,
            memory_bytes: profile.memory_bytes,
            link_bytes_per_s: profile.link_bytes_per_s,
            dtype_bytes: profile.dtype_bytes,
            roofline,
            fitted,
        }
    }
}

impl TryFrom<File> for DeviceProfile {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        let times = match (file.roofline, file.fitted) {
            (Some(roofline), None) => DeviceTimes::Roofline(roofline),
            (None, Some(fitted)) => DeviceTimes::Fitted(fitted),
            (None, None) => return Err("expected a table `roofline` or `fitted`".to_owned()),
            (Some(_), Some(_)) => {
                return Err("found both `roofline` and `fitted`, expected one of them".to_owned());
            }
        };
        match times {
            DeviceTimes::Roofline(roofline) => roofline.check()?,
            DeviceTimes::Fitted(fitted) => fitted.check()?,
        }
        if file.memory_bytes == Some(0) {
            return Err("`memory_bytes` is 0, expected at least 1".to_owned());
        }
        // As many as any type has.
        within("dtype_bytes", file.dtype_bytes as f64, (1.0, 8.0))?;
        if let Some(rate) = file.link_bytes_per_s {
            within("link_bytes_per_s", rate, (1e7, 1e15))?;
        }
        Ok(DeviceProfile {
            name: file.name,
            illustrative: file.illustrative,
            source: file.source,
            memory_bytes: file.memory_bytes,
            link_bytes_per_s: file.link_bytes_per_s,
            dtype_bytes: file.dtype_bytes,
            times,
        })
    }
}

impl Roofline {
    fn check(&self) -> Result<(), String> {
        within("flops_per_s", self.flops_per_s, (1.0, 1e21))?;
        within("bytes_per_s", self.bytes_per_s, (1.0, 1e18))?;
        within("flops_efficiency", self.flops_efficiency, (1e-6, 1.0))?;
        within("bytes_efficiency", self.bytes_efficiency, (1e-6, 1.0))?;
        within("overhead_us", self.overhead_us, (0.0, 1e9))
    }
}

impl Fitted {
    fn check(&self) -> Result<(), String> {
        let (prefill, decode) = (self.prefill, self.decode);
        for (name, us) in [
            ("prefill.base_us", prefill.base_us),
            ("prefill.token_us", prefill.token_us),
            ("prefill.pair_us", prefill.pair_us),
            ("decode.base_us", decode.base_us),
            ("decode.sequence_us", decode.sequence_us),
            ("decode.context_token_us", decode.context_token_us),
        ] {
            within(name, us, (0.0, 1e9))?;
        }
        Ok(())
    }
}

fn within(name: &str, value: f64, (least, most): (f64, f64)) -> Result<(), String> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!(
            "`{name}` is {value}, expected at least {least}, at most {most}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted() -> DeviceProfile {
        DeviceProfile {
            name: "mine".into(),
            illustrative: false,
            source: "measured".into(),
            memory_bytes: None,
            link_bytes_per_s: Some(12e9),
            dtype_bytes: 4,
            times: DeviceTimes::Fitted(Fitted {
                prefill: PrefillTimes {
                    base_us: 1500.0,
                    token_us: 12.5,
                    pair_us: 3.25e-5,
                    quality: None,
                },
                decode: DecodeTimes {
                    base_us: 900.0,
                    sequence_us: 40.0,
                    context_token_us: 0.125,
                    quality: Some(Quality {
                        n_observations: 96,
                        median_error: 0.02,
                        p90_error: 0.07,
                        largest: 16.0,
                    }),
                },
            }),
        }
    }

    #[test]
    fn shipped_profiles_can_be_read_are_called_as_they_are_and_say_what_they_are() {
        for name in DeviceProfile::shipped() {
            let profile = DeviceProfile::find(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(profile.illustrative && !profile.source.is_empty(), "{name}");
            assert!(profile.memory_bytes.is_some() && profile.link_bytes_per_s.is_some());
            assert_eq!(profile.label(), format!("device {name}, illustrative"));
        }
    }

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        for profile in [fitted(), DeviceProfile::find("h200").unwrap()] {
            std::fs::write(&path, profile.to_toml().unwrap()).unwrap();
            let found = DeviceProfile::find(&path.display().to_string()).unwrap();
            assert_eq!(found, profile);
        }
        assert_eq!(fitted().label(), "device mine, fitted");
    }

    #[test]
    fn a_name_that_is_none_is_answered_with_those_there_are() {
        let error = DeviceProfile::find("h300").unwrap_err().to_string();
        let expected = "there is no device profile and no file `h300`; profiles are `l4`, \
                        `a100-40g`, `h100`, `h200`, `tiny-cpu`";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_file_that_says_nothing_of_use_is_named_with_its_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let l4 = include_str!("../devices/l4.toml");
        for (text, problem) in [
            (
                l4.replace("121e12", "0.0"),
                "`flops_per_s` is 0, expected at least 1",
            ),
            (l4.replace("0.8", "1.5"), "`bytes_efficiency` is 1.5"),
            (l4.replace("32e9", "-1.0"), "`link_bytes_per_s` is -1"),
            (
                l4.replace("name = ", "nam = "),
                "line 1: unknown field `nam`",
            ),
            (
                l4.replace("[roofline]", "[rooflin]"),
                "unknown field `rooflin`",
            ),
            (
                "name = \"x\"\nillustrative = true\nsource = \"\"\n".to_owned(),
                "missing field `dtype_bytes`",
            ),
            (
                "name = \"x\"\nillustrative = true\nsource = \"\"\ndtype_bytes = 2\n".to_owned(),
                "expected a table `roofline` or `fitted`",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = DeviceProfile::find(&path.display().to_string()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_device_gives_what_was_not_given() {
        let options = |memory| ServerOptions {
            executor: ExecutorKind::Sim,
            device_profile: Some("l4".into()),
            device_memory_bytes: memory,
            ..ServerOptions::default()
        };
        let taken = options(None).with_device().unwrap();
        assert_eq!(taken.device_memory_bytes, Some(24_000_000_000));
        assert_eq!(taken.hicache_bandwidth, Some(32e9));
        assert_eq!(taken.swap_bandwidth, Some(32e9));
        assert!(taken.sim_steps);
        assert_eq!(taken.clone().with_device().unwrap(), taken);
        let own = options(Some(7)).with_device().unwrap();
        assert_eq!(own.device_memory_bytes, Some(7));
    }

    #[test]
    fn what_computes_nothing_says_how_its_times_come_about() {
        let mut options = ServerOptions::default();
        assert_eq!(options.simulated(), None);
        options.executor = ExecutorKind::Sim;
        assert_eq!(options.simulated().unwrap(), "sim, stated pace");
        options.sim_steps = true;
        assert_eq!(options.simulated().unwrap(), "sim, stated step times");
        options.device_profile = Some("l4".into());
        let said = options.simulated().unwrap();
        assert_eq!(said, "sim, device l4, illustrative");
    }
}
