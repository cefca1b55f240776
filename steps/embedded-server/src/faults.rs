//! What a server does wrong on purpose: which fault hits which request, and before which event.
//!
//! Pure: texts in, decisions out. Each decision is a function of the seed, the request's number and
//! the kind of fault, so that a run's faults can be told before it and again after it. Knows no body
//! and no socket; what is decided here is done by `http::faulty`, and stands in the [`crate::Trace`].

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest stall.
const LONGEST: Duration = Duration::from_secs(3600);
/// The largest count: what `merge` and `tokens` hold back lies in memory.
const LARGEST: usize = 65_536;

/// A kind of fault, named as on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultKind {
    /// A stream stops before one of its events.
    #[serde(rename = "stall")]
    Stall,
    /// The connection is reset before one of a stream's events.
    #[serde(rename = "reset")]
    Reset,
    /// A stream ends with an error in place of one of its events.
    #[serde(rename = "error")]
    Error,
    /// The request is refused with status 429.
    #[serde(rename = "429")]
    TooManyRequests,
    /// The request is refused with status 503.
    #[serde(rename = "503")]
    Unavailable,
    /// Streams are written in small pieces.
    #[serde(rename = "split")]
    Split,
    /// Several events of a stream are written at once.
    #[serde(rename = "merge")]
    Merge,
    /// Events carry several tokens.
    #[serde(rename = "tokens")]
    Tokens,
    /// Streams end without `[DONE]`.
    #[serde(rename = "no_done")]
    NoDone,
    /// A comment line stands before every event.
    #[serde(rename = "comments")]
    Comments,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 10] = [
        FaultKind::Stall,
        FaultKind::Reset,
        FaultKind::Error,
        FaultKind::TooManyRequests,
        FaultKind::Unavailable,
        FaultKind::Split,
        FaultKind::Merge,
        FaultKind::Tokens,
        FaultKind::NoDone,
        FaultKind::Comments,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.form().split('=').next().unwrap_or_default()
    }

    /// How it is asked for.
    fn form(self) -> &'static str {
        match self {
            FaultKind::Stall => "stall=SHARE:DURATION",
            FaultKind::Reset => "reset=SHARE",
            FaultKind::Error => "error=SHARE",
            FaultKind::TooManyRequests => "429=SHARE",
            FaultKind::Unavailable => "503=SHARE",
            FaultKind::Split => "split=BYTES",
            FaultKind::Merge => "merge=EVENTS",
            FaultKind::Tokens => "tokens=N",
            FaultKind::NoDone => "no_done",
            FaultKind::Comments => "comments",
        }
    }

    /// What its value has to be.
    fn range(self) -> &'static str {
        match self {
            FaultKind::Stall => {
                "a share above 0, at most 1, and a duration up to an hour: `stall=0.1:2s`"
            }
            FaultKind::Reset
            | FaultKind::Error
            | FaultKind::TooManyRequests
            | FaultKind::Unavailable => "a share above 0, at most 1",
            FaultKind::Split | FaultKind::Merge | FaultKind::Tokens => "a count from 1 to 65536",
            FaultKind::NoDone | FaultKind::Comments => "no value",
        }
    }
}

/// A fault that is asked for. Its text form, which is also its serialised form, is that of the
/// command line, such as `stall=0.1:2s`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Fault {
    /// So large a share of the streams stops for so long before one event.
    Stall {
        /// Of the streams, above 0, at most 1.
        share: f64,
        /// How long.
        lasts: Duration,
    },
    /// So large a share of the streams, or of all requests, is hit by [`FaultKind::Reset`],
    /// [`FaultKind::Error`], [`FaultKind::TooManyRequests`] or [`FaultKind::Unavailable`].
    Hit {
        /// Which of them.
        kind: FaultKind,
        /// Above 0, at most 1.
        share: f64,
    },
    /// Every stream has [`FaultKind::Split`], [`FaultKind::Merge`] or [`FaultKind::Tokens`].
    Counted {
        /// Which of them.
        kind: FaultKind,
        /// Bytes of a piece, events of a write, or tokens of an event.
        count: NonZeroUsize,
    },
    /// Every stream has [`FaultKind::NoDone`] or [`FaultKind::Comments`].
    Plain(
        /// Which of them.
        FaultKind,
    ),
}

