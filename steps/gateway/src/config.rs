//! What a gateway is told.

use std::time::Duration;

use embedded_server::swapping::Rules;
use serde::{Deserialize, Serialize};

use crate::backend::Release;

/// What a gateway is told. Every field has a default but the models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen at.
    pub host: String,
    /// Port to listen at; 0 takes any free one.
    pub port: u16,
    /// The models, in the order in which they are looked at: the first active one leaves first.
    pub models: Vec<ModelConfig>,
    /// When models come and go.
    pub rules: Rules,
    /// How often that is decided.
    pub period: Duration,
    /// Models that fit onto the device together; at least one.
    pub most_active: usize,
    /// Whether a request that waits gets status 408 once it would miss its objective.
    pub aborts_late: bool,
    /// Requests that may wait for one model; more get status 429.
    pub queue_limit: usize,
    /// How long a request may wait.
    pub wait_timeout: Duration,
    /// How long a model may take to come or to go, the end of its requests included.
    pub swap_timeout: Duration,
    /// How long a server may be silent in the middle of an answer, or before it.
    pub answer_timeout: Duration,
    /// How long a client may take nothing of an answer that is there for it; one that takes longer, at most
    /// twice as long, loses it, so that its model can leave.
    pub reading_timeout: Duration,
    /// Size of a request's body, bytes; larger ones get status 413.
    pub max_body_bytes: usize,
}

/// A model, and the server that has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The name that requests ask for, which no other model has.
    pub name: String,
    /// The server's address, such as `http://127.0.0.1:30000`.
    pub url: String,
    /// How it gives its memory back.
    #[serde(default)]
    pub release: Release,
    /// What it holds of the device, bytes, where that is known: servers do not say.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Where it is when the gateway starts.
    #[serde(default)]
    pub found: Standing,
    /// Where it shall be then.
    #[serde(default)]
    pub begins: Standing,
}

/// Whether a model is on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is.
    #[default]
    Active,
    /// It is not.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: "127.0.0.1".to_owned(),
            port: 0,
            models: Vec::new(),
            rules: Rules::default(),
            period: Duration::from_millis(100),
            most_active: 1,
            aborts_late: false,
            queue_limit: 1024,
            // Longer than any client waits.
            wait_timeout: Duration::from_secs(3600),
            swap_timeout: Duration::from_secs(300),
            answer_timeout: Duration::from_secs(1800),
            reading_timeout: Duration::from_secs(60),
            max_body_bytes: 16 << 20,
        }
    }
}

impl Config {
    /// Checks what cannot be served, or not as it says.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let n_begin = self.begin_active().count();
        if self.models.is_empty() {
            return Err(ConfigError::NoModels);
        }
        if self.most_active == 0 || self.queue_limit == 0 {
            let field = match self.most_active {
                0 => "most_active",
                _ => "queue_limit",
            };
            return Err(ConfigError::Zero { field });
        }
        if self.period.is_zero() {
            return Err(ConfigError::Zero { field: "period" });
        }
        if n_begin > self.most_active {
            return Err(ConfigError::TooMany {
                n: n_begin,
                most: self.most_active,
            });
        }
        for (at, model) in self.models.iter().enumerate() {
            if self.models[..at].iter().any(|m| m.name == model.name) {
                let name = model.name.clone();
                return Err(ConfigError::Twice { name });
            }
        }
        Ok(())
    }

    fn begin_active(&self) -> impl Iterator<Item = &ModelConfig> {
        let models = self.models.iter();
        models.filter(|model| model.begins == Standing::Active)
    }
}

/// A gateway that cannot be as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is nothing to serve.
    #[error("`models` is empty; name at least one")]
    NoModels,
    /// A number must be above zero.
    #[error("`{field}` is 0; give a number above it")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// More models are to begin on the device than fit.
    #[error(
        "{n} models begin active and {most} fit at once; raise `most_active`, or begin with less"
    )]
    TooMany {
        /// How many shall.
        n: usize,
        /// How many can.
        most: usize,
    },
    /// Two models have one name.
    #[error("two models are called `{name}`; give each a name of its own")]
    Twice {
        /// The name.
        name: String,
    },
    /// An address cannot be used.
    #[error("`{url}` is no address; write it like `http://127.0.0.1:30000`, without TLS")]
    Address {
        /// As it was given.
        url: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelConfig {
        ModelConfig {
            name: name.to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            release: Release::Auto,
            memory_bytes: None,
            found: Standing::Active,
            begins: Standing::Active,
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let config = |names: &[&str]| Config {
            models: names.iter().map(|name| model(name)).collect(),
            most_active: 2,
            ..Config::default()
        };
        assert_eq!(config(&["a", "b"]).check(), Ok(()));
        assert_eq!(config(&[]).check(), Err(ConfigError::NoModels));
        let twice = ConfigError::Twice { name: "a".into() };
        assert_eq!(config(&["a", "a"]).check(), Err(twice));
        let many = ConfigError::TooMany { n: 3, most: 2 };
        assert_eq!(config(&["a", "b", "c"]).check(), Err(many));
        let none = Config {
            most_active: 0,
            ..config(&["a"])
        };
        let zero = ConfigError::Zero {
            field: "most_active",
        };
        assert_eq!(none.check(), Err(zero));
    }

    #[test]
    fn a_file_names_models_and_nothing_else_has_to_be_said() {
        let text = r#"{ "models": [{ "name": "a", "url": "http://h:1", "begins": "off" }] }"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let expected = ModelConfig {
            url: "http://h:1".into(),
            begins: Standing::Off,
            ..model("a")
        };
        assert_eq!(config.models, [expected]);
        assert_eq!(config.most_active, 1);
        assert!(serde_json::from_str::<Config>(r#"{ "model": [] }"#).is_err());
    }
}