impl Fault {
    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match *self {
            Fault::Stall { .. } => FaultKind::Stall,
            Fault::Hit { kind, .. } | Fault::Counted { kind, .. } | Fault::Plain(kind) => kind,
        }
    }

    /// A fault of that kind, if that is a value of it.
    fn of(kind: FaultKind, value: Option<&str>) -> Option<Self> {
        Some(match kind {
            FaultKind::Stall => {
                let (share, lasts) = value?.split_once(':')?;
                let (share, lasts) = (read_share(share)?, read_duration(lasts)?);
                Fault::Stall { share, lasts }
            }
            FaultKind::Reset
            | FaultKind::Error
            | FaultKind::TooManyRequests
            | FaultKind::Unavailable => Fault::Hit {
                kind,
                share: read_share(value?)?,
            },
            FaultKind::Split | FaultKind::Merge | FaultKind::Tokens => {
                let count: NonZeroUsize = value?.parse().ok()?;
                (count.get() <= LARGEST).then_some(Fault::Counted { kind, count })?
            }
            FaultKind::NoDone | FaultKind::Comments if value.is_none() => Fault::Plain(kind),
            FaultKind::NoDone | FaultKind::Comments => return None,
        })
    }
}

fn read_share(text: &str) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0)
}

/// A number of `ms`, `s` or `m`.
fn read_duration(text: &str) -> Option<Duration> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let (number, seconds) = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    let number: f64 = number.parse().ok()?;
    let duration = Duration::try_from_secs_f64(number * seconds).ok()?;
    (duration <= LONGEST).then_some(duration)
}

/// A text that is no [`Fault`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// There is no such kind.
    #[error("`{found}` is no fault; there are {}", forms())]
    Unknown {
        /// The whole text.
        found: String,
    },
    /// Its value is not one.
    #[error("fault `{}`: found `{found}`, expected `{}` with {}", .kind.name(), .kind.form(), .kind.range())]
    Value {
        /// The kind.
        kind: FaultKind,
        /// The whole text.
        found: String,
    },
}

fn forms() -> String {
    let forms: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.form()).collect();
    format!("`{}`", forms.join("`, `"))
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| FaultError::Unknown {
            found: text.to_owned(),
        })?;
        Fault::of(kind, value).ok_or_else(|| FaultError::Value {
            kind,
            found: text.to_owned(),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.kind().name();
        match self {
            Fault::Stall { share, lasts } if lasts.subsec_nanos() == 0 => {
                write!(f, "{name}={share}:{}s", lasts.as_secs())
            }
            Fault::Stall { share, lasts } => {
                write!(f, "{name}={share}:{}ms", lasts.as_secs_f64() * 1e3)
            }
            Fault::Hit { share, .. } => write!(f, "{name}={share}"),
            Fault::Counted { count, .. } => write!(f, "{name}={count}"),
            Fault::Plain(_) => f.write_str(name),
        }
    }
}

impl TryFrom<String> for Fault {
    type Error = FaultError;

    fn try_from(text: String) -> Result<Self, FaultError> {
        text.parse()
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

/// The faults of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    faults: Vec<Fault>,
    seed: u64,
}

/// What is done to one stream. Events are counted from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultPlan {
    /// Before which event it stops, and for how long.
    pub stall: Option<(usize, Duration)>,
    /// Before which event its connection is reset.
    pub reset: Option<usize>,
    /// In place of which event it ends with an error.
    pub error: Option<usize>,
    /// Bytes of a piece.
    pub split: Option<NonZeroUsize>,
    /// Events of a write.
    pub merge: NonZeroUsize,
    /// Tokens of an event.
    pub tokens: NonZeroUsize,
    /// Whether it says `[DONE]`.
    pub has_done: bool,
    /// Whether a comment stands before every event.
    pub has_comments: bool,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(ToString::to_string).collect();
        f.write_str(&faults.join(", "))
    }
}

impl Faults {
    /// Faults of that seed; `None` where there are none.
    #[must_use]
    pub fn new(faults: &[Fault], seed: u64) -> Option<Self> {
        let faults = faults.to_vec();
        (!faults.is_empty()).then_some(Faults { faults, seed })
    }

    /// How the `number`-th request is refused, if it is.
    #[must_use]
    pub fn refusal(&self, number: u64) -> Option<FaultKind> {
        let refusals = [FaultKind::TooManyRequests, FaultKind::Unavailable];
        refusals.into_iter().find(|kind| self.hits(*kind, number))
    }

    /// What is done to the stream of the `number`-th request, of `max_tokens` tokens at most. Where
    /// it ends before an event, nothing happens there.
    #[must_use]
    pub fn plan(&self, number: u64, max_tokens: usize) -> FaultPlan {
        let tokens = self.count(FaultKind::Tokens).unwrap_or(NonZeroUsize::MIN);
        let n_events = max_tokens.div_ceil(tokens.get());
        let hit = |kind| {
            self.hits(kind, number)
                .then(|| self.event(kind, number, n_events))
        };
        let lasts = self.faults.iter().find_map(|fault| match fault {
            Fault::Stall { lasts, .. } => Some(*lasts),
            Fault::Hit { .. } | Fault::Counted { .. } | Fault::Plain(_) => None,
        });
        FaultPlan {
            stall: hit(FaultKind::Stall).zip(lasts),
            reset: hit(FaultKind::Reset),
            error: hit(FaultKind::Error),
            split: self.count(FaultKind::Split),
            merge: self.count(FaultKind::Merge).unwrap_or(NonZeroUsize::MIN),
            tokens,
            has_done: !self.has(FaultKind::NoDone),
            has_comments: self.has(FaultKind::Comments),
        }
    }

    fn has(&self, kind: FaultKind) -> bool {
        self.faults.iter().any(|fault| fault.kind() == kind)
    }

    fn count(&self, wanted: FaultKind) -> Option<NonZeroUsize> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Counted { kind, count } if *kind == wanted => Some(*count),
            Fault::Counted { .. } | Fault::Stall { .. } | Fault::Hit { .. } | Fault::Plain(_) => {
                None
            }
        })
    }

    fn hits(&self, wanted: FaultKind, number: u64) -> bool {
        let share = self.faults.iter().find_map(|fault| match fault {
            Fault::Stall { share, .. } if wanted == FaultKind::Stall => Some(*share),
            Fault::Hit { kind, share } if *kind == wanted => Some(*share),
            Fault::Counted { .. } | Fault::Stall { .. } | Fault::Hit { .. } | Fault::Plain(_) => {
                None
            }
        });
        let drawn = (self.draw(wanted, number, 0) >> 11) as f64 / (1_u64 << 53) as f64;
        share.is_some_and(|share| drawn < share)
    }

    /// An event of `n_events`, not the first where there are others: what happens before the first
    /// looks like a slow prompt, or like a server that never answered.
    fn event(&self, kind: FaultKind, number: u64, n_events: usize) -> usize {
        let n_others = n_events.saturating_sub(1);
        match n_others as u64 {
            0 => 0,
            // A remainder is below `n_others`.
            n_others => 1 + (self.draw(kind, number, 1) % n_others) as usize,
        }
    }

    /// A number that seed, request and kind decide: the finaliser of SplitMix64 (Steele, Lea and
    /// Flood, 2014) over each in turn.
    fn draw(&self, kind: FaultKind, number: u64, which: u64) -> u64 {
        let parts = [number, kind as u64, which];
        parts
            .into_iter()
            .fold(self.seed, |state, part| scatter(state ^ scatter(part)))
    }
}

fn scatter(bits: u64) -> u64 {
    let mut bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(texts: &[&str], seed: u64) -> Faults {
        let faults: Vec<Fault> = texts.iter().map(|text| text.parse().unwrap()).collect();
        Faults::new(&faults, seed).unwrap()
    }

    #[test]
    fn faults_have_one_text_form() {
        let all = [
            "stall=0.1:2s",
            "stall=1:250ms",
            "stall=0.5:1.5m",
            "reset=0.05",
            "error=0.05",
            "429=0.1",
            "503=1",
            "split=7",
            "merge=3",
            "tokens=4",
            "no_done",
            "comments",
        ];
        for text in all {
            let fault: Fault = text.parse().unwrap();
            assert_eq!(fault.to_string().parse(), Ok(fault), "{text}");
            let json = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&json).unwrap(), fault);
        }
        for kind in FaultKind::ALL {
            let name = serde_json::to_value(kind).unwrap();
            assert_eq!(name, kind.name());
        }
    }

    #[test]
    fn what_is_no_fault_is_told_the_kinds() {
        let error = "slow=0.1".parse::<Fault>().unwrap_err().to_string();
        assert!(error.starts_with("`slow=0.1` is no fault; there are `stall=SHARE:DURATION`"));
        for kind in FaultKind::ALL {
            assert!(error.contains(&format!("`{}`", kind.form())), "{error}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_told_what_does() {
        let wrong = [
            "stall=0.1",
            "stall=0.1:2",
            "stall=0.1:2h",
            "stall=0.1:61m",
            "stall=0.1:-1s",
            "reset",
            "reset=0",
            "error=1.5",
            "429=nan",
            "split=0",
            "merge=65537",
            "tokens=two",
            "no_done=1",
            "comments=",
        ];
        for text in wrong {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            let name = text.split('=').next().unwrap();
            let begins = format!("fault `{name}`: found `{text}`, expected `{name}");
            assert!(error.starts_with(&begins), "{error}");
        }
    }

    #[test]
    fn without_faults_there_is_nothing_to_decide() {
        assert_eq!(Faults::new(&[], 7), None);
    }

    #[test]
    fn who_is_hit_depends_on_seed_and_number_alone() {
        let all = ["stall=0.3:1s", "reset=0.3", "error=0.3", "429=0.3"];
        let (one, same, other) = (faults(&all, 1), faults(&all, 1), faults(&all, 2));
        let plans = |faults: &Faults| -> Vec<_> {
            let decided = |n| (faults.refusal(n), faults.plan(n, 20));
            (0..200).map(decided).collect()
        };
        assert_eq!(plans(&one), plans(&same));
        assert_ne!(plans(&one), plans(&other));
        // A kind is hit or not whatever else is asked for.
        let alone = faults(&["reset=0.3"], 1);
        let resets =
            |faults: &Faults| -> Vec<_> { (0..200).map(|n| faults.plan(n, 20).reset).collect() };
        assert_eq!(resets(&alone), resets(&one));
    }

    #[test]
    fn so_many_are_hit_as_were_asked_for() {
        let faults = faults(&["error=0.1", "503=0.25"], 3);
        let n = 20_000;
        let hit = (0..n).filter(|n| faults.plan(*n, 9).error.is_some());
        let refused = (0..n).filter(|n| faults.refusal(*n).is_some());
        // Four standard deviations of a binomial.
        assert!(hit.count().abs_diff(2_000) < 170);
        assert!(refused.count().abs_diff(5_000) < 245);
    }

    #[test]
    fn a_fault_hits_any_event_but_the_first_of_several() {
        let faults = faults(&["reset=1", "tokens=2"], 5);
        let mut seen: Vec<_> = (0..200).filter_map(|n| faults.plan(n, 7).reset).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(faults.plan(0, 2).reset, Some(0));
    }
}
